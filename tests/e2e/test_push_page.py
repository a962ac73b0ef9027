"""Messages to a phone, from a real daemon over a push service to a real browser's service worker, and back to silence.

Chromium reaches no push service here, so the page's ``subscribe`` gives a subscription of the service of the tests;
what that service has decrypted is given to the service worker as Chromium itself gives it (``deliverPushMessage``).
"""

# the browser is a fixture of another file
# ruff: noqa: F811

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import websocket
from daemon_process import TOKEN, VIEW_TOKEN, Daemon, config_of, daemon, with_tokens
from e2e.live_show import wait_until
from e2e.test_page_browser import browser, chromium, text_of  # noqa: F401
from e2e.test_secrets import process_facts
from e2e.users_show import log_in, write_users
from push_server import PushServer

from edge.server.access import SESSION

pytestmark = pytest.mark.real_server
MODEL = Path(__file__).parents[2] / "edge" / "models" / "street-nano-int8.onnx"
STREAMS = (
    '[[streams]]\nname = "door"\nsource = "synthetic://street?seed=3&size=320x180&fps=10&live=1"\n'
    '[[streams.analytics.zones]]\nname = "whole"\npoints_share = [[0, 0], [1, 0], [1, 1], [0, 1]]\n'
)
SUBSCRIBE = """
const [endpoint, p256dh, auth] = arguments;
let made = null;
PushManager.prototype.getSubscription = async () => made;
PushManager.prototype.subscribe = async ({applicationServerKey, userVisibleOnly}) => {
  if (!userVisibleOnly) throw new Error("a message that nobody sees");
  return made = {endpoint, options: {applicationServerKey}, toJSON: () => ({endpoint, keys: {p256dh, auth}}),
    unsubscribe: async () => { made = null; return true; }};
};
"""
SHOWN = """
const done = arguments[0];
navigator.serviceWorker.getRegistration().then((one) => one.getNotifications()).then((found) => done(found.map(
  ({title, body, tag, image, actions}) => ({title, body, tag, image: image || "", actions}))));
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PushServer]:
    running = PushServer(tmp_path_factory.mktemp("push"))
    yield running
    running.end()


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, service: PushServer) -> Iterator[Daemon]:
    """A daemon that tells phones what its camera sees."""
    folder = tmp_path_factory.mktemp("told")
    more = (
        f'state_dir = "{folder}/state"\nstop_timeout_s = 8\n[events]\nsnapshots = "{folder}/shots"\n'
        f'[[notify]]\npush = true\ncontact = "{service.contact}"\npush_hosts = ["127.0.0.1"]\n'
        f'push_ca_file = "{service.ca_file}"\njoin_s = 0.2\ncool_down_s = 1\nkinds = ["zone_entered"]\n'
    )
    server = with_tokens(folder, f'users_file = "{write_users(folder / "users.json")}"\n')
    with daemon(folder, config_of(MODEL, STREAMS, server, more), arguments=("--debug",)) as running:
        running.wait_for("READY=1")
        running.until(lambda: running.url != "")
        yield running
        assert running.stop() == 0
        assert "Traceback" not in running.text
        secrets = [*service.browsers, *(one.subscription()["keys"]["auth"] for one in service.browsers.values())]
        assert not [secret for secret in secrets if secret in running.text]


class Cdp:
    """The browser's own protocol, with the events that WebDriver does not tell; of the page or its service worker."""

    def __init__(self, browser: Any, kind: str = "page") -> None:
        address = browser.capabilities["goog:chromeOptions"]["debuggerAddress"]
        targets = httpx.get(f"http://{address}/json").json()
        found = next(one for one in targets if one["type"] == kind and one["url"].startswith("http"))
        self._socket = websocket.create_connection(found["webSocketDebuggerUrl"], timeout=20, suppress_origin=True)
        self._number = 0
        self.events: list[dict[str, Any]] = []

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message: dict[str, Any] = json.loads(self._socket.recv())
            if message.get("id") == self._number:
                assert "error" not in message, message
                return dict(message["result"])
            self.events.append(message)

    def result_of(self, script: str) -> Any:
        """What a promise gives."""
        given = self.ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in given, given
        return given["result"].get("value")

    def push(self, origin: str, registration: str, data: str) -> None:
        """Have a message come for the service worker."""
        self.ask("ServiceWorker.deliverPushMessage", origin=origin, registrationId=registration, data=data)

    def registration(self) -> str:
        """Of the page's service worker."""
        self.ask("ServiceWorker.enable")
        deadline_s = time.monotonic() + 20
        while time.monotonic() < deadline_s:
            for event in self.events:
                if event.get("method") == "ServiceWorker.workerRegistrationUpdated":
                    for one in event["params"]["registrations"]:
                        if not one["isDeleted"]:
                            return str(one["registrationId"])
            self.ask("Runtime.evaluate", expression="1")
        raise AssertionError("there is no service worker")

    def close(self) -> None:
        self._socket.close()


