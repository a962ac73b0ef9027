"""A daemon with a night shift: frames are kept, an order begins it, what it made takes over and goes back."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from daemon_process import COMMAND, VIEW_TOKEN, Daemon, daemon, with_tokens

from edge.config.night import NightSettings
from edge.models.shipped import FOLDER
from edge.night.shift import Chain, Job

SCENE = "synthetic://street?seed=3&size=320x180&objects=10&fps=10&live=1"
NIGHT = "2026-11-30T020000"
# from midnight to midnight
ALWAYS = "00:00-00:00"


def closed_window() -> str:
    """One that is far from now."""
    begin = datetime.now() + timedelta(hours=6)
    return f"{begin:%H:%M}-{begin + timedelta(hours=1):%H:%M}"


def written(folder: Path, window: str) -> str:
    for suffix in ("onnx", "json"):
        shutil.copy(FOLDER / f"street-nano-int8.{suffix}", folder / f"first.{suffix}")
    return (
        f'state_dir = "{folder}/state"\n[model]\npath = "{folder}/first.onnx"\nengine = "ort"\nthreads = 1\n'
        f'[[streams]]\nname = "door"\nsource = "{SCENE}"\nmax_fps = 5\n'
        f"[server]\nenabled = true\nport = 0\n{with_tokens(folder, '')}\n[events]\n"
        f'[night]\nteachers = ["{FOLDER}/street-nano.onnx"]\nsealed = ["coco:{folder}/sealed.json"]\n'
        f'window = "{window}"\n'
        "random_per_hour = 3\n[swap]\nshadow_frames = 2\nprobation_s = 0.2\nmax_slowdown = 1000\nmin_agreement = 0\n"
    )


def edge(folder: Path, *arguments: str, code: int = 0) -> str:
    done = subprocess.run(
        [*COMMAND, "--quiet", "night", *arguments], capture_output=True, text=True, check=False, timeout=100, cwd=folder
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def until(ask: Callable[[], Any], timeout_s: float = 120) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := ask()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return found


def night_of(running: Daemon) -> dict[str, Any]:
    with running.client(VIEW_TOKEN) as client:
        answer = client.get("/api/night")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())


def test_frames_are_kept_and_an_order_begins_a_shift_that_says_what_it_lacks(tmp_path: Path) -> None:
    with daemon(tmp_path, written(tmp_path, closed_window())) as running:
        running.wait_for("READY=1", 60)
        until(lambda: night_of(running)["frames"].get("door", 0) >= 3)
        kept = list((tmp_path / "state" / "night" / "frames" / "door").glob("*.jpg"))
        assert {stat.S_IMODE(path.stat().st_mode) for path in kept} == {0o600}
        until(lambda: night_of(running)["phase"] == "waiting")
        edge(tmp_path, "run", "--now")
        report = until(lambda: night_of(running)["report"])
        assert report["outcome"] == "dropped"
        assert "frames are kept, 60 are needed (night.min_frames)" in report["reason"]
        with running.client(VIEW_TOKEN) as client:
            shown = client.get("/api/night/page")
            assert (shown.status_code, shown.headers["content-type"]) == (200, "text/html; charset=utf-8")
            assert "60 are needed" in shown.text
            events = until(lambda: [one for one in client.get("/api/review").json()["events"] if "night" in str(one)])
            assert "dropped" in json.dumps(events)
        status = edge(tmp_path, "status")
        assert "last: " in status
        assert "dropped" in status
        assert "frames of door are deleted" in edge(tmp_path, "forget", "door")
        assert running.stop() == 0


def made_ready(folder: Path) -> Path:
    """A shift that has ended with a better model, before anything of it took over."""
    night, candidate = folder / "state" / "night", folder / "state" / "night" / "models" / "model-night.onnx"
    settings = NightSettings(teachers=(Path("teacher.onnx"),), sealed=("coco:sealed.json",))
    Job(NIGHT, "model", folder / "first.onnx", folder / "first.onnx", settings).write(night)
    candidate.parent.mkdir()
    for suffix in ("onnx", "json"):
        shutil.copy(FOLDER / f"street-nano-int8.{suffix}", candidate.with_suffix(f".{suffix}"))
    facts = {"night": NIGHT, "outcome": "ready", "reason": "better", "candidate": str(candidate), "cpu_s": 1.0}
    more = {"checkpoint": "", "frames": {"cameras": {"door": 3}, "reasons": {"random": 3}}, "labels": {}, "judged": {}}
    (night / "reports").mkdir()
    (night / "reports" / f"{NIGHT}.json").write_text(json.dumps(facts | more))
    return candidate


def model_of(running: Daemon) -> str:
    with running.client() as client:
        return str(client.get("/api/models").json()["model"]["file"])


def test_a_better_model_takes_over_outlives_a_restart_and_is_rolled_back(tmp_path: Path) -> None:
    text = written(tmp_path, ALWAYS)
    candidate = made_ready(tmp_path)
    with daemon(tmp_path, text) as running:
        running.wait_for("READY=1", 60)
        until(lambda: night_of(running)["report"]["outcome"] == "kept")
        assert model_of(running) == candidate.name
        assert Chain.read(tmp_path / "state" / "night", tmp_path / "first.onnx").links[0]["model"] == str(candidate)
        assert not (tmp_path / "state" / "night" / "work").exists()
        assert running.stop() == 0
    # the window is over: nothing new begins
    with daemon(tmp_path, text.replace(ALWAYS, closed_window())) as running:
        running.wait_for("READY=1", 60)
        assert model_of(running) == candidate.name
        edge(tmp_path, "roll-back")
        until(lambda: night_of(running)["report"]["outcome"] == "rolled back")
        assert model_of(running) == "first.onnx"
        edge(tmp_path, "roll-back")
        until(lambda: "nothing to roll back" in night_of(running)["reason"])
        assert running.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["stop"], "edge night stop is for a running daemon"),
        (["run"], "for a shift now: edge night run --now"),
        (["forget", "../door"], "no frames are kept of a camera called '../door'"),
        (["dance"], "expected edge night run --now, status"),
    ],
)
def test_wrong_orders_are_one_sentence(tmp_path: Path, arguments: list[str], sentence: str) -> None:
    (tmp_path / "edge.toml").write_text(written(tmp_path, ALWAYS))
    assert sentence in " ".join(edge(tmp_path, *arguments, code=2).split())
