"""A camera is added on the page of a real daemon: found or typed, its login, its picture; then it is one of them."""

# the browser is a fixture of another file
# ruff: noqa: F811

from __future__ import annotations

import json
import random
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from daemon_process import SCENE, TOKEN, VIEW_TOKEN, Daemon, config_of, daemon, with_tokens
from e2e.live_show import wait_until
from e2e.test_page_browser import browser, chromium, text_of  # noqa: F401
from e2e.test_secrets import process_facts
from hostile import Hostile
from onvif_device import OnvifDevice, two_pictures
from tiny_models import tiny_model

from edge.config.load import load_config

pytestmark = pytest.mark.real_server
PASSWORD = 'canary "p@ss/w#rd" 31'
CORE = "canary"
NO_CAMERAS = {
    "gst:filesrc location=/etc/passwd ! appsink": "HOST, HOST:PORT",
    "/etc/passwd": "HOST, HOST:PORT",
    "/dev/../etc/passwd": "HOST, HOST:PORT",
    "file:///etc/passwd": "HOST, HOST:PORT",
    "synthetic://street": "HOST, HOST:PORT",
    "admin:canary-77@127.0.0.1": "HOST, HOST:PORT",
    "http://admin:canary-77@127.0.0.1:1/": "HOST, HOST:PORT",
    "rtsp://admin:canary-77@127.0.0.1:1/x?password=canary": "***@127.0.0.1:1",
    "127.0.0.1:1": "refused",
    "999": "",
}
FIELDS = ("Address", "User name", "Password", "Name")


@pytest.fixture(scope="module")
def camera() -> Iterator[OnvifDevice]:
    with two_pictures(PASSWORD) as device:
        yield device


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Daemon]:
    """One for all; who adds a camera takes it out again."""
    tmp_path = folder
    model = tiny_model(tmp_path / "tiny.onnx")
    streams = f'# by the door\n[[streams]]\nname = "door"\nsource = "{SCENE}"\n'
    config = config_of(model, streams, with_tokens(tmp_path, "can_edit = true\n"), f'state_dir = "{tmp_path}/state"\n')
    with daemon(tmp_path, config, arguments=("--debug",)) as running:
        running.wait_for("READY=1")
        running.until(lambda: running.url != "")
        yield running
        assert running.stop() == 0
        assert "Traceback" not in running.text
        assert CORE not in running.text


def type_in(browser: Any, label: str, text: str) -> None:
    field = browser.find_elements("css selector", ".add label > input")[FIELDS.index(label)]
    field.clear()
    field.send_keys(text)


def press(browser: Any, text: str) -> None:
    found = [one for one in browser.find_elements("css selector", ".add button") if text in one.text]
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", found[0])
    found[0].click()


def test_a_camera_is_found_seen_and_added(browser: Any, served: Daemon, camera: OnvifDevice, folder: Path) -> None:
    browser.get(f"{served.url}/?token={VIEW_TOKEN}")
    wait_until(lambda: browser.find_element("css selector", "#to-add").is_displayed())
    browser.find_element("css selector", "#to-add").click()
    wait_until(lambda: text_of(browser, "h1") == "Add a camera")
    press(browser, "Look for cameras")
    # the token that opened the page only looks
    wait_until(lambda: browser.find_element("css selector", ".token-form").is_displayed())
    browser.find_element("css selector", ".token-form input").send_keys(TOKEN + "\n")
    wait_until(lambda: f":{camera.port}" in text_of(browser, ".found"))
    press(browser, f":{camera.port}")
    type_in(browser, "User name", "admin")
    type_in(browser, "Password", "not the password")
    press(browser, "Show its picture")
    wait_until(lambda: "not Authorized" in text_of(browser, ".edit-words"))
    type_in(browser, "Password", PASSWORD)
    press(browser, "Show its picture")
    wait_until(lambda: browser.find_element("css selector", ".add img").is_displayed())
    shown = "return document.querySelector('.add img').naturalWidth"
    wait_until(lambda: browser.execute_script(shown) == 640)
    assert "Testmaker TM-2 <&>" in text_of(browser, ".add") and "large picture is recorded" in text_of(browser, ".add")
    # another one than was seen is not added
    type_in(browser, "User name", "admin2")
    assert not browser.find_element("css selector", ".add img").is_displayed()
    type_in(browser, "User name", "admin")
    press(browser, "Show its picture")
    wait_until(lambda: browser.find_element("css selector", ".add img").is_displayed())
    type_in(browser, "Name", "yard")
    press(browser, "Add this camera")
    wait_until(lambda: len(browser.find_elements("css selector", ".card")) == 2)
    wait_until(lambda: text_of(browser, ".summary") == "2 of 2 live")
    assert CORE not in browser.page_source

    text = (folder / "edge.toml").read_text()
    assert "# by the door" in text and CORE not in text
    door, yard = load_config(folder / "edge.toml").streams
    assert (door.name, yard.name, yard.username) == ("door", "yard", "admin")
    assert yard.source.endswith("/sub") and str(yard.record_source).endswith("/main")
    assert yard.password_file == folder / "yard.password"
    assert yard.password_file.stat().st_mode & 0o777 == 0o600
    assert yard.password_file.read_text() == PASSWORD + "\n"
    take_back(served, folder)
    browser.execute_script("sessionStorage.clear(); localStorage.clear()")
    browser.delete_all_cookies()


