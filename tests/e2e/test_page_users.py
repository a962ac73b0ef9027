"""The page of somebody who has logged in: what it shows, what it leaves out, and how it ends."""

# the browser is a fixture of another file
# ruff: noqa: F811

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from e2e.live_show import wait_until
from e2e.test_page_browser import browser, chromium, text_of  # noqa: F401
from e2e.test_page_why import clean, press  # noqa: F401
from e2e.users_show import PASSWORD, UsersShow, users_show

from edge.users.file import changed_users
from edge.users.rights import Rights

pytestmark = pytest.mark.real_server


@pytest.fixture
def show(tmp_path: Path) -> Iterator[UsersShow]:
    with users_show(tmp_path, audit_file=tmp_path / "audit.jsonl") as running:
        yield running


def log_in_as(browser: Any, running: UsersShow, name: str, password: str = PASSWORD) -> None:
    """Fill in the form of the page that asks for a login."""
    browser.get(running.url)
    wait_until(lambda: bool(browser.find_elements("css selector", "#password")))
    browser.find_element("css selector", "#name").send_keys(name)
    browser.find_element("css selector", "#password").send_keys(password)
    browser.find_element("css selector", "button").click()


def cameras_on(browser: Any) -> list[str]:
    return list(browser.execute_script("return window.edgeloop ? [...window.edgeloop.store.streams.keys()] : []"))


def test_a_browser_logs_in_sees_its_camera_alone_and_logs_out(browser: Any, show: UsersShow) -> None:
    log_in_as(browser, show, "doris")
    wait_until(lambda: cameras_on(browser) == ["door"])
    assert "attic" not in browser.page_source
    assert browser.execute_script("return document.cookie") == ""
    assert text_of(browser, "#to-account") == "doris"
    assert not browser.find_element("css selector", "#to-add").is_displayed()
    browser.find_element("css selector", "#to-account").click()
    wait_until(lambda: "You are logged in as doris." in text_of(browser, ".account"))
    assert "door: view" in text_of(browser, ".account")
    assert "Changes, and looks" not in text_of(browser, ".account")
    press(browser, ".account", "Log out")
    wait_until(lambda: "This device shows its cameras to who logs in." in text_of(browser, "body"))


def test_an_admin_ends_the_session_of_another_whose_page_asks_for_a_login(browser: Any, show: UsersShow) -> None:
    log_in_as(browser, show, "doris")
    wait_until(lambda: cameras_on(browser) == ["door"])
    with show.client("anna") as anna:
        session = anna.get("/api/sessions").json()["sessions"][0]
        assert session["user"] == "doris"
        assert anna.delete(f"/api/sessions/{session['id']}").status_code == 200
    wait_until(lambda: bool(browser.find_elements("css selector", "#password")))


def test_a_page_follows_a_changed_role(browser: Any, show: UsersShow) -> None:
    log_in_as(browser, show, "doris")
    wait_until(lambda: cameras_on(browser) == ["door"])
    with changed_users(show.users) as users:
        users["doris"] = replace(users["doris"], rights=Rights({"attic": "view"}))
    wait_until(lambda: cameras_on(browser) == ["attic"])
