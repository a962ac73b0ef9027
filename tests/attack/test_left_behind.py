"""What a daemon leaves behind: files for its user alone, no core of its memory, an exit code that is true."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from daemon_process import SCENE, Daemon, config_of, daemon
from tiny_models import tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny.onnx")


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def children(running: Daemon) -> list[int]:
    task = Path(f"/proc/{running.process.pid}/task")
    return [int(pid) for folder in task.iterdir() for pid in (folder / "children").read_text().split()]


@pytest.mark.usefixtures("open_umask")
def test_files_are_for_their_user_alone(tmp_path: Path, model: Path) -> None:
    left = tmp_path / "left"
    left.mkdir()
    streams = (
        f'[[streams]]\nname = "door"\nsource = "{SCENE}"\n'
        f'sinks = ["jsonl:{left}/out.jsonl", "snapshot:{left}"]\n'
        f'[streams.record]\nfolder = "{left}/rec"\nreserve_mb = 0\nsegment_s = 1\nfragment_s = 0.5\n'
        '[[streams.analytics.lines]]\nname = "gate"\npoints_share = [[0.1, 0.6], [0.9, 0.6]]\n'
    )
    with daemon(tmp_path, config_of(model, streams, more=f'state_dir = "{left}/state"\n[events]\n')) as running:
        running.wait_for("READY=1")
        running.until(
            lambda: bool(list(left.glob("rec/door/*.mp4"))) and bool(list(left.glob("state/*.analytics.json")))
        )
        assert running.stop() == 0
    found = {str(path.relative_to(left)): path.stat().st_mode & 0o777 for path in left.rglob("*")}
    assert {"state/events.db", "out.jsonl", "door.jpg", "rec/door/index.jsonl"} <= found.keys()
    assert {name for name, mode in found.items() if mode & 0o077} == set()


def test_a_crash_writes_no_memory(tmp_path: Path, model: Path) -> None:
    camera = '[[streams]]\nname = "door"\nsource = "http://127.0.0.1:9/cam.mjpg"\n'
    with daemon(tmp_path, config_of(model, camera)) as running:
        running.wait_for("READY=1")
        running.until(lambda: bool(children(running)))
        for pid in (running.process.pid, *children(running)):
            limits = Path(f"/proc/{pid}/limits").read_text(encoding="utf-8")
            assert re.search(r"^Max core file size\s+0\s", limits, re.MULTILINE)
            assert int(Path(f"/proc/{pid}/coredump_filter").read_text(encoding="utf-8"), 16) == 0


def test_two_daemons_do_not_share_a_state_folder(tmp_path: Path, model: Path) -> None:
    config = config_of(model, more=f'state_dir = "{tmp_path}/state"\n')
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    with daemon(first, config) as running, daemon(second, config) as other:
        (running if running.process.poll() is None else other).until(
            lambda: running.process.poll() is not None or other.process.poll() is not None
        )
        ended = running if running.process.poll() is not None else other
        assert ended.process.wait(10) == 1
        ended.process.wait()
        assert running.process.poll() is None or other.process.poll() is None
    with daemon(first, config) as again:
        again.wait_for("READY=1")
        assert again.stop() == 0
    assert "is in use by another edge; expected a folder of its own" in ended.text


def test_a_stop_is_no_failure_whatever_the_sinks_had(tmp_path: Path, model: Path) -> None:
    """systemd takes 2 for a wrong configuration, and shows a stop with another code than 0 as failed."""
    full = f'[[streams]]\nname = "door"\nsource = "{SCENE}"\nsinks = ["jsonl:/dev/full"]\n'
    with daemon(tmp_path, config_of(model, full)) as running:
        running.wait_for("READY=1")
        running.until(lambda: "results lost so far" in running.text)
        assert running.stop() == 0


def test_a_run_that_came_to_its_end_says_what_was_lost(tmp_path: Path, model: Path) -> None:
    source = SCENE.replace("live=1", "frames=5")
    full = f'[[streams]]\nname = "door"\nsource = "{source}"\nsinks = ["jsonl:/dev/full"]\n'
    with daemon(tmp_path, config_of(model, full)) as running:
        assert running.process.wait(60) == 1
    assert "5 results could not be written" in running.text