def opened(browser: Any, told: Daemon) -> None:
    origin = told.url
    browser.execute_cdp_cmd("Browser.grantPermissions", {"origin": origin, "permissions": ["notifications"]})
    browser.get(f"{told.url}/?token={VIEW_TOKEN}#/messages")
    wait_until(lambda: text_of(browser, "h1") == "Messages")


def switch(browser: Any) -> Any:
    return browser.find_element("css selector", "[role=switch]")


def test_a_phone_is_told_what_happens_and_asks_for_silence(browser: Any, told: Daemon, service: PushServer) -> None:
    opened(browser, told)
    phone = service.browser()
    keys = phone.subscription()["keys"]
    browser.execute_script(SUBSCRIBE, phone.endpoint, keys["p256dh"], keys["auth"])
    wait_until(lambda: switch(browser).is_enabled())
    switch(browser).click()
    wait_until(lambda: switch(browser).get_attribute("aria-checked") == "true", 20)
    assert "also while the page is closed" in text_of(browser, ".add")
    wait_until(lambda: bool([one for one in phone.got if one["picture"]]), 60)
    message = next(one for one in phone.got if one["picture"])
    assert message["title"].startswith("door: ") and "whole" in message["title"] + message["body"]
    assert message["open"].startswith("#/recordings/door?t=")
    assert service.faults == []
    assert phone.endpoint not in process_facts(told.process.pid)

    cdp = Cdp(browser)
    try:
        registration = cdp.registration()
        origin = told.url + "/"
        cdp.ask(
            "ServiceWorker.deliverPushMessage", origin=origin, registrationId=registration, data=json.dumps(message)
        )
        wait_until(lambda: any(one["image"] for one in browser.execute_async_script(SHOWN)), 20)
        (shown,) = browser.execute_async_script(SHOWN)
        assert (shown["title"], shown["body"], shown["tag"]) == (message["title"], message["body"], message["id"])
        assert [one["title"] for one in shown["actions"]] == ["Quiet for an hour"]
        assert shown["image"].startswith("data:image/jpeg;base64,/9j/"), "the picture that this session may see"
        # once more is the same message
        cdp.ask(
            "ServiceWorker.deliverPushMessage", origin=origin, registrationId=registration, data=json.dumps(message)
        )
        for junk in ("", "no json", '{"title": 7, "open": "https://evil.example/", "picture": "//evil.example/x"}'):
            cdp.push(origin, registration, junk)
        wait_until(lambda: len(browser.execute_async_script(SHOWN)) == 4, 20)
        assert all("evil" not in str(one["image"]) for one in browser.execute_async_script(SHOWN))
    finally:
        cdp.close()
    worker = Cdp(browser, "service_worker")
    try:
        # what a press on the message does
        worker.result_of(f"beQuiet({json.dumps(message['snooze'])})")
        for place in ("https://evil.example/", "//evil.example", "javascript:alert(1)", "data:text/html,x"):
            assert worker.result_of(f"within({json.dumps(place)})") == "", place
        assert worker.result_of(f"within({json.dumps(message['open'])})") == f"{told.url}/{message['open']}"
    finally:
        worker.close()
    wait_until(lambda: "door: zone entered" in text_of(browser, ".version-list"), 20)
    switch(browser).click()
    wait_until(lambda: switch(browser).get_attribute("aria-checked") == "false", 20)
    with told.client(VIEW_TOKEN) as client:
        # what is told of all is half a second old
        wait_until(lambda: client.get("/api/stats").json()["events"]["phones"]["phones"] == 0, 20)
        for snooze in client.get("/api/snoozes").json()["snoozes"]:
            client.delete(f"/api/snoozes/{snooze['id']}")
    caches = "const done = arguments[0]; caches.keys().then(done)"
    assert browser.execute_async_script(caches) == [], "no picture is kept by the browser"


