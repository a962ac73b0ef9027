"""Who may ask the live server for what, and how it starts and stops."""

from __future__ import annotations

import json
import math
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from e2e.live_show import Show, mjpeg_pictures, show, wait_until

from edge.addresses.secrets import register
from edge.errors import SinkError
from edge.server import LiveServer
from edge.server.board import LiveBoard
from edge.server.json_answer import json_bytes

TOKEN = "a-canary-token-7f3a"
ROUTES = [
    "/",
    "/app.js",
    "/api",
    "/api/streams",
    "/api/stats",
    "/api/events/door",
    "/api/feed",
    "/api/results/door",
    "/api/events",
    "/stream/door.mjpeg",
    "/snapshot/door.jpg",
    "/heatmap/door.png",
    "/readyz",
    "/metrics",
]


@pytest.fixture
def door() -> Iterator[Show]:
    with show("door") as running:
        yield running


# access


@pytest.mark.parametrize("route", ROUTES)
def test_every_route_asks_for_the_token(route: str) -> None:
    with show("door", token=TOKEN) as running, running.play():
        refused = httpx.get(running.url + route)
        assert refused.status_code == 401
        assert TOKEN not in refused.text
        assert httpx.get(f"{running.url}{route}?token=wrong").status_code == 401
        headers = {"Authorization": f"Bearer {TOKEN}"}
        with httpx.stream("GET", running.url + route, headers=headers) as accepted:
            assert accepted.status_code == 200
            assert TOKEN not in str(accepted.headers)


def test_the_page_exchanges_the_token_for_a_cookie() -> None:
    with show("door", token=TOKEN) as running, httpx.Client(base_url=running.url) as client:
        answer = client.get(f"/?token={TOKEN}&engine=snapshots")
        assert answer.status_code == 303
        assert answer.headers["location"] == "/?engine=snapshots"
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert TOKEN not in cookie
        assert client.get("/api/streams").status_code == 200
        client.cookies.clear()
        client.cookies.set("edgeloop", "0" * 64)
        assert client.get("/api/streams").status_code == 401


def test_health_needs_no_token() -> None:
    with show("door", token=TOKEN) as running:
        assert httpx.get(f"{running.url}/healthz").text == "ok\n"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("127.0.0.1:8080", 200),
        ("[::1]:8080", 200),
        ("192.168.1.20", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("", 421),
    ],
)
def test_without_a_token_only_addresses_and_localhost_are_served(door: Show, host: str, status: int) -> None:
    assert httpx.get(f"{door.url}/api/streams", headers={"Host": host}).status_code == status


@pytest.mark.parametrize("route", ["/", "/api/streams", "/nothing", "/snapshot/nobody.jpg"])
def test_every_answer_is_closed_to_other_sites(door: Show, route: str) -> None:
    headers = httpx.get(door.url + route, headers={"Origin": "https://evil.example"}).headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "access-control-allow-origin" not in headers
    assert "server" not in headers


@pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.2 is an address of this machine on Linux only")
def test_it_listens_on_one_address_only(door: Show) -> None:
    socket.create_connection(("127.0.0.1", door.port), timeout=2).close()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.2", door.port), timeout=2)


# the rest of the API


def test_the_page_is_complete_and_loads_nothing_from_elsewhere(door: Show) -> None:
    with httpx.Client(base_url=door.url) as client:
        assert "Edgeloop" in client.get("/").text
        for path in (Path(__file__).parents[2] / "edge" / "web").iterdir():
            answer = client.get(f"/{path.name}")
            assert answer.status_code == 200
            assert "//" not in re.sub(r"http://www.w3.org|^\s*//.*$|: //.*$", "", answer.text, flags=re.MULTILINE)


@pytest.mark.parametrize(
    ("route", "status", "words"),
    [
        ("/stream/nobody.mjpeg", 404, "there is no stream 'nobody'; known: door"),
        ("/api/feed?streams=door,nobody", 404, "there is no stream 'nobody'"),
        ("/stream/door.mjpeg?fps=abc", 400, "fps: expected 0 (all) or a number from 0.01 to 240, found 'abc'"),
        ("/stream/door.mjpeg?fps=1e-300", 400, "found '1e-300'"),
        ("/api/feed?fps=1e-300", 400, "found '1e-300'"),
        ("/stream/door.mjpeg?fps=-1", 400, "found '-1'"),
        ("/api/feed?plain=-1", 400, "plain: expected the width of a place on screen, 0 to 99999, found '-1'"),
        ("/api/feed?plain=1e9", 400, "found '1e9'"),
        (f"/api/feed?plain={'9' * 5000}", 400, "plain: expected"),
        ("/stream/door.mjpeg?fps=nan", 400, "found 'nan'"),
        ("/../../etc/passwd", 404, ""),
        ("/%2e%2e/server.py", 404, ""),
    ],
)
def test_wrong_requests_are_told_why(door: Show, route: str, status: int, words: str) -> None:
    answer = httpx.get(door.url + route)
    assert answer.status_code == status
    assert words in answer.text


