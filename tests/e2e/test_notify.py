"""Messages through Apprise to real servers, SMTP and ntfy's HTTP: with pictures, and never with a secret."""

from __future__ import annotations

import email
import email.policy
import json
import socket
import threading
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

import cv2
import numpy as np
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from daemon_process import config_of, daemon, with_tokens
from message_server import MessageServer

from edge.commands.check_ends import check_ends
from edge.config.events import NotifySettings
from edge.config.load import load_config
from edge.errors import SinkError
from edge.events.message import Message
from edge.sinks.notify import NotifyTarget

pytestmark = [
    pytest.mark.real_server,
    pytest.mark.filterwarnings("ignore:Requiring AUTH", "ignore:Session.login_data"),
]
PICTURE = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 20 + b"\xff\xd9"
CANARY = "canary-5d1e77"
MODEL = Path(__file__).parents[2] / "edge" / "models" / "street-nano-int8.onnx"


class Mailbox:
    """An SMTP server with a login, and the messages it took."""

    def __init__(self) -> None:
        self.got: list[EmailMessage] = []
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.controller = Controller(
            self,
            hostname="127.0.0.1",
            port=self.port,
            authenticator=self._login,
            auth_require_tls=False,
            auth_required=True,
        )
        self.controller.start()

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        message = email.message_from_bytes(envelope.content or b"", policy=email.policy.default)
        assert isinstance(message, EmailMessage)
        self.got.append(message)
        return "250 OK"

    def _login(self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
        is_right = isinstance(data, LoginPassword) and data.password == CANARY.encode()
        return AuthResult(success=is_right, handled=is_right)


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    running = Mailbox()
    yield running
    running.controller.stop(no_assert=True)


@pytest.fixture
def server() -> Iterator[MessageServer]:
    running = MessageServer()
    yield running
    running.end()


def target(folder: Path, url: str, **more: Any) -> NotifyTarget:
    (folder / "url").write_text(f"{url}\n")
    return NotifyTarget(NotifySettings(url_file=folder / "url", **more))


def message(folder: Path, words: str = "door person 7: zone entered yard") -> Message:
    (folder / "e.jpg").write_bytes(PICTURE)
    return Message("m-1", "door: 2 events", words, folder / "e.jpg")


def refused(service: NotifyTarget, sent: Message, stopping: threading.Event) -> None:
    with pytest.raises(SinkError):
        service.send(sent, stopping)


def test_an_e_mail_arrives_with_its_picture(tmp_path: Path, mailbox: Mailbox) -> None:
    url = f"mailto://me:{CANARY}@127.0.0.1:{mailbox.port}/?smtp=127.0.0.1&from=edge@example.com&to=me@example.com"
    target(tmp_path, url).send(message(tmp_path), threading.Event())
    (mail,) = mailbox.got
    assert "door: 2 events" in mail["subject"]
    assert "edge@example.com" in mail["from"]
    attached = list(mail.iter_attachments())
    assert [part.get_content() for part in attached] == [PICTURE]
    body = mail.get_body()
    assert body is not None
    assert "door person 7: zone entered yard" in body.get_content()
    assert "apprise" not in body.get_content().lower()


def test_a_wrong_login_is_told_without_the_password(tmp_path: Path, mailbox: Mailbox) -> None:
    url = f"mailto://me:{CANARY}-wrong@127.0.0.1:{mailbox.port}/?smtp=127.0.0.1&from=e@example.com&to=me@example.com"
    with pytest.raises(SinkError, match="mailto: the message was not taken") as failed:
        target(tmp_path, url).send(message(tmp_path), threading.Event())
    assert CANARY not in str(failed.value)
    assert not mailbox.got


def test_ntfy_gets_title_text_and_picture(tmp_path: Path, server: MessageServer) -> None:
    target(tmp_path, f"ntfy://{CANARY}@127.0.0.1:{server.port}/yard").send(message(tmp_path), threading.Event())
    (got,) = server.got
    assert got.headers["authorization"].startswith("Bearer") or got.headers["authorization"].startswith("Basic")
    assert PICTURE in got.body
    assert "yard" in got.path
    asked = got.path + json.dumps(got.headers)
    assert "apprise.png" not in asked


def test_a_message_without_picture_is_sent_where_none_is_wanted_or_it_is_gone(
    tmp_path: Path, server: MessageServer
) -> None:
    url = f"ntfy://127.0.0.1:{server.port}/yard"
    target(tmp_path, url, picture=False).send(message(tmp_path), threading.Event())
    (tmp_path / "e.jpg").unlink()
    target(tmp_path, url).send(Message("m", "title", "words", tmp_path / "e.jpg"), threading.Event())
    facts = [json.loads(got.body) for got in server.got]
    assert [(one["topic"], one["title"]) for one in facts] == [("yard", "door: 2 events"), ("yard", "title")]


@pytest.mark.parametrize("status", [302, 401, 404, 429, 500])
def test_what_is_not_taken_is_told_and_can_be_sent_again(tmp_path: Path, server: MessageServer, status: int) -> None:
    server.answers = [status]
    service = target(tmp_path, f"json://u:{CANARY}@127.0.0.1:{server.port}/{CANARY}")
    with pytest.raises(SinkError, match="json: the message was not taken") as failed:
        service.send(message(tmp_path), threading.Event())
    assert CANARY not in str(failed.value)
    service.send(message(tmp_path), threading.Event())
    assert len(server.got) == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"nothing{CANARY}://x", "nothing\\*\\*\\*|not understood"),
        (f"{CANARY}", "expected an Apprise address"),
        ("", "fewer than 1"),
        (f"file:///etc/passwd?{CANARY}", "not understood"),
    ],
)
def test_a_wrong_address_is_told_without_what_stands_in_it(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(SinkError, match=expected) as failed:
        target(tmp_path, text).send(message(tmp_path), threading.Event())
    assert f"//{CANARY}" not in str(failed.value)


def test_edge_check_tries_a_service_and_sends_nothing(tmp_path: Path, server: MessageServer) -> None:
    (tmp_path / "url").write_text(f"ntfy://{CANARY}@127.0.0.1:{server.port}/yard")
    (tmp_path / "away").write_text(f"ntfy://{CANARY}@127.0.0.1:9/yard")
    (tmp_path / "edge.toml").write_text(
        f'state_dir = "{tmp_path}"\n[model]\npath = "m.onnx"\n[[streams]]\nname = "door"\nsource = "synthetic://street"\n'
        f'[[notify]]\nname = "phone"\nurl_file = "{tmp_path}/url"\n'
        f'[[notify]]\nname = "away"\nurl_file = "{tmp_path}/away"\n[server]\nenabled = false\n'
    )
    rows = [row for row in check_ends(load_config(tmp_path / "edge.toml")) if row["kind"] == "message"]
    assert [(row["name"], row["result"]) for row in rows] == [("phone", "ok"), ("away", "failed")]
    assert "cannot be reached" in rows[1]["detail"]
    assert CANARY not in str(rows)
    assert not server.got


def test_the_address_is_in_no_process_list(tmp_path: Path) -> None:
    """The child that sends is looked at while a server keeps it waiting, and ends when it is to stop."""
    stopping = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        service = target(tmp_path, f"json://u:{CANARY}@127.0.0.1:{silent.getsockname()[1]}/", timeout_s=60)
        sending = threading.Thread(target=lambda: refused(service, message(tmp_path), stopping))
        sending.start()
        connection, _ = silent.accept()
        seen = b""
        for process in Path("/proc").glob("[0-9]*"):
            for name in ("cmdline", "environ"):
                try:
                    text = (process / name).read_bytes()
                except OSError:
                    continue
                if b"notify_child" in text:
                    seen += text
        assert b"notify_child" in seen
        assert CANARY.encode() not in seen
        stopping.set()
        sending.join(20)
        connection.close()
        assert not sending.is_alive()


def test_a_daemon_tells_of_what_its_camera_sees_with_the_masked_picture(tmp_path: Path, server: MessageServer) -> None:
    (tmp_path / "url").write_text(f"ntfy://127.0.0.1:{server.port}/yard")
    streams = (
        '[[streams]]\nname = "door"\nsource = "synthetic://street?seed=3&size=640x360&fps=10&live=1"\n'
        "masks = [[[0.0, 0.0], [0.4, 0.0], [0.4, 0.9], [0.0, 0.9]]]\n"
        '[[streams.analytics.zones]]\nname = "whole"\npoints_share = [[0, 0], [1, 0], [1, 1], [0, 1]]\n'
    )
    more = (
        f'state_dir = "{tmp_path}/state"\nstop_timeout_s = 8\n[events]\nsnapshots = "{tmp_path}/shots"\n'
        f'[[notify]]\nurl_file = "{tmp_path}/url"\njoin_s = 1\ncool_down_s = 3600\n'
    )
    config = config_of(MODEL, streams, with_tokens(tmp_path), more)
    with daemon(tmp_path, config) as running:
        running.wait_for("READY=1")
        running.until(lambda: bool(server.got), 60)
        with running.client() as client:

            def told() -> dict[str, Any]:
                facts: dict[str, Any] = client.get("/api/stats").json()["events"]["targets"]["notify"]
                return facts

            running.until(lambda: told().get("messages") == 1, 30)
            assert told()["error"] == ""
        assert str(server.port) not in running.text
    (got,) = server.got
    assert "zone entered whole" in unquote_plus(got.path + json.dumps(got.headers))
    picture = cv2.imdecode(np.frombuffer(got.body, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    assert picture.shape == (360, 640, 3)
    # the one colour of masks, except for what JPEG smears
    assert np.ptp(picture[100:250, 10:200]) <= 2
