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
from edge.trackstore.block import Block, decode, encode
from edge.trackstore.parts import parts_in
from edge.trackstore.read import Reader
from edge.trackstore.store import MAX_WAITING, TrackStore
from edge.types import Label


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
    assert block.time_ns.tolist() == [frame.time_ns for frame, *_ in frames]
    assert block.seq.tolist() == list(range(60))
    for number, (_, found, tracks) in enumerate(frames):
        seen = block.sightings[block.sightings.frame == number]
        assert seen.track_id.tolist() == tracks.track_id.tolist()
        assert np.array_equal(seen.xyxy, tracks.xyxy) and np.array_equal(seen.velocity, tracks.velocity)
        assert seen.class_id.tolist() == tracks.class_id.tolist()
        assert (np.abs(seen.score - tracks.score) <= 1 / 64).all()
        others = block.candidates[block.candidates.frame == number]
        assert len(others) == len(found) - len(tracks)
        assert len(others) == 0 or np.abs(np.sort(others.xyxy[:, 0]) - np.sort(found.xyxy[len(tracks) :, 0])).max() <= 1
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


def test_frames_that_find_no_room_are_counted_and_cost_no_memory(tmp_path: Path) -> None:
    store = TrackStore(TrackStoreSettings(), tmp_path)
    log = store.log_of("door", facts())
    frame, found, tracks = next(iter(frames_of(1, 1)))
    for _ in range(MAX_WAITING + 7):
        log.add(frame, found, tracks)
    store.close()
    store.run(threading.Event())
    assert store.stats()["lost"] == 7 and store.stats()["frames"] == MAX_WAITING
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