def test_nothing_can_be_written(door: Show) -> None:
    with httpx.Client(base_url=door.url) as client:
        for route in ROUTES:
            for method in ("POST", "PUT", "DELETE", "PATCH"):
                assert client.request(method, route).status_code == 405


def test_what_is_no_number_is_null_in_every_answer(door: Show) -> None:
    odd = {"accuracy": {"fp32": {"map": math.nan, "ap": [math.inf, -math.inf, 0.5]}}, "size": np.float32(0.5)}
    door.board.add_stream("door", {"model": odd})
    model = json.loads(httpx.get(f"{door.url}/api/streams").text, parse_constant=pytest.fail)["streams"][0]["model"]
    assert model["accuracy"]["fp32"] == {"map": None, "ap": [None, None, 0.5]}
    assert json_bytes({"a": (math.nan, "x")}) == b'{"a": [null, "x"]}'


def test_the_cards_of_streams_hold_no_secret(door: Show) -> None:
    register("two canary words")
    door.board.add_stream("door", {"source": "http://admin:two canary words@cam/1"})
    assert "canary" not in httpx.get(f"{door.url}/api/streams").text


def test_metrics_are_prometheus_text(door: Show) -> None:
    door.cameras[0].publish()
    text = httpx.get(f"{door.url}/metrics").text
    assert 'edgeloop_emitted_fps{stream="door"} 25.0' in text
    assert 'edgeloop_frames_total{stream="door",what="captured"} 1.0' in text
    assert 'edgeloop_stage_ms{stage="infer",stream="door"} 9.0' in text


@pytest.mark.parametrize(("reason", "status"), [(None, 200), ("the engine is being built", 503)])
def test_ready_says_why_not(reason: str | None, status: int) -> None:
    with show("door", not_ready=reason) as running:
        answer = httpx.get(f"{running.url}/readyz")
    assert (answer.status_code, answer.text.strip()) == (status, reason or "ready")


def test_the_api_lists_itself(door: Show) -> None:
    listed = httpx.get(f"{door.url}/api").json()
    assert all(words.endswith(".") for words in listed.values())
    assert set(ROUTES) - {"/", "/app.js"} <= {path.replace("{name}", "door") for path in listed}


# start and stop


def test_a_port_in_use_is_one_sentence(door: Show) -> None:
    other = LiveServer(LiveBoard(), port=door.port)
    with pytest.raises(SinkError, match=f"port {door.port} of 127.0.0.1 is in use by another program; stop it or use"):
        other.start()


def test_a_host_of_another_machine_is_one_sentence() -> None:
    with pytest.raises(SinkError, match=r"cannot listen on 192\.0\.2\.1 .*expected an address of this machine"):
        LiveServer(LiveBoard(), host="192.0.2.1", port=0).start()


def test_stop_ends_open_streams_and_frees_the_port() -> None:
    with show("door") as running, running.play():
        with httpx.stream("GET", f"{running.url}/stream/door.mjpeg") as response:
            pictures = mjpeg_pictures(response)
            next(pictures)
            started = time.monotonic()
            running.server.stop()
            list(pictures)
        assert time.monotonic() - started < 3
        running.server.stop()
        with show("door", port=running.port) as again:
            assert httpx.get(f"{again.url}/healthz").status_code == 200


def test_stop_does_not_wait_for_a_viewer_that_does_not_read() -> None:
    with (
        show("door", size=(1280, 720), is_textured=True) as running,
        socket.create_connection(("127.0.0.1", running.port)) as client,
    ):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(b"GET /stream/door.mjpeg HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_until(lambda: running.board.counts()["door"]["viewers"] == 1)
        with running.play(fps=60):
            wait_until(lambda: running.cameras[0].seq > 60)
        started = time.monotonic()
        running.server.stop()
        assert time.monotonic() - started < 3.5
        assert running.board.counts()["door"]["viewers"] == 0


def test_a_client_that_goes_is_forgotten_even_if_no_picture_comes(door: Show) -> None:
    with socket.create_connection(("127.0.0.1", door.port)) as client:
        client.sendall(b"GET /stream/door.mjpeg HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_until(lambda: door.board.counts()["door"]["viewers"] == 1)
    wait_until(lambda: door.board.counts()["door"]["viewers"] == 0)


def test_the_server_starts_without_the_libraries_that_it_does_not_need() -> None:
    code = (
        "import sys; from edge.server.board import LiveBoard; from edge.server.server import LiveServer\n"
        "server = LiveServer(LiveBoard(), port=0); server.start(); server.stop()\n"
        "print([n for n in ('fastapi', 'prometheus_client', 'av', 'torch', 'onnxruntime') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
