"""The files of the containers: configurations are valid, hold no password, and the add-on asks for its broker."""

from __future__ import annotations

import json
import runpy
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from edge.config.load import load_config
from edge.errors import EdgeError

FOLDER = Path(__file__).parents[2] / "container"
CANARY = "canary-7f3a-password"
BROKER = {"host": "core-mosquitto", "port": 1883, "ssl": False, "username": "addons", "password": CANARY}
OPTIONS = {
    "token": "a-token-of-sixteen-characters",
    "streams": [
        {"name": "door", "source": "rtsp://10.0.0.2/one", "username": "admin", "password": CANARY},
        {"name": "yard", "source": "0"},
    ],
}


@pytest.fixture(scope="module")
def addon() -> dict[str, Any]:
    return runpy.run_path(str(FOLDER / "home-assistant" / "edgeloop" / "run.py"))


@pytest.fixture
def supervisor() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_known = self.headers["authorization"] == "Bearer t" and self.path == "/services/mqtt"
            self.send_response(200 if is_known else 401)
            self.end_headers()
            self.wfile.write(json.dumps({"result": "ok", "data": BROKER}).encode())

        def log_message(self, *arguments: Any) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_the_configuration_of_compose_is_valid_and_asks_for_a_token() -> None:
    config = load_config(FOLDER / "edge.toml")
    assert config.server.host == "0.0.0.0"
    assert config.server.token_file == Path("/run/secrets/token")
    assert config.mqtt[0].host == "mosquitto"


def test_the_addon_makes_a_configuration_of_options_and_broker(
    addon: dict[str, Any], supervisor: str, tmp_path: Path
) -> None:
    path = addon["write_config"](tmp_path, OPTIONS, addon["ask_broker"](supervisor, "t"))
    config = load_config(path)
    assert [(stream.name, stream.source) for stream in config.streams] == [
        ("door", "rtsp://10.0.0.2/one"),
        ("yard", "0"),
    ]
    (broker,) = config.mqtt
    assert (broker.host, broker.username, broker.discovery) == ("core-mosquitto", "addons", "homeassistant")
    assert not broker.commands
    addon["write_config"](tmp_path, {**OPTIONS, "switches": True}, BROKER)
    assert load_config(path).mqtt[0].commands
    assert CANARY not in path.read_text()
    secrets = [config.streams[0].password_file, broker.password_file, config.server.token_file]
    for file in secrets:
        assert file is not None and file.stat().st_mode & 0o777 == 0o600
    assert config.server.host == "0.0.0.0"


@pytest.mark.parametrize(
    ("changed", "words"),
    [({"token": "short"}, "the option token has 5 characters"), ({"streams": []}, "no stream is configured")],
)
def test_an_option_that_is_missing_is_named(
    addon: dict[str, Any], changed: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(EdgeError, match=words):
        addon["write_config"](tmp_path, {**OPTIONS, **changed}, BROKER)


@pytest.mark.parametrize("name", ["Containerfile", "Containerfile.nvidia", "Containerfile.jetson"])
def test_every_image_runs_as_a_user_and_is_asked_for_its_health(name: str) -> None:
    text = (FOLDER / name).read_text()
    last = text[text.rindex("\nFROM ") :]
    for line in ("USER 10001", "HEALTHCHECK", "STOPSIGNAL SIGTERM", 'ENTRYPOINT ["/opt/edge/bin/edge"]'):
        assert line in last
    assert "COPY --from=build" in last
