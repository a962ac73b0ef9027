"""What the store keeps comes back bit for bit, within bounds; damage is left out, and a failing disk costs only it."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest
from effort import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from unit.trackstore.scenes import crossed, facts, frames_of, head

from edge.config.recording import TrackStoreSettings
from edge.errors import DataError
from edge.trackstore.block import COARSE, Block, Sightings, Steps, decode, encode
from edge.trackstore.compact import compact
from edge.trackstore.parts import parts_in
from edge.trackstore.read import Reader
from edge.trackstore.rounding import REST, TICK_NS, Rounding
from edge.trackstore.steady import NEAR
from edge.trackstore.store import TrackStore
from edge.types import Label, Tracks


def kept(folder: Path, count: int = 60, seed: int = 1, **setting: float) -> TrackStore:
    """A store that was given some frames and closed."""
    store = TrackStore(TrackStoreSettings.model_validate(setting), folder)
    log = store.log_of("door", facts({"drop_too_old": 2}))
    for frame, found, tracks in frames_of(seed, count):
        events = (crossed(frame, 1),) if frame.seq == 3 else ()
        log.add(frame, found, tracks, events, {1: (Label("red", 0.5),)} if frame.seq > 5 else {})
    store.close()
    store.run(threading.Event())
    return store


def test_everything_comes_back(tmp_path: Path) -> None:
    kept(tmp_path)
    (found_head, block), *_ = Reader(tmp_path).blocks("door")
    assert found_head == head()
    frames = list(frames_of(1, 60))
    assert block.time_ns.tolist() == [frame.time_ns // TICK_NS * TICK_NS for frame, *_ in frames]
    assert block.seq.tolist() == list(range(60))
    for number, (_, found, tracks) in enumerate(frames):
        seen = block.sightings[block.sightings.frame == number]
        assert seen.track_id.tolist() == tracks.track_id.tolist()
        assert np.array_equal(seen.xyxy, tracks.xyxy) and np.array_equal(seen.velocity, tracks.velocity)
        assert seen.class_id.tolist() == tracks.class_id.tolist()
        assert (np.abs(seen.score - tracks.score) <= 2 / 16).all()
        others = block.candidates[block.candidates.frame == number]
        assert len(others) == len(found) - len(tracks)
        apart = np.abs(np.sort(others.xyxy[:, 0]) - np.sort(found.xyxy[len(tracks) :, 0]))
        assert (apart <= NEAR * COARSE * head().steps.px).all()
    assert block.notes["events"] == [[3, "line_crossed", 1, {"line": "gate", "direction": "in"}]]
    assert block.notes["labels"] == [[6, 1, [["red", 0.5]]]]
    assert block.notes["moments"][0]["counts"] == {"drop_too_old": 2}


@given(st.integers(0, 10_000), st.integers(1, 40))
@settings(max_examples=examples(40), deadline=None)
def test_a_block_comes_back_bit_for_bit(seed: int, count: int) -> None:
    from edge.trackstore.collect import FrameFacts, block_of

    frames = [
        FrameFacts(f.time_ns, f.captured_ns, f.epoch, f.seq, f.captured_ns, (360, 640, 3), found, tracks, (), {})
        for f, found, tracks in frames_of(seed, count)
    ]
    steps = head().steps
    block = block_of(frames, [], {}, (), ((), steps, 0))
    assert equal(decode(encode(block, steps), steps), block)


def equal(one: Block, other: Block) -> bool:
    names = ("frame", "track_id", "class_id", "xyxy", "velocity", "points")
    return (
        all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("time_ns", "captured_ns", "seq"))
        and all(np.array_equal(getattr(one.sightings, n), getattr(other.sightings, n)) for n in names)
        and np.array_equal(one.candidates.frame, other.candidates.frame)
        and np.array_equal(np.sort(one.candidates.xyxy, 0), np.sort(other.candidates.xyxy, 0))
    )


def test_a_part_that_was_cut_anywhere_opens_and_gives_its_whole_blocks(tmp_path: Path) -> None:
    store = TrackStore(TrackStoreSettings(block_s=0.2), tmp_path)
    log, ends = store.log_of("door", facts()), []
    for frame, found, tracks in frames_of(2, 40):
        log.add(frame, found, tracks)
        if frame.seq % 10 == 9:
            store._round(is_flush=True)
            ends.append(parts_in(tmp_path / "door")[0].stat().st_size)
    path = parts_in(tmp_path / "door")[0]
    data = path.read_bytes()
    for size in (*range(0, len(data), 37), len(data)):
        path.write_bytes(data[:size])
        reader = Reader(tmp_path)
        whole = sum(end <= size for end in ends)
        assert sum(len(block.seq) for _, block in reader.blocks("door")) == 10 * whole, size
        assert bool(reader.problems) == (size not in (*ends, head_end(data))), size


def head_end(data: bytes) -> int:
    """Where the first block begins."""
    return 12 + 12 + int.from_bytes(data[16:20], "little")


@given(st.integers(0, 10**6), st.integers(1, 255))
@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_flipped_byte_is_noticed(tmp_path: Path, at: int, change: int) -> None:
    folder = tmp_path / "flip"
    if not folder.exists():
        kept(folder)
        (tmp_path / "whole").write_bytes(parts_in(folder / "door")[0].read_bytes())
    data = bytearray((tmp_path / "whole").read_bytes())
    data[at % len(data)] ^= change
    parts_in(folder / "door")[0].write_bytes(bytes(data))
    reader = Reader(folder)
    blocks = list(reader.blocks("door"))
    assert not blocks and reader.problems


def test_frames_that_find_no_room_are_counted_and_cost_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.trackstore.store.MAX_WAITING", 256)
    store = TrackStore(TrackStoreSettings(), tmp_path)
    log = store.log_of("door", facts())
    frame, found, tracks = next(iter(frames_of(1, 1)))
    for _ in range(256 + 7):
        log.add(frame, found, tracks)
    store.close()
    store.run(threading.Event())
    assert store.stats()["lost"] == 7 and store.stats()["frames"] == 256
    assert sum(block.notes["lost"] for _, block in Reader(tmp_path).blocks("door")) == 7


def test_the_oldest_parts_go_first(tmp_path: Path) -> None:
    folder = tmp_path / "door"
    folder.mkdir()
    for number in range(4):
        path = folder / f"2026010{number}T000000.000Z.tracks"
        path.write_bytes(bytes(6_000_000))
        os.utime(path, (1e9, 1e9) if number == 0 else None)
    kept(tmp_path, max_mb=22)
    names = [path.name[:8] for path in parts_in(folder)]
    assert names[:2] == ["20260102", "20260103"] and len(names) == 3


def test_another_size_begins_another_part(tmp_path: Path) -> None:
    store = TrackStore(TrackStoreSettings(), tmp_path)
    log = store.log_of("door", facts())
    for size in ((640, 360), (320, 180)):
        for frame, found, tracks in frames_of(1, 5, size):
            log.add(frame, found, tracks)
    store.close()
    store.run(threading.Event())
    heads = [found.width for found, _ in Reader(tmp_path).blocks("door")]
    assert heads == [640, 320] and len(parts_in(tmp_path / "door")) == 2


def test_a_folder_that_cannot_be_written_is_told_once_and_costs_its_frames(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    store = kept(tmp_path / "file" / "tracks")
    assert store.stats()["lost"] == 60 and "track" in str(store.stats()["error"])
    assert len([record for record in caplog.records if "track_store" in record.message]) == 1


def test_a_store_that_is_not_there_or_lacks_the_stream_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"\[track_store\]"):
        Reader(tmp_path / "none")
    kept(tmp_path)
    with pytest.raises(DataError, match="there are: door"):
        list(Reader(tmp_path).blocks("gate"))


def test_only_the_blocks_of_a_time_are_read(tmp_path: Path) -> None:
    kept(tmp_path)
    reader = Reader(tmp_path)
    first, last = reader.span("door") or (0, 0)
    assert first < last
    assert not list(reader.blocks("door", last + 1)) and not list(reader.blocks("door", None, first))
    assert list(reader.blocks("door", last)) and list(reader.blocks("door", None, first + 1))


def test_what_rests_does_not_tremble_and_what_moves_is_followed() -> None:
    rounding, (frame, *_), step = Rounding(), next(iter(frames_of(1, 1))), Steps.of(640, 360)
    chance, box = np.random.default_rng(1), np.array([[100, 50, 120, 90], [10, 10, 30, 60]], np.float32)
    seen, exact = [], []
    for number in range(50):
        box[0] += np.array([3, 0, 3, 0], np.float32)
        trembling = box + chance.uniform(-0.4, 0.4, (2, 4)).astype(np.float32) * step.px
        ids = np.array([7, 3]) if number % 2 else np.array([3, 7])
        order = np.argsort(ids)[::-1]
        speed = np.array([[30, 0], [0, 0]], np.float32)[order]
        ones, numbers = np.ones(2, np.float32), np.arange(2, dtype=np.int32)
        tracks = Tracks(ids, trembling[order], ones, numbers, ones, speed, numbers)
        stored = rounding.rounded(tracks, frame).xyxy[np.argsort(ids)[::-1]]
        seen.append(stored)
        exact.append(trembling)
    assert len({tuple(stored[1].tolist()) for stored in seen}) == 1
    assert np.abs(np.array(seen) - np.array(exact)).max() <= REST * step.px
    assert len({tuple(stored[0].tolist()) for stored in seen}) == 50


def several_blocks(folder: Path, count: int = 120) -> Path:
    """A part of blocks of ten frames, complete."""
    store = TrackStore(TrackStoreSettings(block_s=0.2), folder)
    log = store.log_of("door", facts())
    for frame, found, tracks in frames_of(3, count):
        events = (crossed(frame, 1),) if frame.seq % 7 == 3 else ()
        log.add(frame, found, tracks, events, {1: (Label("red", frame.seq // 25 / 10),)})
        if frame.seq % 10 == 9:
            store._round(is_flush=True)
    store.close()
    store.run(threading.Event())
    return parts_in(folder / "door")[0]


def test_a_complete_part_becomes_smaller_and_says_the_same(tmp_path: Path) -> None:
    path = several_blocks(tmp_path)
    before, size, facts_before = list(Reader(tmp_path).blocks("door")), path.stat().st_size, path.stat().st_mtime_ns
    list(compact(path))
    after = list(Reader(tmp_path).blocks("door"))
    assert len(before) >= 12 and len(after) <= 2 and after[0][0] == before[0][0]
    assert path.stat().st_size < 0.6 * size and path.stat().st_mtime_ns == facts_before
    names = ("time_ns", "captured_ns", "epoch", "seq", "age_ms")
    whole = after[0][1]
    for name in names:
        assert np.array_equal(getattr(whole, name), np.concatenate([getattr(block, name) for _, block in before]))
    first = 0
    for _, block in before:
        rows = whole.sightings[(whole.sightings.frame >= first) & (whole.sightings.frame < first + 10)]
        assert sorted(map(str, zip(*columns(rows), strict=True))) == sorted(
            map(str, zip(*columns(block.sightings, first), strict=True))
        )
        first += 10
    assert len(whole.candidates) == sum(len(block.candidates) for _, block in before)
    starts = range(0, 10 * len(before), 10)
    events = [
        (start, event) for start, (_, block) in zip(starts, before, strict=True) for event in block.notes["events"]
    ]
    assert whole.notes["events"] == [[start + event[0], *event[1:]] for start, event in events]
    # again: nothing is left to do
    assert list(compact(path)) == []


def columns(rows: Sightings, offset: int = 0) -> list[list[object]]:
    names = ("track_id", "class_id", "score", "xyxy", "velocity")
    return [(rows.frame + offset).tolist(), *(getattr(rows, name).tolist() for name in names)]


def test_a_part_that_is_written_or_damaged_is_left_alone(tmp_path: Path) -> None:
    store = TrackStore(TrackStoreSettings(block_s=0.2), tmp_path)
    log = store.log_of("door", facts())
    for frame, found, tracks in frames_of(2, 20):
        log.add(frame, found, tracks)
        store._round(is_flush=True)
    path = parts_in(tmp_path / "door")[0]
    data = path.read_bytes()
    assert list(compact(path)) == [] and path.read_bytes() == data
    store.close()
    store.run(threading.Event())
    path.write_bytes(b"rubbish")
    assert list(compact(path)) == [] and path.read_bytes() == b"rubbish"


def test_an_end_in_the_middle_of_it_leaves_the_part_as_it_was(tmp_path: Path) -> None:
    path = several_blocks(tmp_path)
    data = path.read_bytes()
    for steps in range(2):
        running = compact(path)
        for _ in range(steps):
            next(running)
        running.close()
        assert path.read_bytes() == data and len(list(path.parent.iterdir())) == 1


def test_what_a_killed_program_left_is_made_compact_by_the_next(tmp_path: Path) -> None:
    path = several_blocks(tmp_path)
    size = path.stat().st_size
    (path.parent / "20260101T000000.000Z.tracks-new").write_bytes(b"half")
    store = TrackStore(TrackStoreSettings(block_s=0.2), tmp_path)
    log = store.log_of("door", facts())
    for frame, found, tracks in frames_of(2, 5):
        log.add(frame, found, tracks)
    store._round(is_flush=True)
    for _ in range(4):
        store._round(is_flush=False)
    assert path.stat().st_size < 0.6 * size
    assert all(one.suffix == ".tracks" for one in path.parent.iterdir())


def test_what_waits_is_written_when_another_process_asks(tmp_path: Path) -> None:
    store = TrackStore(TrackStoreSettings(block_s=300), tmp_path)
    writer = threading.Thread(target=store.run, args=(threading.Event(),))
    log = store.log_of("door", facts())
    for number, (frame, found, tracks) in enumerate(frames_of(2, 20)):
        if number == 10:
            store._round(is_flush=True)
            writer.start()
        log.add(frame, found, tracks)
    reader = Reader(tmp_path)
    reader.catch_up("door")
    assert sum(len(block.seq) for _, block in reader.blocks("door")) == 20
    store.close()
    writer.join(10)
    reader.catch_up("door")
    assert [path.suffix for path in (tmp_path / "door").iterdir()] == [".tracks"]
