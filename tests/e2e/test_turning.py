"""A camera is turned to its presets from the page of a real daemon; lines and zones rest until it is home."""

# the browser is a fixture of another file
# ruff: noqa: F811

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from daemon_process import TOKEN, VIEW_TOKEN, Daemon, config_of, daemon, with_tokens
from e2e.live_show import wait_until
from e2e.test_page_browser import browser, chromium, text_of  # noqa: F401
from onvif_device import OnvifDevice, Picture, onvif_device
from tiny_models import tiny_model

from edge.config.load import parse_config
from edge.errors import ConfigError

pytestmark = pytest.mark.real_server
ROUTE = "/api/streams/door/presets"
# a home that is also a name that the page must not take for markup
PRESETS = {"1": "Street", "2": "Gate & <b>yard</b>"}


@pytest.fixture(scope="module")
def camera() -> Iterator[OnvifDevice]:
    picture = Picture("main", "H264", 640, 360, 10, "rtsp://127.0.0.1/main")
    with onvif_device(OnvifDevice([picture], auth="none", presets=PRESETS)) as device:
        yield device


@pytest.fixture(scope="module")
def turning(tmp_path_factory: pytest.TempPathFactory, camera: OnvifDevice) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("turning")
    streams = (
        '[[streams]]\nname = "door"\nsource = "synthetic://street?seed=3&size=160x96&fps=20&live=1"\n'
        f'[streams.ptz]\nhome = "Street"\nonvif = "127.0.0.1:{camera.port}"\nback_s = 2\nsettle_s = 1\n'
    )
    config = config_of(tiny_model(folder / "tiny.onnx"), streams, with_tokens(folder))
    with daemon(folder, config) as running:
        running.wait_for("READY=1")
        running.until(lambda: running.url != "")
        yield running
        assert running.stop() == 0
        assert "Traceback" not in running.text


def is_away(client: httpx.Client) -> bool:
    return bool(client.get("/api/stats").json()["streams"]["door"]["is_away"])


def test_the_camera_turns_and_comes_home_by_itself(turning: Daemon, camera: OnvifDevice) -> None:
    with turning.client() as client:
        assert client.get(ROUTE).json() == {"presets": list(PRESETS.values()), "home": "Street"}
        assert not is_away(client)
        began = len(camera.turned_to)
        assert client.post(ROUTE, json={"preset": PRESETS["2"]}).status_code == 202
        wait_until(lambda: is_away(client))
        refused = client.post(ROUTE, json={"preset": "Roof"})
        assert refused.status_code == 409 and "no preset 'Roof'" in refused.text
        wait_until(lambda: camera.turned_to[began:] == ["2", "1"])
        wait_until(lambda: not is_away(client))
    assert "the camera is home; lines and zones go on" in turning.text


def test_who_may_turn_it_and_no_request_breaks_it(turning: Daemon, camera: OnvifDevice) -> None:
    began, dice = len(camera.turned_to), random.Random(5)
    assert httpx.get(turning.url + ROUTE).status_code == 401
    assert httpx.post(turning.url + ROUTE, json={"preset": "Street"}).status_code == 401
    with turning.client(VIEW_TOKEN) as client:
        assert client.get(ROUTE).status_code == client.post(ROUTE, json={"preset": "Street"}).status_code == 403
    with turning.client() as client:
        assert client.get("/api/streams/nobody/presets").status_code == 404
        assert client.put(ROUTE).status_code == client.delete(ROUTE).status_code == 405
        for body in (b"", b"[]", b"{}", b'{"preset": 1}', b'{"preset": ""}', b"\xff", b"[" * 30_000):
            assert client.post(ROUTE, content=body).status_code == 400
        for _ in range(50):
            body = bytes(dice.randrange(256) for _ in range(dice.randrange(60)))
            assert client.post(ROUTE, content=body).status_code == 400
    assert len(camera.turned_to) == began


def test_the_page_has_a_button_for_each_preset(browser: Any, turning: Daemon, camera: OnvifDevice) -> None:
    browser.get(f"{turning.url}/?token={VIEW_TOKEN}#/camera/door")
    panel = "[aria-label='Turn the camera']"
    wait_until(lambda: "Where to?" in text_of(browser, panel))
    browser.execute_script(f'document.querySelector("{panel} button").click()')
    wait_until(lambda: browser.find_element("css selector", f"{panel} .token-form").is_displayed())
    browser.find_element("css selector", f"{panel} .token-form input").send_keys(TOKEN + "\n")
    wait_until(lambda: PRESETS["2"] in text_of(browser, panel) and "Street (home)" in text_of(browser, panel))
    began = len(camera.turned_to)
    browser.execute_script(f'document.querySelectorAll("{panel} .buttons button")[1].click()')
    wait_until(lambda: camera.turned_to[began:] == ["2"])
    wait_until(lambda: "lines and zones rest" in text_of(browser, panel))
    wait_until(lambda: "lines and zones rest" not in text_of(browser, panel))
    browser.execute_script("sessionStorage.clear()")


def test_a_camera_that_is_away_answers_late_and_does_not_lose_its_way_home(
    turning: Daemon, camera: OnvifDevice
) -> None:
    """Its ONVIF service is gone for a while: it counts as away until it has taken the order."""
    with turning.client() as client:
        presets, camera.presets = camera.presets, {}
        try:
            refused = client.post(ROUTE, json={"preset": "Street"})
            assert refused.status_code == 409 and "does not turn" in refused.text
            # the statistics are collected once in a while
            wait_until(lambda: is_away(client))
            time.sleep(3)
            assert is_away(client)
        finally:
            camera.presets = presets
        wait_until(lambda: not is_away(client))


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"source": "rtsp://10.0.0.2/1", "masks": [[[0.1, 0.1], [0.2, 0.1], [0.2, 0.2]]]}, "masks hide nothing"),
        ({"source": "synthetic://street"}, "expected ptz.onvif"),
    ],
)
def test_what_cannot_be_turned_is_refused(keys: dict[str, Any], words: str) -> None:
    stream = {"name": "door", "ptz": {"home": "Street"}, **keys}
    with pytest.raises(ConfigError, match=words):
        parse_config({"model": {"path": "m.onnx"}, "streams": [stream]}, where="edge.toml")
