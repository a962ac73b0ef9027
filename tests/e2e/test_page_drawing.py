"""What is drawn on the live page with the mouse: its text is what the configuration takes, and means the same place."""

# the browser is a fixture of another file
# ruff: noqa: F811

from __future__ import annotations

import sys
from typing import Any

import cv2
import numpy as np
import pytest
from e2e.live_show import show, wait_until
from e2e.test_page_browser import browser, chromium, text_of, wait_for_number  # noqa: F401

from edge.config.load import parse_config
from edge.config.schema import StreamSettings
from edge.pictures.planes import Planes
from edge.sources.picture import PicturePreparer, PictureSettings

pytestmark = pytest.mark.real_server


def click_on_picture(browser: Any, *shares: tuple[float, float]) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    box = browser.execute_script(
        "const r = document.querySelector('.frame-large').getBoundingClientRect(); return [r.x, r.y, r.width, r.height]"
    )
    for x, y in shares:
        chain = ActionChains(browser)
        chain.w3c_actions.pointer_action.move_to_location(round(box[0] + x * box[2]), round(box[1] + y * box[3]))
        chain.w3c_actions.pointer_action.click()
        chain.perform()


def test_lines_and_zones_are_drawn_with_the_mouse_and_become_config(browser: Any) -> None:
    with show("door") as running, running.play():
        browser.get(f"{running.url}/#/camera/door")
        wait_for_number(browser, 0)
        draw(browser, "line", (0.25, 0.5), (0.75, 0.5))
        draw(browser, "zone", (0.5, 0.25), (0.75, 0.25), (0.75, 0.75), (0.5, 0.25))
        analytics = loaded(config_text(browser)).analytics
    line, zone = analytics.lines[0].points_share, analytics.zones[0].points_share
    assert line is not None and zone is not None
    assert np.allclose(line, [[0.25, 0.5], [0.75, 0.5]], atol=0.01)
    assert np.allclose(zone, [[0.5, 0.25], [0.75, 0.25], [0.75, 0.75]], atol=0.01)


def draw(browser: Any, kind: str, *shares: tuple[float, float]) -> None:
    browser.execute_script("window.scrollTo(0, 0)")
    browser.find_element("css selector", f"[data-kind={kind}]").click()
    browser.execute_script("window.scrollTo(0, 0)")
    click_on_picture(browser, *shares)


def config_text(browser: Any) -> str:
    return str(browser.execute_script("return document.querySelector('.toml').value"))


def loaded(text: str, extra: str = "") -> StreamSettings:
    """What the configuration's own loader makes of a stream's table with the text of the page."""
    head = f'[model]\npath = "x.onnx"\n[[streams]]\nname = "door"\nsource = "synthetic:"\n{extra}'
    return parse_config(toml(head + text), where="edge.toml").streams[0]


def test_what_is_drawn_stays_when_the_device_begins_anew(browser: Any) -> None:
    with show("door") as running:
        port = running.port
        with running.play():
            browser.get(f"{running.url}/#/camera/door")
            wait_for_number(browser, 0)
            draw(browser, "line", (0.25, 0.5), (0.75, 0.5))
            text = config_text(browser)
    with show("door", port=port) as again, again.play():
        wait_until(lambda: again.board.counts()["door"]["viewers"] == 1)
        wait_until(lambda: text_of(browser, ".summary") == "1 of 1 live")
        asked = "return window.edgeloop.store.revision"
        wait_until(lambda: browser.execute_script(asked) == again.board.revision)
        assert config_text(browser) == text != ""


MASK = [(0.1, 0.2), (0.4, 0.2), (0.3, 0.6)]


@pytest.mark.parametrize(
    ("roi", "rotate"),
    [(None, 0), (None, 90), (None, 270), ([0.2, 0.1, 0.8, 0.6], 0), ([0.2, 0.1, 0.8, 0.6], 180), ([0, 0.3, 1, 1], 90)],
)
def test_a_drawn_mask_covers_what_it_covered_on_the_page(browser: Any, roi: list[float] | None, rotate: int) -> None:
    with show("door") as running:
        running.board.add_stream("door", {**running.board.info("door"), "roi": roi, "rotate": rotate})
        with running.play():
            browser.get(f"{running.url}/#/camera/door")
            wait_for_number(browser, 0)
            draw(browser, "zone", (0.5, 0.25), (0.75, 0.25), (0.75, 0.75), (0.5, 0.25))
            draw(browser, "mask", *MASK, MASK[0])
            text = config_text(browser)
    stream = loaded(text, f"rotate = {rotate}\n" + (f"roi = {roi}\n" if roi else ""))
    assert [zone.name for zone in stream.analytics.zones] == ["zone-1"]
    assert "only for a stream without" not in text
    settings = PictureSettings(masks=stream.masks, roi=stream.roi, rotate=stream.rotate, size=(400, 400))
    camera = Planes.of(np.full((1000, 1000, 3), 255, np.uint8))
    shown = PicturePreparer(settings).prepare(camera).bgr[:, :, 0]
    expected = np.full((400, 400), 255, np.uint8)
    cv2.fillPoly(expected, [np.rint(np.array(MASK) * 400).astype(np.int32)], (0,))
    edge = cv2.dilate(cv2.Canny(expected, 50, 100), np.ones((15, 15)))
    assert (shown == expected)[edge == 0].all()


def test_a_mask_for_a_stream_of_unknown_roi_and_rotation_says_what_it_holds_for(browser: Any) -> None:
    with show("door") as running, running.play():
        browser.get(f"{running.url}/#/camera/door")
        wait_for_number(browser, 0)
        draw(browser, "mask", *MASK, MASK[0])
        draw(browser, "mask", (0.6, 0.2), (0.9, 0.6), (0.9, 0.2), (0.6, 0.6), (0.6, 0.2))
        text = config_text(browser)
    assert "only for a stream without roi and rotate" in text
    # the configuration would refuse it
    assert '"mask-2" is left out: its edges cross' in text
    assert np.allclose(loaded(text).masks, [MASK], atol=0.01)


def toml(text: str) -> Any:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads(text)
