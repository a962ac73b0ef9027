"""Recordings of numbered pictures: whole, without gaps, bounded, and playable after a kill or a full disk."""

from __future__ import annotations

import errno
import importlib.util
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_until

from edge.config.recording import RecordSettings
from edge.errors import SinkError
from edge.metrics.clock import WallClock
from edge.recording.cutter import Coded, PreRoll
from edge.recording.disk import Disk
from edge.recording.index import INDEX_NAME, Recorded
from edge.recording.recording import RecordingFolder
from edge.recording.retention import Keep
from edge.sinks.record import RecordSink
from edge.video.encoder import Packet

KILLS = Path(__file__).parents[1] / "servers" / "record_kills.py"
CLOCK = WallClock(1_795_000_000_000_000_000, time.monotonic_ns)


def load_scene() -> Any:
    spec = importlib.util.spec_from_file_location("record_kills", KILLS)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


scene = load_scene()


def opened(folder: Path, disk: Disk | None = None, **settings: Any) -> RecordSink:
    chosen = RecordSettings.model_validate({"folder": folder, "reserve_mb": 0, **settings})
    return RecordSink(chosen, "door", fps=scene.FPS, is_lossless=True, clock=CLOCK, disk=disk)


def write(sink: RecordSink, numbers: Sequence[int], events: Sequence[int] = ()) -> list[str | None]:
    """The clip of each event."""
    clips = []
    for number in numbers:
        result = scene.result(number, has_event=number in events)
        sink.write(result, lambda image=result.frame.image: image)  # type: ignore[misc]
        if number in events:
            clips.append(sink.clip_of(result))
    return clips


def files(folder: Path) -> list[Path]:
    return sorted((folder / "door").glob("*.mp4"))


def test_segments_follow_each_other_without_a_gap_and_are_in_the_index(tmp_path: Path) -> None:
    sink = opened(tmp_path, segment_s=2, fragment_s=1)
    write(sink, range(130), events=[60])
    sink.close()
    sink.close()
    parts = [scene.numbers_in(path) for path in files(tmp_path)]
    assert [number for part in parts for number in part] == list(range(130))
    assert len(parts) >= 3
    assert all(len(part) <= 3 * scene.FPS for part in parts)
    entries = sink.entries()
    assert [entry.file for entry in entries] == [path.name for path in files(tmp_path)]
    assert [entry.num_frames for entry in entries] == [len(part) for part in parts]
    assert [entry.num_bytes for entry in entries] == [path.stat().st_size for path in files(tmp_path)]
    assert [kind for entry in entries for _, kind in entry.events] == ["tick"]
    assert entries[0].start_ns == CLOCK.offset_ns
    lines = (tmp_path / "door" / INDEX_NAME).read_text().splitlines()
    assert tuple(Recorded.from_json(line) for line in lines) == entries


def test_a_clip_begins_before_its_event_and_ends_after_the_last_one(tmp_path: Path) -> None:
    sink = opened(tmp_path, mode="events", pre_roll_s=2, post_roll_s=1, fragment_s=1)
    clips = write(sink, range(250), events=[100, 115, 200])
    sink.close()
    first, second = (scene.numbers_in(path) for path in files(tmp_path))
    assert clips[0] == clips[1] == str(files(tmp_path)[0])
    assert clips[2] == str(files(tmp_path)[1])
    for numbers, event, last in ((first, 100, 115), (second, 200, 200)):
        assert numbers == list(range(numbers[0], numbers[-1] + 1))
        # at least the pre-roll, at most one key distance more
        assert event - 3 * scene.FPS <= numbers[0] <= event - 2 * scene.FPS
        assert numbers[-1] == last + scene.FPS
    assert {entry.kind for entry in sink.entries()} == {"clip"}


