"""The page before several worker processes: the large picture and the sound of a camera that one of them reads."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from camera_rig import TwoProfiles
from daemon_process import SCENE, Daemon, daemon
from e2e.live_show import wait_until
from e2e.test_live_source import DRAWN, SPEED
from e2e.test_page_browser import browser, chromium  # noqa: F401
from e2e.test_sound import WATCH, check_together

pytestmark = pytest.mark.real_server
# a worker loads Python, its libraries and its models; other work may have the processor
BACK_S = 60.0
# the null engine of every worker finds the brightest rectangle
SQUARES = """
import numpy as np
from edge.engines.null import NullEngine
def infer(self, tensor):
    boxes = np.zeros((len(tensor), 1, 4), np.float32)
    for row, image in enumerate(tensor):
        is_bright = image[..., 1] > 160
        columns, rows = np.flatnonzero(is_bright.any(axis=0)), np.flatnonzero(is_bright.any(axis=1))
        if len(columns):
            boxes[row, 0] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    score = (boxes[..., 2] > 0).astype(np.float32)
    return {"boxes": boxes, "scores": score, "labels": np.zeros(score.shape, np.int32)}
NullEngine.infer = infer
"""
INPUT = {"name": "frames", "width": 320, "height": 180, "layout": "nhwc", "dtype": "uint8", "colour": "bgr"}
MANIFEST = {"schema": 1, "name": "null", "task": "detect", "head": "edgenet", "classes": ["x"], "input": INPUT}


@contextmanager
def two_workers(folder: Path, camera: TwoProfiles, more: str = "") -> Iterator[Daemon]:
    """A daemon with two workers, one of which has the camera."""
    (folder / "null.json").write_text(json.dumps(MANIFEST))
    (folder / "null.onnx").touch()
    (folder / "sitecustomize.py").write_text(SQUARES)
    text = (
        f'[workers]\ncount = 2\nspare = false\n[model]\npath = "{folder}/null.onnx"\nengine = "null"\n'
        f'[[streams]]\nname = "cam0"\nsource = "{camera.sub}"\nlive_source = "{camera.main}"\n{more}\n'
        f'[[streams]]\nname = "other"\nsource = "{SCENE}"\n[server]\nenabled = true\nport = 0\nmax_peers = 4\n'
    )
    with daemon(folder, text, env={"PYTHONPATH": str(folder)}) as running:
        running.wait_for("READY=1", BACK_S)
        yield running
        assert running.stop() == 0, running.text
        assert "Traceback" not in running.text, running.text


def stats(running: Daemon) -> Any:
    with running.client() as client:
        return client.get("/api/stats").json()


def is_wide(browser: Any) -> bool:  # noqa: F811
    """Whether the page shows the large picture as video."""
    width = browser.execute_script("return document.querySelector('video.picture')?.videoWidth || 0")
    return bool(width == 640)


def test_the_large_picture_of_a_workers_camera_is_in_step_and_comes_back_with_the_next_worker(
    tmp_path: Path,
    browser: Any,  # noqa: F811
) -> None:
    camera = TwoProfiles("640x360x20", "320x180x10")
    try:
        with two_workers(tmp_path, camera) as running:
            assert stats(running)["streams"]["cam0"].get("live_source", {}).get("state", "waiting") == "waiting"
            browser.get(f"{running.url}/#/camera/cam0")
            wait_until(lambda: is_wide(browser), BACK_S)
            wait_until(lambda: browser.execute_script("return window.edgeloop.view.sync.offset !== null"))
            running.until(lambda: stats(running)["streams"]["cam0"]["live_source"]["shown"] > 150, BACK_S)
            browser.set_script_timeout(60)
            seen = browser.execute_async_script(DRAWN)
            (hit,) = [worker for worker in stats(running)["workers"] if "cam0" in worker["streams"]]
            os.kill(hit["pid"], signal.SIGKILL)
            running.until(lambda: "has taken over" in running.text, BACK_S)
            running.until(lambda: stats(running)["streams"]["cam0"].get("live_source", {}).get("shown", 0) > 20, BACK_S)
            wait_until(lambda: is_wide(browser), BACK_S)
            browser.get("about:blank")
            running.until(lambda: stats(running)["streams"]["cam0"]["live_source"]["state"] == "waiting", BACK_S)
    finally:
        camera.kill()
    shifts = sorted(abs(square - box) / SPEED for _, square, box in seen)
    print(f"\nin the page, by a worker: median {shifts[40] * 1e3:.0f} ms, p95 {shifts[76] * 1e3:.0f} ms")
    assert {width for width, *_ in seen} == {640}
    assert shifts[40] <= 0.08


def is_silent(running: Daemon) -> bool:
    """Whether no piece of sound left for a second."""
    before = stats(running)["webrtc"]["heard"]
    time.sleep(1)
    return bool(stats(running)["webrtc"]["heard"] == before)


def test_the_page_plays_the_sound_of_a_workers_camera_with_its_picture(
    tmp_path: Path,
    browser: Any,  # noqa: F811
) -> None:
    camera = TwoProfiles("320x180x20", "160x90x10", "aac")
    # the small picture has the sound too
    try:
        with two_workers(tmp_path, camera) as running:
            running.until(lambda: bool(stats(running)["streams"]["cam0"]["sound"]), BACK_S)
            browser.get(f"{running.url}/#/camera/cam0")
            shows = "return document.querySelector('.frame-large')?.dataset.picture || ''"
            wait_until(lambda: browser.execute_script(shows) == "webrtc", BACK_S)
            assert stats(running)["webrtc"].get("heard", 0) == 0
            (button,) = browser.find_elements("css selector", "button.sound")
            wait_until(button.is_displayed)
            button.click()
            heard = "return document.querySelector('video.picture').srcObject?.getAudioTracks()[0]?.muted === false"
            wait_until(lambda: browser.execute_script(heard) and browser.execute_script(shows) == "webrtc")
            # the browser brings both together within a few seconds
            time.sleep(5)
            browser.set_script_timeout(30)
            flashes, beeps, is_muted, _ = browser.execute_async_script(WATCH)
            button.click()
            wait_until(lambda: browser.execute_script("return document.querySelector('video.picture').muted") is True)
            # pieces that were on their way still come, for a moment
            wait_until(lambda: is_silent(running), 5)
    finally:
        camera.kill()
    assert is_muted is False
    check_together("by a worker, in the page", flashes, beeps)
