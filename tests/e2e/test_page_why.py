"""Why, what if, and a recording as a test: asked on the page of a real daemon."""

# browser and daemon are fixtures of other files
# ruff: noqa: F811

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from daemon_process import TOKEN, VIEW_TOKEN, Daemon
from e2e.live_show import wait_until
from e2e.test_page_browser import browser, chromium, text_of  # noqa: F401
from e2e.test_page_drawing import draw
from e2e.test_questions import door, drawn_now  # noqa: F401

from edge.cliptests.case import Case

pytestmark = pytest.mark.real_server
PICTURES = "return [...document.querySelectorAll('{} img')].map((e) => e.complete && e.naturalWidth)"


@pytest.fixture(autouse=True)
def clean(browser: Any) -> Any:
    yield
    browser.execute_script("sessionStorage.clear(); localStorage.clear()")
    browser.delete_all_cookies()


def open_page(browser: Any, running: Daemon, view: str, *, operates: bool) -> None:
    browser.get(f"{running.url}/?token={VIEW_TOKEN}")
    if operates:
        browser.execute_script(f"sessionStorage.setItem('operate-token', '{TOKEN}')")
    browser.get(f"{running.url}/#/{view}")
    browser.refresh()


def press(browser: Any, place: str, text: str) -> None:
    def found() -> list[Any]:
        buttons = browser.find_elements("css selector", f"{place} button")
        return [one for one in buttons if one.text == text and one.is_displayed()]

    wait_until(lambda: bool(found()))
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", found()[0])
    found()[0].click()


def wait_for_pictures(browser: Any, place: str) -> None:
    browser.execute_script(f"document.querySelectorAll('{place} img').forEach((e) => {{ e.loading = 'eager'; }})")

    def are_shown() -> bool:
        widths = browser.execute_script(PICTURES.replace("{}", place))
        return bool(widths) and all(width > 100 for width in widths)

    wait_until(are_shown)


def test_an_event_is_asked_why_by_who_may_only_look(browser: Any, door: Daemon) -> None:
    open_page(browser, door, "camera/door", operates=False)
    wait_until(lambda: bool(browser.find_elements("css selector", ".events li .is-button")), 60)
    browser.execute_script("document.querySelector('.events li .is-button').click()")
    wait_until(lambda: "line 'mid'" in text_of(browser, ".why .asked"), 60)
    wait_for_pictures(browser, ".why .asked")
    assert not browser.find_elements("css selector", ".why .token-form:not([hidden])")


def test_a_time_is_asked_why_nothing_was_said(browser: Any, door: Daemon) -> None:
    open_page(browser, door, "camera/door", operates=False)
    press(browser, ".why", "Ask")
    wait_until(lambda: "door" in text_of(browser, ".why .asked-sentence"), 60)


def test_a_line_is_moved_tried_seen_and_saved(browser: Any, door: Daemon) -> None:
    with door.client() as client:
        before = drawn_now(client)
    open_page(browser, door, "camera/door", operates=True)
    wait_until(lambda: browser.execute_script("return document.querySelector('.picture')?.dataset.shown") is not None)
    draw(browser, "line", (0.3, 0.3), (0.3, 0.95))
    press(browser, ".what-if", "Try what is drawn")
    wait_until(lambda: "would be as they were" in text_of(browser, ".what-if .asked"), 60)
    rows = browser.execute_script("return [...document.querySelectorAll('.what-if tbody tr')].map((e) => e.innerText)")
    assert any(one.startswith("line-1") for one in rows), rows
    assert "0 gone" in text_of(browser, ".what-if .asked-sentence")
    with door.client() as client:
        assert drawn_now(client) == before, "nothing is saved before it is asked for"
        if "0 new" not in text_of(browser, ".what-if .asked-sentence"):
            wait_for_pictures(browser, ".what-if .asked")
        press(browser, ".what-if", "Save: make it live")
        wait_until(lambda: [line["name"] for line in drawn_now(client)["lines"]] == ["mid", "line-1"])
        back = {**before, "version": drawn_now(client)["version"]}
        assert client.put("/api/streams/door/drawn", json=back).status_code == 200


def test_how_long_somebody_may_stay_in_a_zone_is_tried_and_saved(browser: Any, door: Daemon) -> None:
    with door.client() as client:
        before = drawn_now(client)
        open_page(browser, door, "camera/door", operates=True)
        wait_until(
            lambda: browser.execute_script("return document.querySelector('.picture')?.dataset.shown") is not None
        )
        press(browser, ".draw", "Edit what is there")
        wait_until(lambda: bool(browser.find_elements("css selector", ".shape-list li")))
        draw(browser, "zone", (0.02, 0.02), (0.98, 0.02), (0.98, 0.98), (0.02, 0.98), (0.02, 0.02))
        browser.execute_script(
            "const label = [...document.querySelectorAll('.shape-list label')]"
            ".filter((one) => one.textContent.startsWith('Stays longer')).at(-1), input = label.querySelector('input');"
            "input.value = 1; input.dispatchEvent(new Event('change'))"
        )
        press(browser, ".what-if", "Try what is drawn")
        wait_until(lambda: "gone" in text_of(browser, ".what-if .asked"), 60)
        rows = browser.execute_script(
            "return [...document.querySelectorAll('.what-if tbody tr')].map((e) => e.innerText)"
        )
        assert any("zone-1" in one and "loiter" in one.lower() for one in rows), rows
        press(browser, ".what-if", "Save: make it live")
        wait_until(lambda: [zone.get("loiter_s") for zone in drawn_now(client)["zones"]][-1:] == [1])
        back = {**before, "version": drawn_now(client)["version"]}
        assert client.put("/api/streams/door/drawn", json=back).status_code == 200


def test_a_score_is_tried(browser: Any, door: Daemon) -> None:
    open_page(browser, door, "camera/door", operates=True)
    field = "document.querySelector('.what-if .score')"
    wait_until(lambda: browser.execute_script(f"return {field} !== null"))
    press(browser, ".draw", "Edit what is there")
    wait_until(lambda: bool(browser.find_elements("css selector", ".shape-list li")))
    browser.execute_script(f"{field}.value = 0.97; {field}.dispatchEvent(new Event('change'))")
    press(browser, ".what-if", "Try what is drawn")
    wait_until(lambda: "gone" in text_of(browser, ".what-if .asked"), 60)
    wait_for_pictures(browser, ".what-if .asked")
    press(browser, ".draw", "Discard changes")


def test_a_recording_is_made_a_test_with_one_click(browser: Any, door: Daemon, tmp_path: Path) -> None:
    open_page(browser, door, "recordings/door", operates=True)
    press(browser, ".player-foot", "Make this a test")
    wait_until(lambda: "objects to find again" in text_of(browser, ".test-maker"), 90)
    wait_for_pictures(browser, ".test-maker")
    name = browser.find_element("css selector", ".test-maker input[maxlength]")
    name.clear()
    name.send_keys("monday")
    press(browser, ".test-maker", "Save the test")
    wait_until(lambda: "Saved as monday" in text_of(browser, ".test-maker"))
    made = Path(json.loads(json.dumps(door.process.args))[-1]).parent / "tests" / "monday"
    assert Case.read(made).frames > 10
