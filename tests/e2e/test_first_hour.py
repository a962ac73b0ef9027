"""From nothing to two cameras, a line drawn on the page, and its events at a broker: no file is edited by hand."""

# the browser is a fixture of another file
# ruff: noqa: F811

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import av
import mosquitto
import pytest
from camera_rig import RtspServer, free_port
from daemon_process import COMMAND
from e2e.live_show import wait_until
from e2e.test_page_browser import browser, chromium, text_of  # noqa: F401
from e2e.test_page_drawing import draw
from e2e.test_page_saving import give_token, press

import edge
from edge.models.shipped import FOLDER

pytestmark = pytest.mark.real_server
SHOWN = "return document.querySelector('.picture')?.dataset.shown"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half a minute of people who walk along a street, as H.264."""
    path = tmp_path_factory.mktemp("clip") / "street.mp4"
    with (
        av.open(str(path), "w") as container,
        edge.open_source("synthetic://street?seed=7&size=640x384&fps=10&frames=300&objects=6") as source,
    ):
        stream = container.add_stream("libx264", rate=10, options={"preset": "ultrafast", "g": "10"})
        stream.width, stream.height, stream.pix_fmt = 640, 384, "yuv420p"
        for frame in source:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame.image, format="bgr24")))
        container.mux(stream.encode())
    return path


@pytest.fixture
def cameras(clip: Path) -> Iterator[list[RtspServer]]:
    with ExitStack() as stack:
        servers = []
        for _ in range(2):
            servers.append(RtspServer(clip))
            stack.callback(servers[-1].kill)
        yield servers


def test_two_cameras_a_drawn_line_and_events_without_editing_a_file(
    browser: Any, cameras: list[RtspServer], tmp_path: Path
) -> None:
    port = free_port()
    broker = mosquitto.Broker(tmp_path)
    broker.start()
    with ExitStack() as stack:
        stack.callback(broker.end)
        listener = mosquitto.Listener(broker, "edge/+/events")
        stack.callback(listener.close)
        sources = [part for server in cameras for part in ("--source", server.url)]
        model = str(FOLDER / "street-nano-int8.onnx")
        init = [*COMMAND, "init", "edge.toml", *sources, "--model", model, "--mqtt", f"127.0.0.1:{broker.port}"]
        subprocess.run(init, cwd=tmp_path, check=True, timeout=60)
        # another port than the one that may be taken on a machine of tests
        env = {**os.environ, "EDGE__SERVER__PORT": str(port)}
        done = subprocess.run(
            [*COMMAND, "check", "edge.toml"],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        process = subprocess.Popen(
            [*COMMAND, "run", "edge.toml"],
            cwd=tmp_path,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        stack.callback(process.wait, 30)
        stack.callback(process.terminate)
        assert process.stdout is not None
        address = next(found[1] for line in process.stdout if (found := re.search(r"live page: (http://\S+)", line)))
        threading.Thread(target=process.stdout.read, daemon=True).start()
        token = (tmp_path / "token").read_text().strip()
        # the page asks for the token; a wrong one is told
        browser.get(address)
        browser.find_element("css selector", "input[type=password]").send_keys("not-the-token\n")
        wait_until(lambda: "This is not the token" in text_of(browser, "main"))
        browser.find_element("css selector", "input[type=password]").send_keys(token + "\n")
        wait_until(lambda: text_of(browser, ".summary") == "2 of 2 live")
        assert token not in browser.current_url
        browser.find_element("css selector", ".card").click()
        wait_until(lambda: browser.execute_script(SHOWN) is not None)
        name = text_of(browser, "h1")
        draw(browser, "line", (0.5, 0.02), (0.5, 0.98))
        press(browser, "Save")
        give_token(browser, token)
        wait_until(lambda: "Saved" in text_of(browser, ".draw [role=status]"))
        listener.wait_for(lambda got: any("line-1" in payload for _, payload, _ in got), 60)
        topic, payload, _ = next(one for one in listener.got if "line-1" in one[1])
        assert topic == f"edge/{name}/events"
        assert json.loads(payload)["kind"] == "line_crossed"
        wait_until(lambda: "line-1" in text_of(browser, ".events"))
        browser.execute_script("sessionStorage.clear(); localStorage.clear()")
        browser.delete_all_cookies()
