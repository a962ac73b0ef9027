"""Every view of the page, light and dark, on a screen and on a phone, holds all rules of axe-core."""

# the browser and the recordings are fixtures of other files
# ruff: noqa: F811

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from daemon_process import Daemon
from e2e.live_show import Show, show, wait_until
from e2e.test_page_browser import browser, chromium, text_of, wait_for_number  # noqa: F401
from e2e.test_page_users import log_in_as
from e2e.test_page_why import clean, open_page, press  # noqa: F401
from e2e.test_push_page import opened, service, told  # noqa: F401
from e2e.test_questions import door  # noqa: F401
from e2e.test_recordings_page import archive, served, shelf, snapshots  # noqa: F401
from e2e.users_show import users_show
from push_server import PushServer

from edge.types import Event

# each view is loaded in four looks
pytestmark = [pytest.mark.real_server, pytest.mark.timeout(300)]
PLACE = importlib.util.find_spec("axe_playwright_python")
needs_axe = pytest.mark.skipif(PLACE is None, reason="needs axe; run: pip install --no-deps axe-playwright-python")
RUN = """
const done = arguments[0];
axe.run(document, {resultTypes: ["violations"]}).then(({violations, passes}) => done({
  num_passes: passes.length,
  faults: violations.map(({id, help, nodes}) => [id, help, nodes.map(({html}) => html.slice(0, 200))]),
}));
"""
LOOKS = [(scheme, width) for scheme in ("light", "dark") for width in (390, 1440)]


@contextmanager
def looking(browser: Any, scheme: str, width: int) -> Iterator[None]:
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        yield
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def hold_rules(browser: Any) -> None:
    """Ask axe about the page as it stands; nothing of it is wider than the screen."""
    assert PLACE is not None and PLACE.submodule_search_locations
    browser.execute_script((Path(PLACE.submodule_search_locations[0]) / "axe.min.js").read_text(encoding="utf-8"))
    found = browser.execute_async_script(RUN)
    assert found["num_passes"] > 5
    assert found["faults"] == [], json.dumps(found["faults"], indent=1)
    assert browser.execute_script("return document.documentElement.scrollWidth - innerWidth") <= 0


def looks(browser: Any) -> Iterator[None]:
    """The page as it is then seen: light and dark, on a phone and on a screen."""
    for scheme, width in LOOKS:
        with looking(browser, scheme, width):
            yield


def check(browser: Any, address: str, ready: str) -> None:
    """Load this address in each look, wait for text in the page, and ask axe."""
    for _ in looks(browser):
        browser.get(address)
        wait_until(lambda: ready in text_of(browser, "body"))
        hold_rules(browser)


def happen(running: Show) -> None:
    running.cameras[0].publish(Event("line_crossed", "door", 1, 3, {"line": "kerb", "direction": "in"}))


@needs_axe
def test_the_grid(browser: Any) -> None:
    with show("door", "yard", "gate") as running, running.play():
        running.cameras[1].state = "backing_off"
        check(browser, running.url, "Offline")


@needs_axe
def test_a_camera(browser: Any) -> None:
    with show("door") as running, running.play():
        happen(running)
        check(browser, f"{running.url}/#/camera/door", "kerb")


@needs_axe
def test_the_recordings(browser: Any, archive: Any) -> None:
    server, url, _ = served(archive)
    try:
        check(browser, f"{url}/#/recordings", "crossed")
    finally:
        server.stop()


@needs_axe
def test_the_recordings_with_their_time_line_and_the_list_of_events(browser: Any, door: Daemon) -> None:
    for _ in looks(browser):
        open_page(browser, door, "recordings/door", operates=True)
        wait_until(lambda: bool(browser.find_elements("css selector", ".past .past-event[data-seen=false]")), 60)
        wait_until(lambda: bool(browser.find_elements("css selector", ".timeline .bar-event")))
        wait_until(lambda: browser.find_element("css selector", ".filters .select").is_displayed())
        # the keys show the moment and its picture
        browser.find_element("css selector", ".timeline").send_keys("\ue014")
        wait_until(lambda: browser.find_element("css selector", ".scrub").is_displayed())
        hold_rules(browser)


@needs_axe
def test_the_form_for_a_new_camera(browser: Any, door: Daemon) -> None:
    for _ in looks(browser):
        open_page(browser, door, "add", operates=False)
        # who opens the form by its address is connected too
        wait_until(lambda: "1 of 1 live" in text_of(browser, ".summary"))
        press(browser, ".add", "Look for cameras")
        wait_until(lambda: browser.find_element("css selector", ".token-form").is_displayed())
        # as it is once a camera was seen
        browser.execute_script("window.edgeloop.view.third.hidden = false")
        hold_rules(browser)


@needs_axe
def test_the_messages_and_the_page_behind_their_link(browser: Any, told: Daemon, service: PushServer) -> None:
    phone = service.browser()
    with told.client() as client:
        client.post("/api/push", json=phone.subscription("Pixel"))
        wait_until(lambda: bool(phone.got), 60)
        link = f"{told.url}/snooze?k={phone.got[0]['snooze']}"
        for _ in looks(browser):
            browser.get(link)
            wait_until(lambda: "Quiet for an hour" in text_of(browser, "body"))
            hold_rules(browser)
            browser.find_element("css selector", "button").click()
            wait_until(lambda: "No messages until" in text_of(browser, "[role=status]"))
            hold_rules(browser)
            opened(browser, told)
            wait_until(lambda: "Pixel" in text_of(browser, ".version-list"))
            hold_rules(browser)
            for snooze in client.get("/api/snoozes").json()["snoozes"]:
                client.delete(f"/api/snoozes/{snooze['id']}")
        client.request("DELETE", "/api/push", json={"endpoint": phone.endpoint})


@needs_axe
def test_the_answer_to_why(browser: Any, door: Daemon) -> None:
    for _ in looks(browser):
        open_page(browser, door, "camera/door", operates=False)
        wait_until(lambda: bool(browser.find_elements("css selector", ".events li .is-button")), 60)
        browser.execute_script("document.querySelector('.events li .is-button').click()")
        wait_until(lambda: "line 'mid'" in text_of(browser, ".why .asked"), 60)
        hold_rules(browser)


@needs_axe
def test_the_page_that_asks_for_the_token(browser: Any) -> None:
    with show("door", token="canary-token") as running:
        check(browser, running.url, "Token")
        check(browser, f"{running.url}/?token=wrong-token", "Token")


@needs_axe
def test_the_login_and_the_account_of_an_admin(browser: Any, tmp_path: Path) -> None:
    with users_show(tmp_path, audit_file=tmp_path / "audit.jsonl") as running:
        for _ in looks(browser):
            browser.get(running.url)
            browser.delete_all_cookies()
            browser.get(running.url)
            wait_until(lambda: "Log in" in text_of(browser, "body"))
            hold_rules(browser)
            log_in_as(browser, running, "anna", "a wrong password")
            wait_until(lambda: "do not belong together" in text_of(browser, "body"))
            hold_rules(browser)
            log_in_as(browser, running, "anna")
            wait_until(lambda: bool(browser.find_elements("css selector", ".card, .top")))
            browser.get(f"{running.url}/#/account")
            wait_until(lambda: "wrong login" in text_of(browser, ".account"))
            wait_until(lambda: "this one" in text_of(browser, ".account"))
            hold_rules(browser)
