"""Asking a running daemon through its API, for the commands that do."""

from __future__ import annotations

import json
import ssl
from pathlib import Path
from typing import Any

from edge.addresses.secrets import read_secret
from edge.addresses.uris import masked
from edge.errors import EdgeError, UsageError
from edge.files import parse_json
from edge.net.timed_http import FAULTS, TimedHttp, target_of

TIMEOUT_S = 10.0
MAX_ANSWER_BYTES = 16 << 20


class ApiClient:
    """One daemon. Redirects and proxies are not followed: they would be shown the token."""

    def __init__(self, url: str, token_file: Path | None = None, ca_file: Path | None = None) -> None:
        """Args: ``http://127.0.0.1:8080``, the file with the token, the certificate that the server's is checked by."""
        if not url.startswith(("http://", "https://")):
            raise UsageError(f"--url {masked(url)}: expected an address such as http://127.0.0.1:8080")
        self._url = url.rstrip("/")
        self._token = None if token_file is None else read_secret(token_file, "--token-file")
        tls = ssl.create_default_context(cafile=ca_file) if url.startswith("https://") else None
        try:
            self._server = TimedHttp(self._url, tls)
        except ValueError:
            raise UsageError(f"--url {masked(url)}: expected an address such as http://127.0.0.1:8080") from None

    def get(self, path: str) -> Any:
        """The JSON value of a route.

        Raises:
            EdgeError: the daemon cannot be reached, or refuses.
        """
        return self._ask("GET", path, None, {})

    def post(self, path: str, body: Any) -> Any:
        """Send a JSON value; the JSON answer. Raises as ``get``."""
        return self._ask("POST", path, json.dumps(body).encode(), {"content-type": "application/json"})

    def _ask(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Any:
        if self._token is not None:
            headers["authorization"] = f"Bearer {self._token}"
        where, target = masked(self._url), target_of(self._url + path)
        try:
            answer = self._server.ask(method, target, body, headers, timeout_s=TIMEOUT_S, max_bytes=MAX_ANSWER_BYTES)
        except FAULTS as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
            hint = "is the daemon up, and its [server] enabled?"
            raise EdgeError(f"{where} cannot be asked ({reason}); {hint}") from None
        if answer.status >= 300:
            text = answer.body[:500].decode("utf-8", "replace").strip().replace("\n", " ")
            raise EdgeError(f"{where} answered {answer.status}: {text}")
        try:
            return parse_json(answer.body)
        except ValueError:
            raise EdgeError(f"{where} answered what is no JSON; is it an edge?") from None
