"""A server that other machines can reach shows nothing without a token, unless the configuration says it."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import httpx
import pytest
from daemon_process import VIEW_TOKEN

from edge.config.load import parse_config
from edge.daemon.credentials import with_secrets
from edge.errors import ConfigError
from edge.server import LiveServer
from edge.server.access import Access
from edge.server.board import LiveBoard

ROUTES = ["/", "/api/stats", "/api/streams", "/snapshot/door.jpg", "/metrics", "/healthz"]


def config(**server: Any) -> dict[str, Any]:
    streams = [{"name": "door", "source": "synthetic://street"}]
    return {"model": {"path": "m.onnx"}, "streams": streams, "server": {"enabled": True, **server}}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "fe80::1", "device.local"])
def test_a_host_that_others_reach_needs_a_token(host: str) -> None:
    words = "lets other machines see the cameras, so a token_file is expected; write allow_anyone = true"
    with pytest.raises(ConfigError, match=words):
        parse_config(config(host=host), where="edge.toml")
    assert parse_config(config(host=host, token_file="token"), where="edge.toml").server.host == host
    assert parse_config(config(host=host, allow_anyone=True), where="edge.toml").server.allow_anyone
    assert parse_config(config(host=host, enabled=False), where="edge.toml").server.host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.7", "::1", "localhost"])
def test_this_machine_alone_needs_none(host: str) -> None:
    assert parse_config(config(host=host), where="edge.toml").server.host == host


def test_anyone_and_a_token_contradict_each_other() -> None:
    with pytest.raises(ConfigError, match="allow_anyone = true and a token_file contradict each other"):
        parse_config(config(host="0.0.0.0", allow_anyone=True, token_file="token"), where="edge.toml")


@pytest.mark.parametrize("key", ["token_file", "view_token_file"])
def test_a_token_that_could_be_guessed_is_refused(key: str, tmp_path: Path) -> None:
    (tmp_path / "short").write_text("only-21-characters-ab")
    (tmp_path / "long").write_text(VIEW_TOKEN)
    files = {"token_file": tmp_path / "long", key: tmp_path / "short"}
    with pytest.raises(ConfigError, match=f"server.{key}: .*short holds fewer than 22 characters; run: openssl rand"):
        with_secrets(parse_config(config(**files), where="edge.toml"))


def own_address() -> str:
    """An address of this machine that is not loopback; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but loopback")
        return str(probe.getsockname()[0])


@pytest.mark.parametrize(
    ("access", "expected"),
    [(Access(), {403}), (Access(allow_anyone=True), {200, 503}), (Access(VIEW_TOKEN), {200, 401})],
)
def test_who_asks_from_another_address_is_refused_without_a_token(access: Access, expected: set[int]) -> None:
    address = own_address()
    board = LiveBoard()
    board.add_stream("door", {})
    # also where a program starts the server past the configuration
    server = LiveServer(board, host="0.0.0.0", port=0, access=access, max_peers=0)
    _, port = server.start()
    try:
        found = {route: httpx.get(f"http://{address}:{port}{route}").status_code for route in ROUTES}
    finally:
        server.stop()
    assert set(found.values()) == expected, found
    assert found["/snapshot/door.jpg"] != 200