def test_the_pre_roll_stays_within_its_memory() -> None:
    ring = PreRoll(300 * 10**9, 4000)
    for number in range(200):
        ring.add(Coded(Packet(bytes(300), number * 3600, number % 5 == 0), number * 10**9 // 25, 0))
        assert ring.num_bytes <= 4000
    kept = ring.packets(0)
    assert len(kept) * 300 == ring.num_bytes > 0
    assert kept[0].packet.is_key


def test_a_change_of_size_and_a_long_silence_begin_new_files(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    write(sink, range(30))
    write(sink, range(400, 430))
    for number in range(430, 440):
        result = scene.result(number)
        sink.write(result, lambda image=result.frame.image: image[: scene.HEIGHT // 2 + 1].copy())  # type: ignore[misc]
    sink.close()
    assert [len(scene.numbers_in(path)) for path in files(tmp_path)] == [30, 30, 10]


def test_the_oldest_recordings_go_when_the_size_is_reached(tmp_path: Path) -> None:
    sink = opened(tmp_path, segment_s=1, fragment_s=0.5, max_gb=40e-6)
    write(sink, range(1200))
    sink.close()
    total = sum(path.stat().st_size for path in files(tmp_path))
    assert total <= 40_000
    shown = [number for path in files(tmp_path) for number in scene.numbers_in(path)]
    assert shown == list(range(shown[0], 1200))
    assert shown[0] > 0


@contextmanager
def small_disk(folder: Path, num_bytes: int) -> Iterator[Disk]:
    """A tmpfs of this size; where mounting is not allowed, writes that fail beyond it."""
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={num_bytes}", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if done.returncode == 0:
        try:
            yield Disk()
        finally:
            subprocess.run(["umount", "-l", str(folder)], check=True)
        return

    def used() -> int:
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

    def limited(fd: int, data: bytes) -> int:
        if used() + len(data) > num_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return os.write(fd, data)

    yield Disk(limited, lambda _: max(num_bytes - used(), 0))


def test_on_a_full_disk_the_oldest_go_and_recording_goes_on(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 112 << 10) as disk:
        sink = opened(tmp_path / "disk", disk, segment_s=2, fragment_s=0.5)
        write(sink, range(1500))
        sink.close()
        shown = [number for path in files(tmp_path / "disk") for number in scene.numbers_in(path)]
        assert shown == list(range(shown[0], 1500))
        assert shown[0] > 0
        assert sink._folder.counters["removed"] > 0
        assert sink.stats()["error"] == ""


def test_a_disk_that_others_have_filled_pauses_recording_and_nothing_else(tmp_path: Path) -> None:
    is_full = [False]

    def sometimes(fd: int, data: bytes) -> int:
        if is_full[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return os.write(fd, data)

    sink = opened(tmp_path, Disk(sometimes), segment_s=100, fragment_s=0.5)
    sink._recorder._cutter._clock_s = lambda: 0.0 if is_full[0] else 1e9
    write(sink, range(100))
    wait_until(lambda: not len(sink._queue))
    is_full[0] = True
    with pytest.raises(SinkError, match=r"No space left on device.*; recording pauses"):
        for number in range(100, 10_000):
            write(sink, [number])
    write(sink, range(number + 1, number + 50))
    wait_until(lambda: not len(sink._queue))
    is_full[0] = False
    write(sink, range(number + 50, number + 100))
    sink.close()
    before, after = (scene.numbers_in(path) for path in files(tmp_path))
    assert before == list(range(before[-1] + 1))
    assert before[-1] >= 85
    assert after[-1] == number + 99
    assert sink._recorder.counters["frames_lost"] > 0


def test_what_a_crash_left_is_finished_at_the_next_start(tmp_path: Path) -> None:
    sink = opened(tmp_path, segment_s=100, fragment_s=0.5)
    write(sink, range(60))
    wait_until(lambda: not len(sink._queue))
    (part,) = (tmp_path / "door").glob(".*.part")
    content = part.read_bytes()
    sink.close()
    (whole,) = files(tmp_path)
    whole.unlink()
    part.write_bytes(content + b"\0\0\x10\0moof and nothing behind")
    (tmp_path / "door" / ".20200101T000000.000Z.mp4.part").write_bytes(content[:20])
    (tmp_path / "door" / INDEX_NAME).write_text('{"file": "cut')
    folder = RecordingFolder(tmp_path / "door", Keep())
    folder.close()
    assert files(tmp_path) == [whole]
    numbers = scene.numbers_in(whole)
    assert numbers == list(range(len(numbers)))
    assert len(numbers) >= 40
    (entry,) = folder.index.entries
    assert (entry.file, entry.num_frames, entry.start_ns) == (whole.name, len(numbers), CLOCK.offset_ns)
    assert folder.counters["recovered"] == 1


def test_two_processes_cannot_record_into_one_folder(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    with pytest.raises(SinkError, match="in use by another process"):
        RecordingFolder(tmp_path / "door", Keep())
    sink.close()


@pytest.mark.parametrize(
    ("mode", "rounds"),
    [
        ("continuous", 10),
        ("events", 5),
        pytest.param("continuous", 50, marks=pytest.mark.soak),
        pytest.param("events", 50, marks=pytest.mark.soak),
    ],
)
@pytest.mark.timeout(900)
def test_kills_lose_at_most_one_fragment(tmp_path: Path, mode: str, rounds: int) -> None:
    command = [sys.executable, str(KILLS), str(rounds), "11", str(tmp_path), mode]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=KILLS.parents[2])
    assert done.returncode == 0, done.stderr
    found = re.fullmatch(rf"{rounds} kills, (\d+) files, (\d+) pictures, at most (\S+) s lost\n", done.stdout)
    assert found, done.stdout
    assert int(found[1]) >= rounds // 2
    assert float(found[3]) <= scene.FRAGMENT_S
