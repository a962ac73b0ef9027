"""The watch log outlives kills: what is missing is bounded, what is there is whole, and the kill is told."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

import pytest
from daemon_process import COMMAND, SCENE, config_of, daemon
from tiny_models import tiny_model

from edge.watchlog.certificate import check_certificate
from edge.watchlog.keys import KEY_NAME

KILLS = Path(__file__).parents[1] / "servers" / "watch_log_kills.py"


@pytest.mark.parametrize("rounds", [4, pytest.param(50, marks=pytest.mark.soak)])
@pytest.mark.timeout(900)
def test_kills_cost_a_few_seconds_of_the_watch_log(rounds: int, tmp_path: Path) -> None:
    command = [sys.executable, str(KILLS), str(rounds), "5", str(tmp_path), "0.5"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=KILLS.parents[2])
    assert done.returncode == 0, done.stderr
    assert re.match(rf"{rounds} kills, \d+ seconds told as analysed", done.stdout), done.stdout


def test_a_daemon_proves_what_it_saw_and_tells_its_kill_and_its_standstill(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "tiny.onnx")
    state = tmp_path / "state"
    stream = f'[[streams]]\nname = "door"\nsource = "{SCENE}"\nmax_age_ms = 200\n'
    config = config_of(model, streams=stream, more=f'state_dir = "{state}"\n[watch_log]\nflush_s = 0.5\n')
    started = datetime.now(timezone.utc)
    with daemon(tmp_path, config) as first:
        first.wait_for("READY=1")
        time.sleep(6)
        first.process.kill()
    with daemon(tmp_path, config) as second:
        second.wait_for("READY=1")
        time.sleep(2)
        second.process.send_signal(signal.SIGSTOP)
        time.sleep(4)
        second.process.send_signal(signal.SIGCONT)
        time.sleep(4)
        assert second.stop() == 0
    assert (state / KEY_NAME).stat().st_mode & 0o777 == 0o600
    certificate = tmp_path / "door.json"
    window = [moment.strftime("%Y-%m-%dT%H:%M:%SZ") for moment in (started, datetime.now(timezone.utc))]
    made = edge("certify", "door", *window, "--state", str(state), "-o", str(certificate))
    assert re.search(r"door, \S+ to \S+: analysed \d\d\.\d %, largest gap \d+\.\d s, no crossings", made), made
    assert "the program was killed;" in made
    assert " s halted" in made
    # on another machine: the file and the fingerprint are all there is
    proved = check_certificate(certificate)["statement"]
    assert proved["analysed_s"] >= 3
    assert proved["states"]["halted"] >= 2
    print_of = re.search(r"signed by (.*)", made)
    assert print_of
    assert edge("certify", "--check", str(certificate), "--key", print_of[1]) == made
    certificate.write_text(certificate.read_text().replace('"analysed_s": ', '"analysed_s": 1'))
    assert "was changed after it was signed" in edge("certify", "--check", str(certificate), code=1)


def edge(*arguments: str, code: int = 0) -> str:
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == code, done.stderr
    return done.stderr if code else done.stdout
