"""Short texts for addresses: bytes as base64, and a signature that only who has the key can make."""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode

MAX_TEXT_CHARS = 1500
SIGNATURE_BYTES = 16
# of a text by which who got a message is left alone for a while
SNOOZE_PURPOSE = b"edgeloop snooze"


def text_of(data: bytes) -> str:
    """Base64 for addresses, without padding."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def data_of(text: str) -> bytes:
    """The inverse of ``text_of``. Raises: ValueError: it is none."""
    data = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if text_of(data) != text.rstrip("="):
        raise ValueError("no base64 for addresses")
    return data


def signed(data: bytes, key: bytes, purpose: bytes) -> str:
    """The data and its signature for one purpose (HMAC-SHA256, 128 bits) as one text."""
    payload = text_of(data)
    return f"{payload}.{_signature(payload, key, purpose)}"


def signed_data(text: str, key: bytes, purpose: bytes) -> bytes | None:
    """What was signed with this key for this purpose; None where it was not. Wrong ones take the same time."""
    payload, dot, signature = text[:MAX_TEXT_CHARS].partition(".")
    right = _signature(payload, key, purpose)
    if not dot or not hmac.compare_digest(signature.encode(), right.encode()):
        return None
    return data_of(payload)


def _signature(payload: str, key: bytes, purpose: bytes) -> str:
    return text_of(hmac.new(key, purpose + b"\0" + payload.encode(), hashlib.sha256).digest()[:SIGNATURE_BYTES])
