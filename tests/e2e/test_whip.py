"""Pushed over WHIP to real receivers, aiortc in a process of its own and a browser: the painted numbers arrive."""

from __future__ import annotations

import importlib.util
import itertools
import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from e2e.live_show import NUMBER_BITS, SQUARE_PX, Camera, wait_until
from e2e.test_page_browser import browser, chromium  # noqa: F401

from edge.server.board import LiveBoard
from edge.types import UInt8

pytestmark = [
    pytest.mark.real_server,
    pytest.mark.skipif(importlib.util.find_spec("aiortc") is None, reason="needs aiortc; run: pip install aiortc"),
]
SERVER = Path(__file__).parents[1] / "servers" / "whip_server.py"
TOKEN = "canary-whip-token"
# a WHIP receiver is a page that answers the offer and shows the video
ANSWER = """
const [offer, done] = arguments;
(async () => {
  const connection = window.connection = new RTCPeerConnection();
  const video = window.video = document.createElement("video");
  video.muted = video.autoplay = true;
  document.body.append(video);
  connection.ontrack = ({track}) => { video.srcObject = new MediaStream([track]); };
  await connection.setRemoteDescription({type: "offer", sdp: offer});
  await connection.setLocalDescription();
  while (connection.iceGatheringState !== "complete") await new Promise((resolve) => { setTimeout(resolve, 20); });
  done(connection.localDescription.sdp);
})();
"""
READ_NUMBER = """
const [squarePx, numBits] = arguments, {video} = window;
if (!video?.videoWidth) return -1;
const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight), context = canvas.getContext("2d");
context.drawImage(video, 0, 0);
const data = context.getImageData(0, video.videoHeight - squarePx / 2, squarePx * numBits, 1).data;
let number = 0;
for (let bit = 0; bit < numBits; bit++) number = number * 2 + (data[4 * (bit * squarePx + squarePx / 2)] > 127 ? 1 : 0);
return number;
"""


def whip_sink(address: str, **patience: float) -> Any:
    from edge.sinks.whip import WhipPatience, WhipSink, endpoint_of

    quick = {"backoff_base_s": 0.1, "backoff_cap_s": 0.3, "answer_s": 20.0, "connect_s": 20.0, **patience}
    return WhipSink(endpoint_of(address), fps=25, patience=WhipPatience(**quick))


def whip_server() -> Any:
    spec = importlib.util.spec_from_file_location("whip_server", SERVER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def receiver(port: int = 0, token: str = "") -> Iterator[tuple[int, queue.Queue[dict[str, Any]], Any]]:
    """The port, the lines that it writes, and its process."""
    command = [sys.executable, str(SERVER), str(port), *([token] if token else [])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    begin = json.loads(process.stdout.readline())
    lines: queue.Queue[dict[str, Any]] = queue.Queue()
    reader = threading.Thread(target=lambda: [lines.put(json.loads(line)) for line in process.stdout or ()])
    reader.start()
    try:
        yield begin["port"], lines, process
    finally:
        process.kill()
        process.wait()
        reader.join()


@contextmanager
def playing(sink: Any, fps: float = 25.0) -> Iterator[Camera]:
    """A numbered camera that writes to the sink as the output worker would."""
    camera = Camera(LiveBoard(), "door")
    stop = threading.Event()

    def drawn(image: UInt8) -> UInt8:
        camera.num_drawn += 1
        return image

    def run() -> None:
        due_s = time.monotonic()
        while not stop.is_set():
            result = camera.result()
            camera.seq += 1
            sink.write(result, lambda image=result.frame.image: drawn(image))
            due_s += 1 / fps
            stop.wait(max(due_s - time.monotonic(), 0))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield camera
    finally:
        stop.set()
        thread.join()


def take(lines: queue.Queue[dict[str, Any]], count: int) -> list[int]:
    return [lines.get(timeout=60)["number"] for _ in range(count)]


def test_a_receiver_gets_the_pictures_with_its_token_and_is_told_of_the_end() -> None:
    with receiver(token=TOKEN) as (port, lines, _):
        sink = whip_sink(f"http://{TOKEN}@127.0.0.1:{port}/whip/door")
        with closing(sink), playing(sink):
            numbers = take(lines, 60)
    assert all(later > earlier for earlier, later in itertools.pairwise(numbers))
    assert len(numbers) >= 0.6 * (numbers[-1] - numbers[0] + 1)
    assert TOKEN not in sink.name
    assert sink.error == ""


def test_a_receiver_that_is_killed_is_found_again_and_nothing_is_drawn_meanwhile() -> None:
    with receiver() as (port, lines, process):
        sink = whip_sink(f"http://127.0.0.1:{port}/whip/door", silence_s=4.0)
        with closing(sink), playing(sink) as camera:
            # long enough for it to have reported; on a swamped machine it may not have, and ICE notices
            take(lines, 75)
            process.kill()
            wait_until(lambda: sink.error != "" and sink._feed is None, timeout_s=90)
            assert sink.error in ("the receiver has reported nothing for 4 s", "the receiver has closed the connection")
            num_drawn, seq = camera.num_drawn, camera.seq
            wait_until(lambda: camera.seq > seq + 10)
            assert camera.num_drawn == num_drawn
            with receiver(port) as (_, again, _):
                take(again, 10)
                wait_until(lambda: sink.error == "")


def test_a_wrong_token_is_said_without_it_and_costs_no_pictures() -> None:
    with receiver(token=TOKEN) as (port, _, _):
        sink = whip_sink(f"http://wrong-token-here@127.0.0.1:{port}/whip/door")
        with closing(sink), playing(sink) as camera:
            wait_until(lambda: sink.counters["failures"] >= 3)
            assert camera.num_drawn == 0
    assert sink.error == "the endpoint answered with status 401; expected 201"


def test_a_browser_receives_what_is_pushed_and_the_session_is_deleted(browser: Any) -> None:  # noqa: F811
    offers: queue.Queue[str] = queue.Queue()
    answers: queue.Queue[str] = queue.Queue()

    def relay(offer: str) -> str:
        offers.put(offer)
        return answers.get(timeout=60)

    server = whip_server().WhipServer(relay)
    browser.get("about:blank")
    sink = whip_sink(f"http://127.0.0.1:{server.port}/whip/door", answer_s=60.0)
    try:
        with closing(sink), playing(sink):
            answers.put(browser.execute_async_script(ANSWER, offers.get(timeout=60)))
            numbers: list[int] = []

            def has_more() -> bool:
                numbers.append(browser.execute_script(READ_NUMBER, SQUARE_PX, NUMBER_BITS))
                return len({number for number in numbers if number > 0}) >= 20

            wait_until(has_more)
    finally:
        server.close()
    assert numbers == sorted(numbers)
    assert server.ended == ["/session/1"]
