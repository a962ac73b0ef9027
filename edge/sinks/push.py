"""Tells a phone what happened by Web Push: encrypted for it, over its push service, which is not trusted.

Weighed: pywebpush (MPL-2.0) posts with requests, without a deadline for the whole answer, and follows redirects; it
brings aiohttp, requests and py-vapid. What it would save here is ``edge.net.webpush``.
"""

from __future__ import annotations

import base64
import email.utils
import hashlib
import json
import logging
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edge.addresses.networks import is_public
from edge.config.events import PUSH_HOSTS
from edge.errors import SinkError
from edge.events.joined_delivery import LaterError
from edge.files import read_regular, set_aside, write_atomic
from edge.net.signed import data_of
from edge.net.timed_http import FAULTS, Answer, TimedHttp, target_of
from edge.net.webpush import authorization, encrypted

if TYPE_CHECKING:
    from edge.config.events import NotifySettings
    from edge.events.message import Message
    from edge.events.phones import Phone

log = logging.getLogger(__name__)
MAX_KEY_FILE_BYTES = 4096
# what the push service must carry, with room for what encrypting adds
MAX_PAYLOAD_BYTES = 3000
MAX_ANSWER_BYTES = 4096
# the browser has taken its subscription back (RFC 8030, 7.3)
GONE = (404, 410)
MAX_WAIT_S = 6 * 3600.0
# a push service keeps nothing for longer than four weeks
MAX_TTL_S = 28 * 86_400
# how long before an event its recording is shown
LEAD_S = 3


def load_or_make_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The key that signs what this device sends, made at its first use, in a file that only its owner reads.

    Raises:
        SinkError: the file cannot be read or made.
    """
    try:
        if not path.exists():
            return _made(path)
        key = serialization.load_pem_private_key(read_regular(path, MAX_KEY_FILE_BYTES), None)
    except OSError as error:
        raise SinkError(f"{path}: the key of messages to phones cannot be kept ({error.strerror})") from None
    except (ValueError, TypeError):
        key = None
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    # phones must subscribe again, which the page does when it is opened
    set_aside(path, "no key of P-256")
    return _made(path)


def _made(path: Path) -> ec.EllipticCurvePrivateKey:
    key = ec.generate_private_key(ec.SECP256R1())
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    try:
        write_atomic(path, key.private_bytes(*form), mode=0o600)
    except OSError as error:
        raise SinkError(f"{path}: the key of messages to phones cannot be kept ({error.strerror})") from None
    return key


class PushTarget:
    """Sends messages to one phone.

    Args:
        name: of the target.
        phone: its subscription.
        settings: of the messages.
        key: signs who sends.
        offer: gives the text with which the phone may ask for silence.
        on_gone: told when the phone does not take messages any more.
        clock_s: since 1970.
    """

    def __init__(
        self,
        name: str,
        phone: Phone,
        settings: NotifySettings,
        key: ec.EllipticCurvePrivateKey,
        offer: Callable[[Message], str],
        on_gone: Callable[[Phone], None],
        clock_s: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self._phone = phone
        self._settings = settings
        self._key = key
        self._offer = offer
        self._on_gone = on_gone
        self._clock_s = clock_s
        self._http: TimedHttp | None = None

    def send(self, message: Message, stopping: threading.Event) -> None:
        """Send it. Raises: SinkError: the push service did not take it, ``LaterError``: it says when to try again."""
        answer = self._post(message)
        label = self._phone.host
        if 200 <= answer.status < 300:
            return
        if answer.status in GONE:
            log.info("%s: this phone takes no messages any more", label)
            self._on_gone(self._phone)
            raise SinkError(f"{label}: this phone takes no messages any more")
        after_s = _retry_after_s(answer, self._clock_s())
        if after_s:
            raise LaterError(f"{label} answered with status {answer.status}: not before {after_s:.0f} s", after_s)
        raise SinkError(f"{label} answered with status {answer.status}; expected 200 to 299")

    def abort(self) -> None:
        """End a request that another thread waits for."""
        if (http := self._http) is not None:
            http.abort()

    def _post(self, message: Message) -> Answer:
        phone, settings = self._phone, self._settings
        body = encrypted(payload_of(message, self._offer(message), has_picture=settings.picture), *_keys(phone))
        assert settings.contact is not None
        headers = {
            "content-encoding": "aes128gcm",
            "content-type": "application/octet-stream",
            "ttl": str(int(min(settings.give_up_h * 3600, MAX_TTL_S))),
            "urgency": "high",
            # while the phone is away, a message that is sent again takes the place of itself
            "topic": base64.urlsafe_b64encode(hashlib.sha256(message.id.encode()).digest()[:24]).decode(),
            "authorization": authorization(self._key, phone.endpoint, settings.contact, self._clock_s()),
        }
        # the browsers' makers have no server in this network; others stand in the configuration
        is_allowed = is_public if _is_of_a_maker(phone.host) else lambda address: True
        try:
            self._http = TimedHttp(phone.endpoint, ssl.create_default_context(cafile=settings.push_ca_file), is_allowed)
            target, timeout_s = target_of(phone.endpoint), settings.timeout_s
            return self._http.ask("POST", target, body, headers, timeout_s=timeout_s, max_bytes=MAX_ANSWER_BYTES)
        except FAULTS as error:
            # the text of other errors may hold the address
            reason = error.strerror or type(error).__name__ if isinstance(error, OSError) else type(error).__name__
            raise SinkError(f"{phone.host} cannot be reached ({reason})") from None
        finally:
            if self._http is not None:
                self._http.close()


def payload_of(message: Message, offer: str, *, has_picture: bool) -> bytes:
    """What the page's service worker reads: JSON of at most 3,000 bytes; the text gives way."""
    facts = {
        "id": message.id,
        "title": message.title,
        "at": message.time,
        "open": _place(message),
        "picture": f"snapshots/{message.picture.name}" if has_picture and message.picture is not None else "",
        "snooze": offer,
    }
    text = message.body
    while True:
        data = json.dumps({**facts, "body": text}, ensure_ascii=False).encode()
        if len(data) <= MAX_PAYLOAD_BYTES or not text:
            return data
        text = text[: -max(1, (len(data) - MAX_PAYLOAD_BYTES) // 4)]


def _place(message: Message) -> str:
    """Where the page shows what happened."""
    place = f"#/recordings/{quote(message.stream, safe='')}" if message.stream else "#/"
    with suppress(ValueError, OverflowError):
        at_s = datetime.fromisoformat(message.time.replace("Z", "+00:00")).timestamp()
        place += f"?t={int(at_s) - LEAD_S}"
    return place


def _keys(phone: Phone) -> tuple[bytes, bytes]:
    return data_of(phone.p256dh), data_of(phone.auth)


def _is_of_a_maker(host: str) -> bool:
    return any(host.endswith(one[1:]) if one.startswith("*.") else host == one for one in PUSH_HOSTS)


def _retry_after_s(answer: Answer, now_s: float) -> float:
    """What a push service asks for, in seconds or as a time; 0 where it asks for nothing that makes sense."""
    text = answer.headers.get("retry-after", "").strip()[:64]
    if text.isascii() and text.isdecimal():
        return min(float(text), MAX_WAIT_S)
    with suppress(ValueError, TypeError, OverflowError):
        return min(max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now_s), MAX_WAIT_S)
    return 0.0
