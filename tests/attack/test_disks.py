"""A disk that is full or read-only at the start costs what it costs later: events wait in memory, cameras go on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.errors import DiskError, SinkError
from edge.events.outbox import Outbox
from edge.events.schema import Envelope
from edge.events.snapshots import Snapshots
from edge.interfaces import Sink
from edge.sinks.choose import open_sink
from edge.sinks.late import RETRY_S, LateSink, open_now_or_later
from edge.types import Detections, Frame, Result

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "servers")]
from daemon_process import Daemon, config_of, daemon
from tiny_models import tiny_model


def can_mount() -> bool:
    return (
        os.geteuid() == 0
        and subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode == 0
    )


needs_mounts = pytest.mark.skipif(not can_mount(), reason="only root may mount a small disk")


class SmallDisk:
    """A tmpfs that the test fills or makes read-only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def remount(self, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(self.folder)], check=True)

    def fill(self) -> Path:
        ballast = self.folder / "ballast"
        with ballast.open("wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                return ballast
        return ballast


@contextmanager
def small_disk(folder: Path, num_bytes: int = 8 << 20) -> Iterator[SmallDisk]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={num_bytes}", "tmpfs", str(folder)], check=True)
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def envelope(name: str) -> Envelope:
    return Envelope(name, "tick", "door", 1, "{}")


def retry_at_once(outbox: Outbox) -> None:
    outbox._store._retry_s = 0.0
    outbox.look_for_file()


@needs_mounts
@pytest.mark.parametrize("fault", ["read-only", "full", "full, with an older file"])
def test_events_wait_in_memory_until_the_disk_takes_them(fault: str, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        path, had = disk.folder / "events.db", []
        if fault != "full":
            before = Outbox(path, ["a", "b"])
            before.put([envelope("kept")])
            before.acknowledge("a", 1)
            before.close()
            had = ["kept"]
        ballast = None if fault == "read-only" else disk.fill()
        if fault == "read-only":
            disk.remount("ro")
        outbox = Outbox(path, ["a", "b"])
        assert "events.db cannot be used" in outbox.error
        outbox.put([envelope("first"), envelope("second")])
        # what the disk holds waits for it; what comes is delivered at once
        assert [event.id for event in outbox.pending("a", 9)] == ["first", "second"]
        outbox.acknowledge("a", outbox.pending("a", 1)[0].number)
        if ballast is None:
            disk.remount("rw")
        else:
            ballast.unlink()
        retry_at_once(outbox)
        outbox.put([envelope("third")])
        assert outbox.error == ""
        assert [event.id for event in outbox.pending("a", 9)] == ["second", "third"]
        assert [event.id for event in outbox.pending("b", 9)] == [*had, "first", "second", "third"]
        outbox.close()
        again = Outbox(path, ["a", "b"])
        assert again.error == ""
        assert [event.id for event in again.pending("a", 9)] == ["second", "third"]
        again.close()


def result() -> Result:
    image = np.zeros((48, 64, 3), np.uint8)
    return Result(Frame("door", 0, 1, 0, None, image), Detections.empty())


@needs_mounts
@pytest.mark.parametrize("spec", ["jsonl:{}/out.jsonl", "hls:{}/live"])
def test_a_sink_of_a_read_only_disk_is_opened_when_it_can_be_written(spec: str, tmp_path: Path) -> None:
    now_s = [0.0]

    def open_it() -> Sink:
        return open_sink(spec.format(disk.folder), stream="door", classes=["person"], fps=25)

    with small_disk(tmp_path / "disk") as disk:
        disk.remount("ro")
        sink = open_now_or_later(open_it, lambda: now_s[0])
        assert isinstance(sink, LateSink)
        disk.remount("rw")
        with pytest.raises(DiskError, match="Read-only file system"):
            sink.write(result(), lambda: result().frame.image)
        now_s[0] += RETRY_S
        sink.write(result(), lambda: result().frame.image)
        sink.close()
        assert list(disk.folder.iterdir())


def test_a_sink_without_its_folder_is_still_refused_at_the_start(tmp_path: Path) -> None:
    spec = f"jsonl:{tmp_path}/nowhere/out.jsonl"
    with pytest.raises(SinkError, match="expected a file in an existing folder"):
        open_now_or_later(lambda: open_sink(spec, stream="door", classes=[], fps=25))


@needs_mounts
def test_pictures_of_events_are_kept_when_the_disk_can_be_written(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        disk.remount("ro")
        snapshots = Snapshots(disk.folder / "shots", 1 << 20)
        with pytest.raises(DiskError, match="Read-only file system"):
            snapshots.write("id", result().frame.image)
        disk.remount("rw")
        assert Path(snapshots.write("id", result().frame.image)).is_file()


def everything_on(disk: Path, model: Path) -> str:
    streams = (
        '[[streams]]\nname = "door"\nsource = "synthetic://street?seed=1&size=160x96&fps=20&objects=2&live=1"\n'
        f'sinks = ["jsonl:{disk}/out.jsonl"]\n[streams.record]\nfolder = "{disk}/rec"\nreserve_mb = 0\n'
        '[[streams.analytics.lines]]\nname = "gate"\npoints_share = [[0.1, 0.6], [0.9, 0.6]]\n'
    )
    more = f'state_dir = "{disk}/state"\n[events]\nsnapshots = "{disk}/shots"\n'
    return config_of(model, streams, more=more)


def stats(running: Daemon) -> Any:
    with running.client() as client:
        return client.get("/api/stats").json()


@needs_mounts
@pytest.mark.parametrize("fault", ["read-only", "full"])
def test_a_daemon_starts_on_a_bad_disk_and_uses_it_when_it_is_well(fault: str, tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "tiny.onnx")
    runtime = tmp_path / "runtime"
    runtime.mkdir()
    with small_disk(tmp_path / "disk") as disk:
        ballast = disk.fill() if fault == "full" else None
        if ballast is None:
            disk.remount("ro")
        with daemon(tmp_path, everything_on(disk.folder, model), env={"RUNTIME_DIRECTORY": str(runtime)}) as running:
            running.wait_for("READY=1")
            running.until(lambda: stats(running)["streams"]["door"]["counts"].get("emitted", 0) > 10)
            assert "events.db cannot be used" in stats(running)["events"]["outbox"]["error"]
            if ballast is None:
                disk.remount("rw")
            else:
                ballast.unlink()
            running.until(lambda: stats(running)["events"]["outbox"]["error"] == "", 40)
            running.until(lambda: stats(running)["recordings"]["door"].get("frames", 0) > 10, 40)
            assert stats(running)["recordings"]["door"]["error"] == ""
            # what the disk did in between is no failure of the stop
            assert running.stop() == 0, running.text
        assert (disk.folder / "state" / "events.db").is_file()
        assert (disk.folder / "state" / "door.analytics.json").is_file()
        assert list((disk.folder / "rec" / "door").glob("*.mp4"))


@needs_mounts
def test_the_brake_of_a_crash_loop_needs_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edge.daemon.state import BLIND_DELAY_S, CrashLoopGuard

    with small_disk(tmp_path / "disk") as disk:
        disk.remount("ro")
        assert CrashLoopGuard(disk.folder).begin() == BLIND_DELAY_S
        runtime = tmp_path / "runtime"
        runtime.mkdir()
        monkeypatch.setenv("RUNTIME_DIRECTORY", str(runtime))
        assert [CrashLoopGuard(disk.folder).begin() for _ in range(6)] == [0, 0, 0, 2, 4, 8]