def test_the_link_of_a_message_is_a_page_with_a_button(told: Daemon, service: PushServer) -> None:
    phone = service.browser()
    with told.client(VIEW_TOKEN) as client:
        assert client.post("/api/push", json=phone.subscription("Pixel")).json() == {"taken": True}
    wait_until(lambda: bool(phone.got), 60)
    link = f"{told.url}/snooze"
    offer = {"k": phone.got[0]["snooze"]}
    with httpx.Client(timeout=20) as stranger, told.client(VIEW_TOKEN) as client:
        # programs that look at links, and those that guess
        for method in ("GET", "HEAD", "GET"):
            page = stranger.request(method, link, params=offer)
            assert page.status_code == (405 if method == "HEAD" else 200) or method == "HEAD"
        assert client.get("/api/snoozes").json() == {"snoozes": []}
        assert "Quiet for an hour" in page.text and "door: zone entered" in page.text
        assert "script" not in page.text and "form-action 'self'" in page.headers["content-security-policy"]
        for wrong in ({}, {"k": ""}, {"k": offer["k"][:-1]}, {"k": "x" + offer["k"]}, {"k": offer["k"] + "&x"}):
            assert stranger.get(link, params=wrong).status_code == 401
            assert stranger.post(link, params={**wrong, "hours": 1}).status_code == 401
        # it opens nothing else
        for path in ("/", "/api/stats", "/api/snoozes", "/snapshot/door.jpg", "/snooze/x", "/api/push"):
            assert stranger.get(f"{told.url}{path}", params=offer).status_code == 401
        assert stranger.delete(f"{told.url}/api/snoozes/1", params=offer).status_code == 401
        for hours in ("", "2", "99", "-1", "1e3", "nan"):
            assert stranger.post(link, params={**offer, "hours": hours}).status_code == 400
        done = stranger.post(link, params={**offer, "hours": 1})
        assert re.search(r"No messages until \d\d:\d\d\.", done.text)
        (snooze,) = client.get("/api/snoozes").json()["snoozes"]
        assert (snooze["target"], snooze["stream"]) == ("Pixel", "door")
        assert 3500 < snooze["until_s"] - time.time() <= 3600
        time.sleep(1.5)
        before = len(phone.got)
        time.sleep(3)
        assert len(phone.got) == before, "it is left alone"
        assert client.delete(f"/api/snoozes/{snooze['id']}").json() == {"ended": True}
        assert client.delete(f"/api/snoozes/{snooze['id']}").status_code == 404
        wait_until(lambda: len(phone.got) > before, 60)
        gone = client.request("DELETE", "/api/push", json={"endpoint": phone.endpoint})
        assert gone.json() == {"was_there": True}


def test_a_silence_is_seen_on_the_page_and_ended_there(browser: Any, told: Daemon, service: PushServer) -> None:
    phone = service.browser()
    with told.client(VIEW_TOKEN) as client:
        client.post("/api/push", json=phone.subscription("Pixel"))
        wait_until(lambda: bool(phone.got), 60)
        httpx.post(f"{told.url}/snooze", params={"k": phone.got[0]["snooze"], "hours": 8})
        opened(browser, told)
        wait_until(lambda: "Pixel" in text_of(browser, ".version-list"))
        browser.find_element("css selector", ".version-list button").click()
        wait_until(lambda: text_of(browser, ".version-list") == "")
        assert client.get("/api/snoozes").json() == {"snoozes": []}
        client.request("DELETE", "/api/push", json={"endpoint": phone.endpoint})


