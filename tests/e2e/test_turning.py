"""A camera is turned to its presets from the page of a real daemon; lines and zones rest until it is home."""

# the browser is a fixture of another file
# ruff: noqa: F811

from __future__ import annotations

import json
import random
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from camera_rig import free_port
from daemon_process import COMMAND, TOKEN, VIEW_TOKEN, Daemon, config_of, daemon, with_tokens
from e2e.live_show import wait_until
from e2e.test_page_browser import browser, chromium, text_of  # noqa: F401
from onvif_device import OnvifDevice, Picture, onvif_device
from tiny_models import tiny_model

import edge
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


@pytest.mark.parametrize(("is_there", "workers"), [(True, 1), (False, 1), (True, 2)])
def test_an_event_turns_the_camera_once_until_it_has_cooled_down(tmp_path: Path, is_there: bool, workers: int) -> None:
    """Another camera's line is crossed all the time. A camera that does not answer is told of, and costs nothing."""
    lines = '[[streams.analytics.lines]]\nname = "kerb"\npoints_share = [[0.5, 0.0], [0.5, 1.0]]\n'
    street = "synthetic://street?seed=3&size=320x192&fps=20&live=1&objects=8"
    picture = Picture("main", "H264", 640, 360, 10, "rtsp://127.0.0.1/main")
    with onvif_device(OnvifDevice([picture], auth="none", presets=PRESETS)) as device:
        port = device.port if is_there else free_port()
        streams = (
            f'[[streams]]\nname = "door"\nsource = "{street}"\n[streams.ptz]\nhome = "Street"\n'
            f'onvif = "127.0.0.1:{port}"\nback_s = 1\nsettle_s = 0\ncool_down_s = 6\n'
            f'on_event = [{{ event = "line_crossed", stream = "yard", name = "kerb", preset = "{PRESETS["2"]}" }}]\n'
            f'[[streams]]\nname = "yard"\nsource = "{street}"\n{lines}'
        )
        more = f"[workers]\ncount = {workers}\nspare = false\n"
        model = Path(edge.__file__).parent / "models" / "street-nano-int8.onnx"
        with daemon(tmp_path, config_of(model, streams, with_tokens(tmp_path), more)) as running:
            running.wait_for("READY=1")
            if is_there:
                running.until(lambda: device.turned_to[:3] == ["2", "1", "2"], 60)
                running.until(lambda: running.text.count("the camera turns to 'Gate") == 2)
                running.until(lambda: device.turned_to[:4] == ["2", "1", "2", "1"])
                with running.client() as client:
                    # by hand, where a worker has the stream
                    wait_until(lambda: not is_away(client))
                    assert client.post(ROUTE, json={"preset": PRESETS["2"]}).status_code == 202
                    wait_until(lambda: is_away(client))
                    wait_until(lambda: not is_away(client))
            else:
                running.until(lambda: "line_crossed does not turn the camera" in running.text, 60)
                with running.client() as client:
                    assert not is_away(client)
                    before = client.get("/api/stats").json()["streams"]["yard"]["counts"]["emitted"]
                    wait_until(
                        lambda: client.get("/api/stats").json()["streams"]["yard"]["counts"]["emitted"] > before + 40
                    )
            assert running.stop() == 0
            assert "Traceback" not in running.text


def test_edge_check_asks_the_camera_for_its_presets(tmp_path: Path, camera: OnvifDevice) -> None:
    model = tiny_model(tmp_path / "tiny.onnx")
    for home, words in (
        ("Street", "2 presets, home 'Street'"),
        ("Roof", "the camera has no preset 'Roof'; known: Street"),
    ):
        stream = (
            f'[[streams]]\nname = "door"\nsource = "synthetic://street?size=160x96"\n[streams.ptz]\nhome = "{home}"\n'
        )
        config = tmp_path / f"{home}.toml"
        config.write_text(f'[model]\npath = "{model}"\n{stream}onvif = "127.0.0.1:{camera.port}"\n')
        said = subprocess.run([*COMMAND, "check", str(config), "--json"], capture_output=True, text=True, check=False)
        (row,) = [row for row in json.loads(said.stdout) if row["kind"] == "presets"]
        assert words in row["detail"] and row["result"] == ("ok" if home == "Street" else "failed")


GATE = {"name": "gate", "points_share": [[0.1, 0.1], [0.9, 0.1], [0.9, 0.9]]}


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"event": "zone_entered", "name": "gate", "preset": "Gate"}, ""),
        ({"event": "zone_entered", "preset": "Gate"}, ""),
        (
            {"event": "zone_entered", "name": "roof", "preset": "Gate"},
            "has no zone 'roof' for zone_entered; known: ga",
        ),
        ({"event": "line_crossed", "preset": "Gate"}, "has no line '' for line_crossed; known: none"),
        ({"event": "zone_entered", "stream": "yard", "preset": "Gate"}, "no stream is called 'yard'; known: door"),
        ({"event": "zone_entered", "preset": "Street"}, "finds the camera at its home, 'Street'"),
        ({"event": "loud", "preset": "Gate"}, "nobody asks how loud 'door' is"),
        ({"event": "loud", "name": "gate", "preset": "Gate"}, "loud is of no line, zone or class"),
        ({"event": "camera_frozen", "preset": "Gate"}, "event"),
    ],
)
def test_what_cannot_happen_turns_no_camera(rule: dict[str, Any], words: str) -> None:
    ptz = {"home": "Street", "on_event": [rule]}
    stream = {"name": "door", "source": "rtsp://10.0.0.2/1", "ptz": ptz, "analytics": {"zones": [GATE]}}
    raw = {"model": {"path": "m.onnx"}, "streams": [stream]}
    if words:
        with pytest.raises(ConfigError, match=re.escape(words)):
            parse_config(raw, where="edge.toml")
    else:
        parse_config(raw, where="edge.toml")


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
