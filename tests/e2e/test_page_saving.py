"""What is drawn on the page of a real daemon is saved in its file, counts at once, and can be taken back."""

# the browser is a fixture of another file
# ruff: noqa: F811

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from daemon_process import TOKEN, VIEW_TOKEN, Daemon, config_of, daemon, with_tokens
from e2e.live_show import wait_until
from e2e.test_page_browser import browser, chromium, text_of  # noqa: F401
from e2e.test_page_drawing import click_on_picture, draw
from tiny_models import tiny_model

from edge.config.load import load_config

pytestmark = pytest.mark.real_server
ROAD = "rotate = 90\nroi = [0.0, 0.0, 1.0, 0.8]\nmasks = [[[0.1, 0.1], [0.3, 0.1], [0.3, 0.3]]]\n"
# by the kerb stays, whatever is drawn
LINE = """
[[streams.analytics.lines]]  # by the kerb
name = "kerb"
points_share = [[0.1, 0.3], [0.9, 0.3]]
band_px = 3.0
"""


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Daemon]:
    source = "synthetic://street?seed=1&size=320x192&fps=20&objects=2&live=1"
    streams = f'[[streams]]\nname = "door"\nsource = "{source}"\n{ROAD}{LINE}'
    model = tiny_model(tmp_path / "tiny.onnx")
    config = config_of(model, streams, with_tokens(tmp_path, "can_edit = true\n"), f'state_dir = "{tmp_path}/state"\n')
    with daemon(tmp_path, config) as running:
        running.wait_for("READY=1")
        running.until(lambda: running.url != "")
        yield running
        assert running.stop() == 0
        assert "Traceback" not in running.text


def open_camera(browser: Any, running: Daemon) -> None:
    browser.get(f"{running.url}/?token={VIEW_TOKEN}")
    browser.get(f"{running.url}/#/camera/door")
    wait_until(lambda: browser.execute_script("return document.querySelector('.picture')?.dataset.shown") is not None)


def press(browser: Any, text: str) -> None:
    found = [one for one in browser.find_elements("css selector", ".draw button") if one.text == text]
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", found[0])
    found[0].click()


def give_token(browser: Any, token: str) -> None:
    wait_until(lambda: browser.find_element("css selector", ".token-form").is_displayed())
    browser.find_element("css selector", ".token-form input").send_keys(token + "\n")


def names(browser: Any) -> list[str]:
    return list(
        browser.execute_script("return [...document.querySelectorAll('.shape-list li > input')].map((e) => e.value)")
    )


def stream_of(folder: Path) -> Any:
    return load_config(folder / "edge.toml").streams[0]


def test_what_is_drawn_is_saved_counts_and_can_be_taken_back(browser: Any, door: Daemon, tmp_path: Path) -> None:
    first = (tmp_path / "edge.toml").read_text()
    open_camera(browser, door)
    press(browser, "Edit what is there")
    # the token that opened the page only looks
    give_token(browser, VIEW_TOKEN)
    wait_until(lambda: "may not change anything" in text_of(browser, ".edit-words"))
    give_token(browser, TOKEN)
    wait_until(lambda: names(browser) == ["kerb", "mask-1"])
    draw(browser, "zone", (0.4, 0.5), (0.6, 0.5), (0.6, 0.8))
    # the second press of a double click closes it
    click_on_picture(browser, (0.6, 0.8))
    wait_until(lambda: names(browser) == ["kerb", "mask-1", "zone-1"])
    press(browser, "Turn round")
    press(browser, "Save")
    wait_until(lambda: "Saved" in text_of(browser, ".draw [role=status]"))
    stream = stream_of(tmp_path)
    assert stream.analytics.lines[0].points_share == ((0.9, 0.3), (0.1, 0.3))
    assert stream.analytics.lines[0].band_px == 3.0
    assert [zone.name for zone in stream.analytics.zones] == ["zone-1"]
    assert stream.masks == (((0.1, 0.1), (0.3, 0.1), (0.3, 0.3)),), "a mask that was not touched is not moved"
    assert "# by the kerb" in (tmp_path / "edge.toml").read_text()
    door.until(
        lambda: "zone-1" in door.client().get("/api/stats").json()["streams"]["door"]["analytics"].get("zones", {})
    )
    assert "given other lines and zones" in door.text and "started again" not in door.text
    browser.find_element("css selector", ".edit details summary").click()
    wait_until(lambda: bool(browser.find_elements("css selector", ".version-list button")))
    browser.find_element("css selector", ".version-list button").click()
    door.until(lambda: (tmp_path / "edge.toml").read_text() == first)
    browser.execute_script("sessionStorage.clear(); localStorage.clear()")
    browser.delete_all_cookies()


def test_nothing_drawn_is_lost_by_a_reload_of_the_page(browser: Any, door: Daemon, tmp_path: Path) -> None:
    open_camera(browser, door)
    draw(browser, "line", (0.25, 0.5), (0.75, 0.5))
    browser.refresh()
    wait_until(lambda: names(browser) == ["line-1"])
    assert "not saved yet" in text_of(browser, ".draw [role=status]")
    wait_until(lambda: browser.execute_script("return document.querySelector('.picture')?.dataset.shown") is not None)
    press(browser, "Save")
    give_token(browser, TOKEN)
    wait_until(lambda: "Saved" in text_of(browser, ".draw [role=status]"))
    # what stood in the file before is not lost by it either
    assert [line.name for line in stream_of(tmp_path).analytics.lines] == ["kerb", "line-1"]
    browser.refresh()
    wait_until(lambda: bool(browser.find_elements("css selector", ".draw [data-kind=line]")))
    assert names(browser) == []
    browser.execute_script("sessionStorage.clear(); localStorage.clear()")
    browser.delete_all_cookies()


def test_what_cannot_work_is_said_and_stays_drawn(browser: Any, door: Daemon, tmp_path: Path) -> None:
    before = (tmp_path / "edge.toml").read_text()
    open_camera(browser, door)
    browser.execute_script(f"sessionStorage.setItem('operate-token', '{TOKEN}')")
    press(browser, "Edit what is there")
    wait_until(lambda: names(browser) == ["kerb", "mask-1"])
    draw(browser, "zone", (0.2, 0.6), (0.8, 0.9), (0.8, 0.6), (0.2, 0.9), (0.2, 0.6))
    press(browser, "Save")
    wait_until(lambda: "zone 'zone-1'" in text_of(browser, ".edit-words"))
    assert names(browser) == ["kerb", "mask-1", "zone-1"]
    assert (tmp_path / "edge.toml").read_text() == before
    browser.execute_script("sessionStorage.clear(); localStorage.clear()")
    browser.delete_all_cookies()