def test_phones_are_listed_and_ended_on_the_page_by_an_admin(browser: Any, told: Daemon, service: PushServer) -> None:
    phone, other = service.browser(), service.browser()
    with told.client() as client:
        client.post("/api/push", json=phone.subscription("Pixel"))
        with httpx.Client(base_url=told.url, headers={"Origin": told.url}, timeout=30) as anna:
            assert log_in(anna, "anna").status_code == 303
            assert anna.post("/api/push", json=other.subscription("iPhone")).json() == {"taken": True}
            browser.get(f"{told.url}/")
            browser.add_cookie({"name": SESSION, "value": anna.cookies[SESSION], "path": "/"})
        # another place of the same page is no new look at who asks
        browser.get(f"{told.url}/#/messages")
        browser.refresh()
        wait_until(lambda: "iPhone, over 127.0.0.1, of anna" in text_of(browser, ".phone-list"))
        assert "Pixel, over 127.0.0.1" in text_of(browser, ".phone-list")
        for left in (1, 0):
            browser.find_element("css selector", ".phone-list button").click()
            wait_until(lambda: len(browser.find_elements("css selector", ".phone-list li")) == left)  # noqa: B023
        assert client.get("/api/push/phones").json() == {"phones": []}
    browser.delete_all_cookies()


def test_who_may_subscribe_and_with_what(told: Daemon, service: PushServer) -> None:
    subscription = service.browser().subscription()
    assert httpx.post(f"{told.url}/api/push", json=subscription).status_code == 401
    with told.client(VIEW_TOKEN) as client:
        form = {"content-type": "text/plain"}
        assert client.post("/api/push", content=json.dumps(subscription), headers=form).status_code == 415
        assert client.post("/api/push", content=b"x" * 100_000).status_code in (413, 415)
        inside = {**subscription, "endpoint": "https://169.254.169.254/latest"}
        refused = client.post("/api/push", json=inside)
        assert refused.status_code == 409 and "push_hosts" in refused.text
        for body in ([], {}, {"endpoint": 3}, {"endpoint": "x" * 5000, "keys": {}}):
            assert client.post("/api/push", json=body).status_code == 409
        assert client.request("DELETE", "/api/push", json={"endpoint": "https://nobody"}).json() == {"was_there": False}
        assert client.request("DELETE", "/api/push", json=[]).status_code == 400


def test_no_request_breaks_the_routes_of_messages(told: Daemon, service: PushServer) -> None:
    dice = random.Random(7)
    whole = json.dumps(service.browser().subscription("Pixel")).encode()
    json_type = {"content-type": "application/json"}
    with told.client(VIEW_TOKEN) as client, httpx.Client(base_url=told.url, timeout=20) as stranger:
        for _ in range(300):
            data = bytearray(whole)
            for _ in range(dice.randrange(1, 4)):
                data[dice.randrange(len(data))] = dice.randrange(256)
            method = dice.choice(["POST", "DELETE"])
            answer = client.request(method, "/api/push", content=bytes(data), headers=json_type)
            assert answer.status_code in (200, 400, 409), answer.text
            if answer.status_code == 200 and method == "POST":
                client.request("DELETE", "/api/push", json={"endpoint": json.loads(data)["endpoint"]})
        for _ in range(300):
            link = bytes(dice.randrange(33, 127) for _ in range(dice.randrange(40))).decode()
            path = f"/snooze?k={quote(link)}&{quote(link)}={dice.randrange(9)}&hours=1"
            assert stranger.request(dice.choice(["GET", "POST"]), path).status_code == 401
            assert client.request(dice.choice(["GET", "POST"]), path).status_code == 409
            assert client.delete(f"/api/snoozes/{quote(link, safe='')}").status_code in (404, 405)
            assert client.delete(f"/api/push/phones/{quote(link, safe='')}").status_code in (404, 405)
        assert client.get("/api/snoozes").json() == {"snoozes": []}


def test_the_page_can_be_installed_and_its_worker_is_served_as_it_must(told: Daemon) -> None:
    with told.client() as client:
        manifest = client.get("/manifest.webmanifest")
        assert manifest.headers["content-type"].startswith("application/manifest+json")
        for icon in manifest.json()["icons"]:
            assert client.get(f"/{icon['src']}").headers["content-type"] == icon["type"]
        worker = client.get("/sw.js")
        assert "javascript" in worker.headers["content-type"]
        assert worker.headers["cache-control"] == "no-store"
        assert "caches" not in worker.text and 'addEventListener("fetch"' not in worker.text
    assert httpx.get(f"{told.url}/sw.js").status_code == 401
    assert TOKEN not in worker.text
