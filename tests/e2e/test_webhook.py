"""Events posted to a real HTTP server: signed, in order, again after failures, and never with a secret in a message."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_until

from edge.config.events import WebhookSettings
from edge.errors import SinkError
from edge.events.delivery import DeliveryWorker
from edge.events.outbox import Outbox
from edge.events.schema import Envelope
from edge.events.stored import StoredEvent
from edge.sinks.webhook import WebhookTarget
from edge.threads.backoff import Backoff

pytestmark = pytest.mark.real_server
EVENT = StoredEvent(1, "id-1", "door", "tick", '{"n":"é"}')


class Server(ThreadingHTTPServer):
    """Answers with the next of ``answers`` (200 when they are used up) and keeps what it got."""

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        self.answers: list[int] = []
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        self.connections: list[socket.socket] = []
        super().__init__(("127.0.0.1", port), Handler)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def get_request(self) -> Any:
        connection, address = super().get_request()
        self.connections.append(connection)
        return connection, address

    def url(self, path: str = "/hook?a=1", login: str = "") -> str:
        return f"http://{login}127.0.0.1:{self.server_address[1]}{path}"

    def end(self) -> None:
        self.shutdown()
        self.server_close()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.got.append((self.path, {key.lower(): value for key, value in self.headers.items()}, body))
        status = self.server.answers.pop(0) if self.server.answers else 200
        self.send_response(status)
        if status == 302:
            self.send_header("location", "http://127.0.0.1:9/elsewhere")
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.end()


def envelope(number: int) -> Envelope:
    return Envelope(f"id-{number}", "tick", "door", time.time_ns(), json.dumps({"n": number}))


def test_a_request_is_signed_as_standard_webhooks_say(server: Server, tmp_path: Path) -> None:
    key = bytes(range(32))
    secret = tmp_path / "secret"
    secret.write_text(f"whsec_{base64.b64encode(key).decode()}\n")
    target = WebhookTarget(WebhookSettings(url=server.url(), secret_file=secret), lambda: 1_795_000_000.9)
    assert target.deliver([EVENT]).num_taken == 1
    target.close()
    path, headers, body = server.got[0]
    assert (path, json.loads(body), headers["webhook-id"]) == ("/hook?a=1", {"n": "é"}, "id-1")
    signed = b"id-1.1795000000." + body
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert headers["content-type"] == "application/json"


@pytest.mark.parametrize("status", [302, 401, 403, 404, 408, 429, 500, 503])
def test_what_may_be_mended_is_tried_again(server: Server, status: int) -> None:
    server.answers = [status]
    target = WebhookTarget(WebhookSettings(url=server.url()))
    with pytest.raises(SinkError, match=f"answered with status {status}"):
        target.deliver([EVENT])
    assert target.deliver([EVENT]).num_taken == 1
    target.close()


def test_a_connection_that_the_server_closed_meanwhile_costs_no_failure(server: Server) -> None:
    target = WebhookTarget(WebhookSettings(url=server.url()))
    for number in range(3):
        assert target.deliver([EVENT]).num_taken == 1
        assert len(server.connections) == number + 1
        server.connections[-1].shutdown(socket.SHUT_RDWR)
    server.end()
    with pytest.raises(SinkError, match="cannot be reached"):
        target.deliver([EVENT])


@pytest.mark.parametrize("status", [400, 413, 422])
def test_what_is_refused_for_good_is_not_tried_again(server: Server, status: int) -> None:
    server.answers = [status]
    target = WebhookTarget(WebhookSettings(url=server.url()))
    assert target.deliver([EVENT]).num_refused == 1
    target.close()


def test_a_server_that_was_away_gets_everything_in_order_over_one_connection(tmp_path: Path) -> None:
    first = Server()
    port = first.server_address[1]
    outbox = Outbox(tmp_path / "e.db", ["webhook"])
    worker = DeliveryWorker(outbox, WebhookTarget(WebhookSettings(url=first.url())), Backoff(base_s=0.02, cap_s=0.1))
    stopping = threading.Event()
    thread = threading.Thread(target=worker.run, args=(stopping,))
    thread.start()
    outbox.put([envelope(n) for n in range(10)])
    wait_until(lambda: len(first.got) == 10)
    assert len(first.connections) == 1
    first.end()
    outbox.put([envelope(n) for n in range(10, 20)])
    wait_until(lambda: worker.counters["failures"] >= 3)
    second = Server(port)
    outbox.put([envelope(n) for n in range(20, 25)])
    wait_until(lambda: len(second.got) == 15)
    stopping.set()
    thread.join(10)
    second.end()
    outbox.close()
    assert [json.loads(body)["n"] for *_, body in (*first.got, *second.got)] == list(range(25))


def test_no_secret_is_in_any_message(tmp_path: Path, caplog: pytest.LogCaptureFixture, server: Server) -> None:
    canary = "canary-91c2"
    secret = tmp_path / "secret"
    secret.write_text(canary * 3)
    server.answers = [500, 400]
    url = server.url(f"/hook?token={canary}", f"{canary}:{canary}@")
    target = WebhookTarget(WebhookSettings(url=url, secret_file=secret))
    messages = []
    with pytest.raises(SinkError) as failed:
        target.deliver([EVENT])
    messages.append(str(failed.value))
    target.deliver([EVENT])
    assert canary.encode() in base64.b64decode(server.got[0][1]["authorization"].split()[1])
    closed = WebhookTarget(WebhookSettings(url=f"http://{canary}:{canary}@127.0.0.1:9/?key={canary}"))
    with pytest.raises(SinkError, match="cannot be reached") as failed:
        closed.deliver([EVENT])
    messages.append(str(failed.value))
    assert "***" in messages[0]
    assert canary not in " ".join([*messages, caplog.text])


def test_a_short_secret_is_refused(tmp_path: Path, server: Server) -> None:
    secret = tmp_path / "secret"
    secret.write_text("short")
    with pytest.raises(SinkError, match="fewer than 16 bytes"):
        WebhookTarget(WebhookSettings(url=server.url(), secret_file=secret)).deliver([EVENT])
    assert not server.got


def test_a_server_that_says_nothing_is_given_up_after_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        began = time.monotonic()
        with pytest.raises(SinkError, match="cannot be reached"):
            WebhookTarget(WebhookSettings(url=url, timeout_s=0.3)).deliver([EVENT])
        assert time.monotonic() - began < 5
