"""A wall clock that is wrong or is set costs no recording, and a disk that fails costs no more than the recording."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import Any

import pytest
import record_kills as scene
from waiting import wait_until

from edge.config.recording import RecordSettings
from edge.errors import SinkError
from edge.metrics.clock import WallClock
from edge.recording.clock import STEADY_NS, RecordingClock
from edge.recording.disk import Disk
from edge.recording.recording import RecordingFolder
from edge.recording.retention import Keep
from edge.sinks.record import RecordSink

DAY_NS = 86_400 * 10**9
NOW_NS = time.time_ns()


class Watch:
    """A monotonic clock and a wall clock, which the test sets."""

    def __init__(self, wall_ns: int = NOW_NS) -> None:
        self.now_ns = 10**12
        self.wall = WallClock(wall_ns - self.now_ns, lambda: self.now_ns)

    def step(self, wall_ns: int) -> None:
        self.wall.offset_ns += wall_ns

    def wait(self, wait_ns: int) -> None:
        self.now_ns += wait_ns


def opened(folder: Path, watch: Watch, disk: Disk | None = None, **settings: Any) -> RecordSink:
    given = {"folder": folder, "segment_s": 1, "fragment_s": 0.5, "reserve_mb": 0, **settings}
    chosen = RecordSettings.model_validate(given)
    return RecordSink(chosen, "door", fps=scene.FPS, is_lossless=True, clock=watch.wall, disk=disk)


def write(sink: RecordSink, numbers: range) -> None:
    for number in numbers:
        shown = scene.result(number)
        sink.write(shown, lambda image=shown.frame.image: image)  # type: ignore[misc]
    wait_until(lambda: not len(sink._queue))


def shown(folder: Path) -> list[int]:
    found = [number for path in (folder / "door").glob("*.mp4") for number in scene.numbers_in(path)]
    return sorted(found)


def archived(folder: Path, watch: Watch) -> list[str]:
    """Names of three files of an earlier run."""
    sink = opened(folder, watch)
    write(sink, range(70))
    sink.close()
    names = [entry.file for entry in sink.entries()]
    assert len(names) >= 3
    return names


def test_a_clock_that_is_wrong_at_the_start_costs_no_recording(tmp_path: Path) -> None:
    watch = Watch(NOW_NS - 45 * DAY_NS)
    sink = opened(tmp_path, watch, max_age_days=30)
    write(sink, range(100))
    wait_until(lambda: bool(sink.entries()))
    watch.step(45 * DAY_NS)
    write(sink, range(100, 200))
    sink.close()
    assert shown(tmp_path) == list(range(200))
    # the files after the step have the right time
    first, last = sink.entries()[0], sink.entries()[-1]
    assert last.start_ns - first.start_ns > 44 * DAY_NS
    assert last.file > first.file


def test_by_size_the_files_finished_first_go_whatever_the_clock_said(tmp_path: Path) -> None:
    old = archived(tmp_path, Watch(NOW_NS))
    old_gb = sum((tmp_path / "door" / name).stat().st_size for name in old) / 1e9
    sink = opened(tmp_path, Watch(NOW_NS - 45 * DAY_NS), max_gb=1.8 * old_gb)
    write(sink, range(1000, 1100))
    sink.close()
    left = [entry.file for entry in sink.entries()]
    assert set(range(1000, 1100)) <= set(shown(tmp_path))
    assert old[0] not in left
    # and so after a restart
    again = RecordingFolder(tmp_path / "door", Keep())
    again.close()
    assert [entry.file for entry in again.index.entries] == left


def test_a_clock_that_jumps_ahead_costs_no_archive(tmp_path: Path) -> None:
    old = archived(tmp_path, Watch())
    watch = Watch()
    sink = opened(tmp_path, watch, max_age_days=30)
    folder = sink._folder
    write(sink, range(1000, 1060))
    watch.wait(2 * STEADY_NS)
    watch.step(365 * DAY_NS)
    write(sink, range(1060, 1200))
    folder.enforce()
    assert [entry.file for entry in sink.entries()][: len(old)] == old
    watch.step(-365 * DAY_NS)
    watch.wait(2 * STEADY_NS)
    folder.enforce()
    sink.close()
    assert [entry.file for entry in sink.entries()][: len(old)] == old


def test_age_counts_once_the_clock_has_been_steady_for_an_hour(tmp_path: Path) -> None:
    archived(tmp_path, Watch(NOW_NS - 31 * DAY_NS))
    watch = Watch()
    folder = RecordingFolder(tmp_path / "door", Keep(30 * DAY_NS), clock=RecordingClock.of(watch.wall))
    folder.enforce()
    assert len(folder.index.entries) >= 3
    watch.wait(STEADY_NS)
    folder.enforce()
    folder.close()
    assert folder.index.entries == ()


def test_the_files_of_this_run_age_by_the_monotonic_clock(tmp_path: Path) -> None:
    watch = Watch(NOW_NS - 45 * DAY_NS)
    sink = opened(tmp_path, watch, max_age_days=30)
    write(sink, range(100))
    sink.close()
    folder = sink._folder
    watch.step(45 * DAY_NS)
    folder.enforce()
    watch.wait(29 * DAY_NS)
    folder.enforce()
    assert shown(tmp_path) == list(range(100))
    watch.wait(2 * DAY_NS)
    folder.enforce()
    assert shown(tmp_path) == []


@pytest.mark.parametrize("mode", ["continuous", "events"])
def test_a_folder_that_cannot_be_read_costs_the_recording_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    sink = opened(tmp_path, Watch(), mode=mode, post_roll_s=0)
    sink._recorder._cutter._clock_s = lambda: 0.0 if is_broken[0] else 1e9
    is_broken = [True]
    _break(monkeypatch, is_broken)
    said = []
    for number in range(60):
        result = scene.result(number, has_event=number % 20 == 10)
        try:
            sink.write(result, lambda image=result.frame.image: image)  # type: ignore[misc]
        except SinkError as error:
            said.append(str(error))
        assert (sink.clip_of(result) is not None) is (mode == "events" and bool(result.events))
    wait_until(lambda: not len(sink._queue) and bool(sink.stats()["error"]))
    assert "cannot be read or written (Input/output error); check the disk" in str(sink.stats()["error"])
    is_broken[0] = False
    for number in range(60, 120):
        result = scene.result(number, has_event=number == 100)
        try:
            sink.write(result, lambda image=result.frame.image: image)  # type: ignore[misc]
        except SinkError as error:
            said.append(str(error))
    sink.close()
    assert any("recording pauses" in one for one in said)
    assert 100 in shown(tmp_path)
    assert sink.stats()["error"] == ""


def _break(monkeypatch: pytest.MonkeyPatch, is_broken: list[bool]) -> None:
    """Every look at a file of a recording fails while ``is_broken``."""
    look = Path.stat

    def stat(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        if is_broken[0] and path.parent.name == "door":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return look(path, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(Path, "stat", stat)
    monkeypatch.setattr(Path, "lstat", lambda path: path.stat(follow_symlinks=False))


def test_a_folder_that_cannot_be_read_at_the_start_is_said_and_is_free_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archived(tmp_path, Watch())
    (tmp_path / "door" / ".20200101T000000.000Z.mp4.part").write_bytes(b"nothing")
    unlink = Path.unlink

    def fail(path: Path, missing_ok: bool = False) -> None:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "unlink", fail)
    with pytest.raises(SinkError, match=r"door cannot be read or written \(Permission denied\); check the disk"):
        RecordingFolder(tmp_path / "door", Keep())
    monkeypatch.setattr(Path, "unlink", unlink)
    RecordingFolder(tmp_path / "door", Keep()).close()


def test_the_reserve_holds_while_a_file_grows(tmp_path: Path) -> None:
    watch, free = Watch(), [2_000_000]
    looks = []

    def free_bytes(_: Path) -> int:
        looks.append(watch.now_ns)
        return free[0]

    sink = opened(tmp_path, watch, Disk(free_bytes=free_bytes), segment_s=300, reserve_mb=1)
    sink._recorder._cutter._clock_s = lambda: watch.now_ns / 1e9
    write(sink, range(100))
    # media time went on for seconds, the clock did not
    assert len(looks) == 1
    # others fill the disk
    free[0] = 500_000
    watch.wait(2 * 10**9)
    with pytest.raises(SinkError, match="less than 1 MB are free; recording pauses"):
        for number in range(100, 10_000):
            write(sink, range(number, number + 1))
    wait_until(lambda: len(sink.entries()) + sink._folder.counters["removed"] > 0)
    ended = number
    write(sink, range(ended + 1, ended + 100))
    assert not list((tmp_path / "door").glob(".*.part"))
    free[0] = 2_000_000
    watch.wait(10 * 10**9)
    write(sink, range(ended + 100, ended + 200))
    sink.close()
    assert ended < 130
    assert shown(tmp_path)[-1] == ended + 199
    assert sink.stats()["error"] == ""


def test_the_size_holds_while_a_file_grows(tmp_path: Path) -> None:
    old = archived(tmp_path, Watch())
    watch = Watch()
    old_gb = sum((tmp_path / "door" / name).stat().st_size for name in old) / 1e9
    sink = opened(tmp_path, watch, segment_s=300, max_gb=1.2 * old_gb)
    for number in range(1000, 1400):
        watch.wait(10**9)
        write(sink, range(number, number + 1))
    left = [path.name for path in (tmp_path / "door").glob("*.mp4")]
    sink.close()
    assert not set(left) & set(old)
