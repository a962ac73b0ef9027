"""The camera's page over WebRTC in a real browser: the video plays, falls back to JPEG, and comes back."""

from __future__ import annotations

import importlib.util
import time
from typing import Any

import httpx
import pytest
from e2e.live_show import NUMBER_BITS, SQUARE_PX, Show, check_ages, show, wait_until
from e2e.test_page_browser import STEPS, browser, chromium, picture, wait_for_number  # noqa: F401

from edge.types import Event

pytestmark = [
    pytest.mark.real_server,
    pytest.mark.skipif(importlib.util.find_spec("aiortc") is None, reason="needs aiortc; run: pip install aiortc"),
]
# the newest number on screen, and when the browser took it; both clocks are this machine's
READ_NUMBERS = """
const [squarePx, numBits, wanted, done] = arguments;
const video = document.querySelector("video.picture"), seen = [];
const canvas = new OffscreenCanvas(squarePx * numBits, squarePx);
const context = canvas.getContext("2d", {willReadFrequently: true});
const onFrame = () => {
  context.drawImage(video, 0, video.videoHeight - squarePx, squarePx * numBits, squarePx,
    0, 0, squarePx * numBits, squarePx);
  const data = context.getImageData(0, squarePx / 2, squarePx * numBits, 1).data;
  let number = 0;
  for (let bit = 0; bit < numBits; bit++)
    number = number * 2 + (data[4 * (bit * squarePx + squarePx / 2)] > 127 ? 1 : 0);
  seen.push([number, Date.now()]);
  if (seen.length === wanted) done(seen); else video.requestVideoFrameCallback(onFrame);
};
video.requestVideoFrameCallback(onFrame);
"""


def shown_as(browser: Any) -> str:  # noqa: F811
    script = "return document.querySelector('.frame-large')?.dataset.picture || ''"
    return str(browser.execute_script(script))


def webrtc_of(running: Show) -> dict[str, int]:
    found: dict[str, int] = httpx.get(f"{running.url}/api/stats").json()["webrtc"]
    return found


def test_the_camera_page_plays_video_and_asks_for_no_jpeg(browser: Any) -> None:  # noqa: F811
    with show("door") as running, running.play():
        browser.get(f"{running.url}/#/camera/door")
        wait_until(lambda: shown_as(browser) == "webrtc")
        before = wait_for_number(browser, 0)["number"]
        wait_for_number(browser, before + 5)
        wait_until(lambda: running.board.counts()["door"]["viewers"] == 1)
        num_jpegs = running.board.counts()["door"]["encoded"]
        wait_for_number(browser, before + 30)
        assert running.board.counts()["door"]["encoded"] == num_jpegs
        assert webrtc_of(running)["peers"] == 1
        browser.get(f"{running.url}/#/")
        wait_until(lambda: webrtc_of(running)["peers"] == 0)


def test_from_the_camera_to_the_browser_over_webrtc(browser: Any) -> None:  # noqa: F811
    with show("door", size=(1280, 720), is_textured=True) as running:
        taken_ms: dict[int, float] = {}
        camera = running.cameras[0]
        publish = camera.publish

        def publish_timed(*events: Event) -> None:
            taken_ms[camera.seq] = time.time() * 1000
            publish(*events)

        camera.publish = publish_timed  # type: ignore[method-assign]
        with running.play():
            browser.get(f"{running.url}/#/camera/door")
            wait_until(lambda: shown_as(browser) == "webrtc")
            wait_for_number(browser, 100)
            browser.set_script_timeout(90)
            seen = browser.execute_async_script(READ_NUMBERS, SQUARE_PX, NUMBER_BITS, 100)
    ages_ms = [now_ms - taken_ms[number] for number, now_ms in seen]
    check_ages("over WebRTC to the browser", ages_ms, 150)


def test_what_is_drawn_belongs_to_the_picture_of_the_video(browser: Any) -> None:  # noqa: F811
    with show("door") as running, running.play():
        browser.get(f"{running.url}/#/camera/door")
        wait_until(lambda: shown_as(browser) == "webrtc")
        wait_until(lambda: browser.execute_script("return window.edgeloop.view.sync.offset !== null"))
        wait_for_number(browser, 30)
        steps = browser.execute_async_script(STEPS.replace("WIDE", "640"))
    apart = [abs(number - seq) for number, seq in steps]
    # on a busy machine a result may be later than its picture
    assert len({number for number, _ in steps}) > 5
    assert max(apart) <= 1 and sum(one == 0 for one in apart) > 0.7 * len(apart)
    assert running.cameras[0].num_drawn == 0


def test_the_page_falls_back_where_webrtc_is_refused(browser: Any) -> None:  # noqa: F811
    with show("door", max_peers=0) as running, running.play():
        browser.get(f"{running.url}/#/camera/door")
        first = wait_for_number(browser, 0)["number"]
        wait_for_number(browser, first + 20)
        assert shown_as(browser) == ""
        assert httpx.get(f"{running.url}/api/streams").json()["webrtc"] is False


def test_the_page_falls_back_where_no_video_arrives(browser: Any) -> None:  # noqa: F811
    no_udp = (
        "RTCPeerConnection.prototype.setRemoteDescription = async function () {"
        "  window.numCalls = (window.numCalls || 0) + 1; };"
    )
    hook = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": no_udp})
    try:
        with show("door") as running, running.play():
            browser.get(f"{running.url}/#/camera/door")
            first = wait_for_number(browser, 0)["number"]
            # given up and tried again while the JPEG pictures go on
            wait_until(lambda: browser.execute_script("return window.numCalls || 0") >= 2)
            wait_for_number(browser, first + 50)
            assert shown_as(browser) != "webrtc"
    finally:
        browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", {"identifier": hook["identifier"]})


def test_video_comes_back_after_a_restart(browser: Any) -> None:  # noqa: F811
    with show("door") as running:
        port = running.port
        with running.play():
            browser.get(f"{running.url}/#/camera/door")
            wait_until(lambda: shown_as(browser) == "webrtc")
    with show("door", port=port) as again, again.play():
        wait_until(lambda: again.board.counts()["door"]["encoded"] > 0)
        wait_until(lambda: webrtc_of(again)["peers"] == 1)
        wait_until(lambda: shown_as(browser) == "webrtc")
        before = picture(browser)["number"]
        wait_until(lambda: picture(browser)["number"] > before)


def test_a_hidden_page_ends_its_video(browser: Any) -> None:  # noqa: F811
    hide = "Object.defineProperty(document, 'hidden', {value: arguments[0], configurable: true});"
    with show("door") as running, running.play():
        browser.get(f"{running.url}/#/camera/door")
        wait_until(lambda: shown_as(browser) == "webrtc")
        browser.execute_script(hide + "document.dispatchEvent(new Event('visibilitychange'))", True)
        wait_until(lambda: running.board.counts()["door"]["viewers"] == 0)
        num_drawn = running.cameras[0].num_drawn
        before = running.cameras[0].seq
        wait_until(lambda: running.cameras[0].seq > before + 10)
        assert running.cameras[0].num_drawn == num_drawn
        browser.execute_script(hide + "document.dispatchEvent(new Event('visibilitychange'))", False)
        wait_until(lambda: shown_as(browser) == "webrtc")