def test_only_who_may_change_the_file_may_look(served: Daemon, camera: OnvifDevice) -> None:
    num_calls = len(camera.calls)
    body = {"place": f"127.0.0.1:{camera.port}", "username": "", "password": ""}
    routes = [("GET", "/api/cameras"), ("POST", "/api/cameras"), ("POST", "/api/cameras/look")]
    for method, path in routes:
        assert httpx.request(method, served.url + path, json=body).status_code == 401
        assert httpx.request(method, f"{served.url}{path}?token={TOKEN}", json=body).status_code == 403
        with served.client(VIEW_TOKEN) as client:
            assert client.request(method, path, json=body).status_code == 403
    assert len(camera.calls) == num_calls
    with served.client() as client:
        listed = client.get("/api/openapi.json").json()["paths"]
        assert set(listed["/api/cameras"]) == {"get", "post"} and set(listed["/api/cameras/look"]) == {"post"}


def test_what_is_no_camera_is_one_sentence(served: Daemon, folder: Path) -> None:
    before = (folder / "edge.toml").read_text()
    for place, words in NO_CAMERAS.items():
        with served.client() as client:
            answer = client.post("/api/cameras/look", json={"place": place, "username": "", "password": "canary-78"})
        assert answer.status_code == 409 and words in answer.text, (place, answer.text)
        assert CORE not in answer.text and answer.text.count("\n") <= 1
    assert (folder / "edge.toml").read_text() == before


def test_what_is_added_was_seen_and_nonsense_changes_nothing(served: Daemon, camera: OnvifDevice, folder: Path) -> None:
    before = (folder / "edge.toml").read_text()
    (folder / "kept.password").write_text("mine\n")
    asked = {"place": f"127.0.0.1:{camera.port}", "username": "admin", "password": PASSWORD}
    with served.client() as client:
        answer = client.post("/api/cameras/look", json=asked)
        assert answer.status_code == 200, answer.text
        seen = answer.json()
        assert CORE not in answer.text and seen["size"] == [640, 360] and seen["name"] == "127-0-0-1"
        for name in ("door", "", "../../x", "a b", "x" * 300, "\u0000", "kept", 'a"\nb = "'):
            refused = client.post("/api/cameras", json={"look": seen["id"], "name": name})
            assert refused.status_code in (400, 409), name
        assert client.post("/api/cameras", json={"look": "another", "name": "yard"}).status_code == 409
        dice = random.Random(5)
        whole = json.dumps({"look": seen["id"], "name": "yard"}).encode()
        for body in (b"", b"[]", b"{}", b'{"look": 3}', b"\xff", b"[" * 30_000, b'{"look": "a", "name": null}'):
            assert client.post("/api/cameras", content=body).status_code in (400, 409), body[:20]
            assert client.post("/api/cameras/look", content=body).status_code == 400
        for _ in range(200):
            data = bytearray(whole)
            data[dice.randrange(len(data) - 9)] = dice.randrange(256)
            answer = client.post("/api/cameras", content=bytes(data))
            assert answer.status_code in (200, 400, 409)
            if answer.status_code == 200:
                break
        assert client.post("/api/cameras/look", content=b"x" * 70_000).status_code == 413
    left = sorted(path.name for path in folder.glob("*.password"))
    assert left == sorted(["kept.password", *(f"{one.name}.password" for one in added(folder))])
    assert (folder / "kept.password").read_text() == "mine\n"
    if added(folder):
        take_back(served, folder)
    assert (folder / "edge.toml").read_text() == before


def take_back(served: Daemon, folder: Path) -> None:
    """Put back the file from before the last change."""
    with served.client() as client:
        last = client.get("/api/config/versions").json()["versions"][0]["id"]
        assert client.post("/api/config/versions", json={"restore": last}).status_code == 200
        served.until(lambda: set(client.get("/api/stats").json()["streams"]) == {"door"})
    for path in folder.glob("*.password"):
        if path.name != "kept.password":
            path.unlink()


def added(folder: Path) -> list[Any]:
    return [one for one in load_config(folder / "edge.toml").streams if one.name != "door"]


def hears_all(connection: socket.socket) -> None:
    while connection.recv(65_536):
        pass


def test_one_looks_at_a_time_and_a_silent_camera_is_given_up(served: Daemon) -> None:
    silent = Hostile(hears_all)
    with served.client() as client:
        answers: list[httpx.Response] = []
        body = {"place": f"127.0.0.1:{silent.port}", "username": "a", "password": "canary-79"}
        first = threading.Thread(target=lambda: answers.append(client.post("/api/cameras/look", json=body)))
        first.start()
        served.until(lambda: silent.num_connections > 0)
        with served.client() as other:
            assert "under way" in other.post("/api/cameras/look", json=body).text
            assert other.get("/api/stats").status_code == 200
        first.join(20)
        assert answers[0].status_code == 409 and ("long" in answers[0].text or "timed out" in answers[0].text)
        # the decoder's process is given the password, and shows it to nobody
        body["place"] = f"rtsp://127.0.0.1:{silent.port}/x"
        num_before = silent.num_connections
        second = threading.Thread(target=lambda: answers.append(client.post("/api/cameras/look", json=body)))
        second.start()
        served.until(lambda: silent.num_connections > num_before)
        listed = process_facts(served.process.pid)
        assert "isolation" in listed and CORE not in listed
        second.join(20)
        assert answers[1].status_code == 409 and CORE not in answers[1].text
    silent.close()
