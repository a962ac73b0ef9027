"""A daemon with clip tests: a reload, a swap and an upgrade that lose something never take over."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from daemon_process import COMMAND, Daemon, daemon, with_tokens
from onnx import helper, numpy_helper

from edge.models.shipped import FOLDER

SCENE = "synthetic://street?seed=3&size=320x180&objects=10&fps=10"
LINE = '[[streams.analytics.lines]]\nname = "mid"\npoints_share = [[{x}, 0.2], [{x}, 1.0]]\n'


def written(folder: Path, x: float = 0.5, more: str = "") -> str:
    server = with_tokens(folder, "can_reload = true\ncan_swap = true\n")
    return (
        f'state_dir = "{folder}/state"\n[model]\npath = "{folder}/new.onnx"\nengine = "ort"\nthreads = 1\n'
        f'[[streams]]\nname = "door"\nsource = "{SCENE}&live=1"\nmax_fps = 5\n{LINE.format(x=x)}'
        f'[server]\nenabled = true\nport = 0\n{server}\n[tests]\nfolder = "{folder}/tests"\n{more}'
        "[swap]\nshadow_frames = 2\nprobation_s = 0.2\nmax_slowdown = 1000\nmin_agreement = 0\n"
    )


def edge(folder: Path, *arguments: str, code: int = 0) -> str:
    done = subprocess.run(
        [*COMMAND, "--quiet", *arguments], capture_output=True, text=True, check=False, timeout=100, cwd=folder
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, a worse one, a configuration, and a test made from a capture by the commands."""
    folder = tmp_path_factory.mktemp("site")
    for suffix in ("onnx", "json"):
        shutil.copy(FOLDER / f"street-nano-int8.{suffix}", folder / f"new.{suffix}")
        shutil.copy(FOLDER / f"street-nano-int8.{suffix}", folder / f"same.{suffix}")
    worse(folder)
    # a recording is made for the test; what is watched is the same
    (folder / "edge.toml").write_text(written(folder).replace("&live=1", "&frames=30").replace("max_fps = 5\n", ""))
    edge(folder, "capture", "raw", "--config", "edge.toml")
    made = edge(folder, "test", "add", "raw", "--config", "edge.toml", "--name", "noon")
    assert "line_crossed mid" in made, made
    return folder


def worse(folder: Path) -> None:
    model = onnx.load(FOLDER / "street-nano-int8.onnx")
    for node in model.graph.node:
        for index, name in enumerate(node.output):
            if name == "scores":
                node.output[index] = "before"
    model.graph.initializer.append(numpy_helper.from_array(np.array(0.5, np.float32), "half"))
    model.graph.node.append(helper.make_node("Mul", ["before", "half"], ["scores"]))
    del model.metadata_props[:]
    onnx.save(model, folder / "worse.onnx")
    facts = json.loads((FOLDER / "street-nano-int8.json").read_text())
    (folder / "worse.json").write_text(json.dumps({**facts, "sha256": ""}))


def until(ask: Callable[[], Any], timeout_s: float = 90) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := ask()):
        assert time.monotonic() < deadline
        time.sleep(0.3)
    return found


def swapped(running: Daemon, name: str) -> dict[str, Any]:
    with running.client() as client:
        assert client.post("/api/models/model/swap", json={"path": name}).status_code < 300
        report: dict[str, Any] = until(lambda: client.get("/api/models/model/swap").json()["report"])
    return report


def test_nothing_takes_over_that_loses_what_a_clip_expects(site: Path) -> None:
    with daemon(site, written(site)) as running:
        running.wait_for("READY=1", 90)
        assert json.loads((site / "state" / "tests-passed.json").read_text())["version"]
        (site / "edge.toml").write_text(written(site, x=0.9))
        with running.client() as client:
            assert client.post("/api/reload").status_code < 300
            refused = until(lambda: client.get("/api/stats").json()["config"].get("last_reload", {}).get("refused"))
            assert "1 of 1 clip tests lost something: noon: lost: line_crossed mid" in refused
            assert "data:image/jpeg" in (site / "state" / "tests.html").read_text()
        report = swapped(running, "worse.onnx")
        assert (report["outcome"], report["phase"]) == ("refused", "tests")
        assert "clip tests lost something" in report["reason"]
        report = swapped(running, "same.onnx")
        assert report["outcome"] == "kept", report
        assert running.stop() == 0


def test_an_upgrade_that_loses_something_says_so_or_does_not_start(site: Path, tmp_path: Path) -> None:
    """Another version is this one with a bug, and a note that the one before had another number."""
    bug = (
        "import edge.pipeline.analysis as a\n"
        "update = a.StreamAnalysis.update\n"
        "def broken(self, *given):\n"
        "    import dataclasses\n"
        "    return dataclasses.replace(update(self, *given), events=())\n"
        "a.StreamAnalysis.update = broken\n"
    )
    lines = "".join(f"    {line}\n" for line in bug.splitlines())
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nif 'edge.cliptests.child' in sys.argv:\n{lines}")
    passed = site / "state" / "tests-passed.json"
    before = {**json.loads(passed.read_text()), "version": "0.0.9"} if passed.exists() else {"version": "0.0.9"}
    passed.parent.mkdir(exist_ok=True)
    passed.write_text(json.dumps(before))
    refusing = written(site, more='on_start = "refuse"\n')
    with daemon(site, refusing, env={"PYTHONPATH": str(tmp_path)}) as running:
        assert running.process.wait(90) == 1
        assert "READY=1" not in "".join(running.messages)
    assert "clip tests lost something" in running.text
    assert "edge test accept" in running.text
    with daemon(site, written(site), env={"PYTHONPATH": str(tmp_path)}) as running:
        running.wait_for("READY=1", 90)
        assert "starts although 1 of 1 clip tests lost something" in running.text
        with running.client() as client:
            assert "clip tests lost something" in client.get("/api/stats").json()["config"]["lost_at_start"]
        running.stop()
    with daemon(site, written(site)) as running:
        running.wait_for("READY=1", 90)
        with running.client() as client:
            assert client.get("/api/stats").json()["config"]["lost_at_start"] == ""
        running.stop()
    assert json.loads(passed.read_text())["version"] != "0.0.9"


def test_the_command_runs_the_folder_for_ci(site: Path) -> None:
    (site / "edge.toml").write_text(written(site))
    assert "ok     noon" in edge(site, "test", "--junit", "out.xml")
    assert 'failures="0"' in (site / "out.xml").read_text()
    told = edge(site, "test", "--model", "worse.onnx", "--html", "out.html", code=1)
    assert "FAILED noon" in told
    assert "1 of 1 tests lost something; if that is meant: edge test accept" in told
    assert "data:image/jpeg" in (site / "out.html").read_text()
