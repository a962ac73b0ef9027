"""Event target that posts to an HTTP address, signed as in Standard Webhooks (standardwebhooks.com, version 1.0)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import logging
import ssl
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from edge.addresses.secrets import register_pushed
from edge.addresses.uris import without_keys
from edge.errors import SinkError
from edge.events.delivery import Delivered
from edge.net.timed_http import FAULTS, TimedHttp, target_of

if TYPE_CHECKING:
    from edge.config.events import WebhookSettings
    from edge.events.stored import StoredEvent

log = logging.getLogger(__name__)
# the request itself is wrong and will never be right; everything else may be mended at the other end
REFUSALS = frozenset({400, 406, 410, 411, 413, 414, 415, 422, 431})
MIN_SECRET_BYTES = 16
MAX_ANSWER_BYTES = 1 << 16


class WebhookTarget:
    """Posts one event per request, over one connection as long as it lasts. Redirects are not followed.

    Args:
        settings: of the webhook.
        clock_s: wall clock.
    """

    def __init__(self, settings: WebhookSettings, clock_s: Callable[[], float] = time.time) -> None:
        self.name = settings.name
        self._settings = settings
        self._clock_s = clock_s
        register_pushed(settings.url)
        self._label = without_keys(settings.url)
        self._url = urlsplit(settings.url)
        self._http: TimedHttp | None = None

    def deliver(self, events: Sequence[StoredEvent]) -> Delivered:
        event = events[0]
        status = self._post(event)
        if 200 <= status < 300:
            return Delivered(1)
        if status in REFUSALS:
            log.error("%s: event %s was refused by %s with status %d", self.name, event.id, self._label, status)
            return Delivered(0, 1)
        raise SinkError(f"{self._label} answered with status {status}; expected 200 to 299")

    def keep_alive(self) -> None:
        """HTTP needs nothing between requests."""

    def close(self) -> None:
        if self._http is not None:
            self._http.close()

    def _post(self, event: StoredEvent) -> int:
        body = event.body.encode()
        headers = self._headers(event, body)
        try:
            if self._http is None:
                self._http = TimedHttp(self._settings.url, self._tls())
            target, timeout_s = target_of(self._settings.url), self._settings.timeout_s
            answer = self._http.ask("POST", target, body, headers, timeout_s=timeout_s, max_bytes=MAX_ANSWER_BYTES)
        except FAULTS as error:
            raise SinkError(f"{self._label} cannot be reached ({_reason(error)})") from None
        return answer.status

    def _tls(self) -> ssl.SSLContext | None:
        is_secure = self._url.scheme == "https"
        return ssl.create_default_context(cafile=self._settings.ca_file) if is_secure else None

    def _headers(self, event: StoredEvent, body: bytes) -> dict[str, str]:
        sent_at = str(int(self._clock_s()))
        headers = {
            "content-type": "application/json",
            "user-agent": "edgeloop",
            "webhook-id": event.id,
            "webhook-timestamp": sent_at,
        }
        if self._settings.secret_file is not None:
            headers["webhook-signature"] = signature(secret_in(self._settings.secret_file), event.id, sent_at, body)
        if self._url.username is not None:
            user = f"{unquote(self._url.username)}:{unquote(self._url.password or '')}"
            headers["authorization"] = f"Basic {base64.b64encode(user.encode()).decode()}"
        return headers


def signature(secret: bytes, event_id: str, sent_at: str, body: bytes) -> str:
    """``v1,`` and the base64 of HMAC-SHA256 over ``ID.TIMESTAMP.BODY``."""
    digest = hmac.new(secret, f"{event_id}.{sent_at}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def secret_in(path: Path) -> bytes:
    """The secret of a file: ``whsec_`` and base64, or any text of one line.

    Raises:
        SinkError: it cannot be read, or is too short to be a secret.
    """
    try:
        text = path.read_text(encoding="utf-8").strip()
        secret = base64.b64decode(text[6:], validate=True) if text.startswith("whsec_") else text.encode()
    except OSError as error:
        raise SinkError(f"secret_file: {path} cannot be read ({error.strerror})") from None
    except (binascii.Error, UnicodeDecodeError):
        raise SinkError(f"secret_file: {path}: expected one line of text, or whsec_ and base64") from None
    if len(secret) < MIN_SECRET_BYTES:
        raise SinkError(f"secret_file: {path} holds fewer than {MIN_SECRET_BYTES} bytes; run: openssl rand -hex 32")
    return secret


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    # the text of other errors may hold the address
    return type(error).__name__
