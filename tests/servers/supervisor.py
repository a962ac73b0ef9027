"""What an add-on asks of Home Assistant's Supervisor: the broker, for who shows the token."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "t"


@contextmanager
def supervisor(broker: Mapping[str, Any], port: int = 0) -> Iterator[str]:
    """Its address. Args: ``broker``: what it says about the MQTT service."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_known = self.headers["authorization"] == f"Bearer {TOKEN}" and self.path == "/services/mqtt"
            self.send_response(200 if is_known else 401)
            self.end_headers()
            self.wfile.write(json.dumps({"result": "ok", "data": dict(broker)}).encode())

        def log_message(self, *arguments: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
