"""A message service as ntfy's: takes JSON and files over HTTP, and keeps what it got."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Got:
    """A request: method, path with query, headers in small letters, body."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class MessageServer(ThreadingHTTPServer):
    """Answers with the next of ``answers`` (200 when they are used up)."""

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        self.answers: list[int] = []
        self.got: list[Got] = []
        super().__init__(("127.0.0.1", port), _Handler)
        self.port = int(self.server_address[1])
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed is none of ours."""

    def end(self) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: MessageServer

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {key.lower(): value for key, value in self.headers.items()}
        self.server.got.append(Got(self.command, self.path, headers, body))
        self.send_response(self.server.answers.pop(0) if self.server.answers else 200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    do_PUT = do_POST  # noqa: N815

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        pass
