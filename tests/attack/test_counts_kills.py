"""What was counted outlives kills: the file is never older than the time between two saves."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from edge.daemon.count_saver import SAVE_EVERY_S, CountSaver

sys.path.insert(0, str(Path(__file__).parents[1] / "servers"))
from counts_kills import SLACK_S, Counting

KILLS = Path(__file__).parents[1] / "servers" / "counts_kills.py"
# guarantee 12
PROMISED_S = 5.0


@pytest.mark.parametrize(("rounds", "every_s"), [(10, 0.3), pytest.param(200, SAVE_EVERY_S, marks=pytest.mark.soak)])
@pytest.mark.timeout(1800)
def test_kills_cost_the_counts_of_a_few_seconds(rounds: int, every_s: float, tmp_path: Path) -> None:
    command = [sys.executable, str(KILLS), str(rounds), "7", str(tmp_path), str(every_s)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=KILLS.parents[2])
    assert done.returncode == 0, done.stderr
    found = re.fullmatch(rf"{rounds} kills, (\d+) counts, at most (\S+) s old\n", done.stdout)
    assert found, done.stdout
    assert int(found[1]) > rounds
    assert float(found[2]) <= every_s + SLACK_S <= PROMISED_S


def test_a_save_waits_for_the_disk_and_no_frame_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counting = Counting(tmp_path / "door.analytics.json", 1)
    counting.walk()
    is_writing, may_go_on = threading.Event(), threading.Event()

    def slow(path: Path, data: str) -> None:
        is_writing.set()
        assert may_go_on.wait(20)

    monkeypatch.setattr("edge.pipeline.analysis.write_atomic", slow)
    saving = threading.Thread(target=counting.analysis.save)
    saving.start()
    assert is_writing.wait(20)
    for _ in range(20):
        counting.walk()
    assert counting.total == 21
    assert saving.is_alive()
    may_go_on.set()
    saving.join(20)


def test_a_file_that_holds_the_counts_already_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "door.analytics.json"
    counting = Counting(path, 1)
    counting.walk()
    counting.analysis.save(only_changed=True)
    written = path.stat().st_mtime_ns
    counting.see()
    counting.analysis.save(only_changed=True)
    assert path.stat().st_mtime_ns == written
    counting.walk()
    counting.analysis.save(only_changed=True)
    assert path.stat().st_mtime_ns > written


def test_the_saver_goes_on_when_a_stream_has_gone(tmp_path: Path) -> None:
    first, second = Counting(tmp_path / "a.json", 1), Counting(tmp_path / "b.json", 1)
    followers, stopping = [first.analysis, second.analysis], threading.Event()
    saver = threading.Thread(target=CountSaver(lambda: list(followers), 0.01).run, args=(stopping,))
    saver.start()
    del followers[0]
    second.walk()
    while not (tmp_path / "b.json").exists():
        assert saver.is_alive()
    stopping.set()
    saver.join(20)
    assert not saver.is_alive()
