"""A push service over HTTPS with browsers behind it: checks who sends (RFC 8292), decrypts (RFC 8291), keeps messages.

What it checks with is not ours: py-vapid for the signature, http-ece for the content.
"""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
import ssl
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import http_ece
import py_vapid
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edge.net.signed import data_of, text_of
from edge.net.webpush import public_of

MAX_BODY_BYTES = 4096
DAY_S = 86_400


@dataclass
class Browser:
    """A subscription: its address, its keys, and the messages that came, as JSON."""

    endpoint: str
    private: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    auth: bytes = field(default_factory=lambda: os.urandom(16))
    got: list[dict[str, Any]] = field(default_factory=list)

    def subscription(self, name: str = "") -> dict[str, Any]:
        """As the page sends it."""
        keys = {"p256dh": text_of(public_of(self.private)), "auth": text_of(self.auth)}
        return {"endpoint": self.endpoint, "expirationTime": None, "keys": keys, "name": name}


@dataclass(frozen=True)
class Answer:
    """What the service answers with; ``stalls_s``: after so long."""

    status: int = 201
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    stalls_s: float = 0.0


class PushServer(ThreadingHTTPServer):
    """Answers with the next of ``answers`` (201 when they are used up); a message counts only where that is a 2xx.

    Attributes:
        ca_file: the certificate, which is its own authority.
        requests: paths and headers (small letters) of everything that was asked.
        faults: what was wrong with a request.
        gone_status: the answer for a browser that is not there.
    """

    daemon_threads = True

    def __init__(self, folder: Path, contact: str = "mailto:me@example.org") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.ca_file = folder / "push-ca.pem"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(_certificate(self.ca_file))
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.contact = contact
        self.browsers: dict[str, Browser] = {}
        self.answers: list[Answer] = []
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.faults: list[str] = []
        self.gone_status = 410
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def origin(self) -> str:
        return f"https://127.0.0.1:{self.server_address[1]}"

    def browser(self, name: str = "phone") -> Browser:
        """One more browser that takes messages."""
        path = f"/send/{name}-{os.urandom(6).hex()}"
        return self.browsers.setdefault(path, Browser(self.origin + path))

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed is none of ours."""

    def end(self) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: PushServer

    def do_POST(self) -> None:
        headers = {key.lower(): value for key, value in self.headers.items()}
        self.server.requests.append((self.path, headers))
        body = self.rfile.read(int(headers["content-length"]))
        browser = self.server.browsers.get(self.path)
        answer = self.server.answers.pop(0) if self.server.answers else Answer()
        if browser is None:
            answer = Answer(self.server.gone_status)
        else:
            try:
                _check(headers, body, self.server)
                message = json.loads(http_ece.decrypt(body, private_key=browser.private, auth_secret=browser.auth))
            except (AssertionError, ValueError, KeyError, http_ece.ECEException) as error:
                self.server.faults.append(f"{type(error).__name__}: {error}")
                answer = Answer(400)
            else:
                if 200 <= answer.status < 300:
                    browser.got.append(message)
        time.sleep(answer.stalls_s)
        self.send_response(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        self.send_header("content-length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        pass


def _check(headers: dict[str, str], body: bytes, server: PushServer) -> None:
    """What a push service refuses to take. Raises: AssertionError."""
    assert headers["content-encoding"] == "aes128gcm"
    assert len(body) <= MAX_BODY_BYTES, f"{len(body)} bytes"
    assert 0 <= int(headers["ttl"]) <= 28 * DAY_S
    assert headers["urgency"] in ("very-low", "low", "normal", "high")
    assert len(headers["topic"]) <= 32 and len(data_of(headers["topic"])) == 24
    assert py_vapid.Vapid02.verify(headers["authorization"]), "not signed by the key that it shows"
    claims = json.loads(data_of(headers["authorization"].partition("t=")[2].split(".")[1]))
    assert claims["aud"] == server.origin, f"for {claims['aud']}"
    assert 0 < claims["exp"] - time.time() <= DAY_S, "it expires at another time"
    assert claims["sub"] == server.contact


def vapid_key(headers: dict[str, str]) -> str:
    """The public key of who sent."""
    return headers["authorization"].partition("k=")[2]


def _certificate(path: Path) -> Path:
    """Key and certificate of 127.0.0.1 in one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "push service of the tests")])
    now = datetime.datetime.now(datetime.timezone.utc)
    day = datetime.timedelta(days=1)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(private + certificate.public_bytes(pem))
    return path


def host_of(server: PushServer) -> str:
    """What ``push_hosts`` names."""
    return urlsplit(server.origin).hostname or ""
