"""The live page with the keyboard and with a screen reader."""

# the browser is a fixture of another file
# ruff: noqa: F811

from __future__ import annotations

from typing import Any

import pytest
from e2e.live_show import show, wait_until
from e2e.test_page_browser import browser, chromium, text_of, wait_for_number  # noqa: F401

from edge.types import Event

pytestmark = pytest.mark.real_server


def test_the_page_works_with_the_keyboard_and_names_everything(browser: Any) -> None:
    with show("door") as running, running.play():
        browser.get(f"{running.url}/#/camera/door")
        wait_for_number(browser, 0)
        unnamed = browser.execute_script(
            "return [...document.querySelectorAll('a, button, input, textarea, [role=img], img')].filter((e) => "
            "!(e.getAttribute('aria-label') || e.alt || e.innerText.trim())).map((e) => e.outerHTML)"
        )
        assert unnamed == []
        assert browser.execute_script("return document.querySelectorAll('h1').length") == 1
        browser.execute_script("document.querySelector('.crumbs a').focus()")
        browser.switch_to.active_element.send_keys("\n")
        wait_until(lambda: text_of(browser, ".card h2") == "door")


def test_the_link_that_skips_the_header_stays_on_the_camera(browser: Any) -> None:
    with show("door") as running, running.play():
        browser.get(f"{running.url}/#/camera/door")
        wait_for_number(browser, 0)
        browser.execute_script("document.querySelector('.skip').focus()")
        browser.switch_to.active_element.send_keys("\n")
        wait_until(lambda: browser.execute_script("return document.activeElement.id") == "main")
        assert browser.current_url.endswith("#/camera/door")
        assert text_of(browser, "h1") == "door"


# every element that is added to the list; a screen reader reads each of them
WATCH_EVENTS = """
const list = document.querySelector('.events');
window.added = 0;
new MutationObserver((changes) => { for (const c of changes) window.added += c.addedNodes.length; })
  .observe(list, {childList: true});
"""


def test_a_new_event_is_the_only_one_that_a_screen_reader_reads(browser: Any) -> None:
    with show("door") as running:

        def happen(*numbers: int) -> None:
            running.cameras[0].publish(*(Event("line_crossed", "door", n, n, {"line": "kerb"}) for n in numbers))

        def shown() -> list[str]:
            return [line for line in text_of(browser, ".events").splitlines() if line.startswith("track")]

        browser.get(f"{running.url}/#/camera/door")
        wait_until(lambda: running.board.counts()["door"]["viewers"] == 1)
        happen(*range(40))
        wait_until(lambda: len(shown()) == 40)
        browser.execute_script(WATCH_EVENTS)
        happen(40)
        wait_until(lambda: len(shown()) == 41)
        assert browser.execute_script("return window.added") == 1
        happen(*range(41, 70))
        wait_until(lambda: shown()[0].startswith("track 69 "))
        assert [int(line.split()[1]) for line in shown()] == list(range(69, 9, -1))
        assert browser.execute_script("return window.added") == 30


# all that is read or heard on the page and is not in the language that was chosen
FOREIGN = """
const found = new Set(), walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
const known = new Set(["Edgeloop", ...arguments[0]]);
const look = (text) => {
  if (/[A-Za-z]{2}/.test(text) && !text.includes("⟦") && !known.has(text.trim())) found.add(text);
};
const own = ".table tbody, .card-list, .events li, .counts, .numbers dt, noscript, .seen";
while (walker.nextNode()) if (!walker.currentNode.parentElement.closest(own)) look(walker.currentNode.data);
for (const e of document.querySelectorAll("[aria-label]")) if (!e.closest(own)) look(e.getAttribute("aria-label"));
return [...found];
"""
SPEAK = """
const done = arguments[0];
import("/words.js").then(({LANGUAGES, use}) => {
  LANGUAGES.xx = Object.fromEntries(Object.entries(LANGUAGES.en).map(([key, text]) => [key, `⟦${text}⟧`]));
  use("xx-XX", "en");
  window.edgeloop.route();
  done();
});
"""


@pytest.mark.parametrize("route", ["#/", "#/camera/door"])
def test_another_language_is_spoken_everywhere(browser: Any, route: str) -> None:
    with show("door", "yard") as running, running.play():
        running.cameras[1].state = "backing_off"
        browser.get(f"{running.url}/{route}")
        wait_for_number(browser, 0)
        browser.execute_async_script(SPEAK)
        wait_until(lambda: text_of(browser, ".badge") == "⟦Live⟧")
        # what is said every half second comes a little later
        wait_until(lambda: not any("Live" in text for text in browser.execute_script(FOREIGN, ["door", "yard"])))
        assert browser.execute_script(FOREIGN, ["door", "yard"]) == []
        assert browser.execute_script("return document.documentElement.lang") == "xx"
