"""Asking a running daemon through its API, for the commands that do."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from edge.addresses.secrets import read_secret
from edge.addresses.uris import masked
from edge.errors import EdgeError, UsageError

TIMEOUT_S = 10.0


class ApiClient:
    """One daemon. Redirects and proxies are not followed: they would be shown the token."""

    def __init__(self, url: str, token_file: Path | None = None, ca_file: Path | None = None) -> None:
        """Args: ``http://127.0.0.1:8080``, the file with the token, the certificate that the server's is checked by."""
        if not url.startswith(("http://", "https://")):
            raise UsageError(f"--url {masked(url)}: expected an address such as http://127.0.0.1:8080")
        self._url = url.rstrip("/")
        self._token = None if token_file is None else read_secret(token_file, "--token-file")
        handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({}), _NoRedirect()]
        if url.startswith("https://"):
            handlers.append(urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=ca_file)))
        self._opener = urllib.request.build_opener(*handlers)

    def get(self, path: str) -> Any:
        """The JSON value of a route.

        Raises:
            EdgeError: the daemon cannot be reached, or refuses.
        """
        return self._ask(urllib.request.Request(self._url + path))

    def post(self, path: str, body: Any) -> Any:
        """Send a JSON value; the JSON answer. Raises as ``get``."""
        request = urllib.request.Request(self._url + path, json.dumps(body).encode(), method="POST")
        request.add_header("content-type", "application/json")
        return self._ask(request)

    def _ask(self, request: urllib.request.Request) -> Any:
        if self._token is not None:
            request.add_header("authorization", f"Bearer {self._token}")
        where = masked(self._url)
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            text = error.read(500).decode("utf-8", "replace").strip().replace("\n", " ")
            raise EdgeError(f"{where} answered {error.code}: {text}") from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise EdgeError(
                f"{where} cannot be asked ({reason}); is the daemon up, and its [server] enabled?"
            ) from None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None
