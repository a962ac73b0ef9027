"""What every answer of the server carries, and those that are given before a request is read to its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus

OPEN_PATHS = frozenset({"/healthz"})
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; img-src 'self' blob: data:; media-src 'self'; style-src 'self'; script-src 'self'; "
        "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    # other sites can neither read nor embed what this one shows
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
# for HTTPS; the certificate may be one that a device made for itself, so other names of the domain are left out
SECURE_HEADERS = {"strict-transport-security": "max-age=31536000"}
CLOSE = {"connection": "close"}
NO_TOKEN = "a token is needed: open /?token=… or send Authorization: Bearer …\n"
NO_LOGIN = "a login is needed: open / or send Authorization: Bearer …\n"


def needed(*, has_users: bool) -> str:
    """What is said to who shows nothing that is right."""
    return NO_LOGIN if has_users else NO_TOKEN


def raw_answer(
    status: int, words: str, more: Mapping[str, str], *, is_secure: bool, cookies: Sequence[str] = ()
) -> bytes:
    """A whole HTTP answer as plain text, after which the connection ends."""
    body = words.encode()
    headers = {
        "content-type": "text/plain; charset=utf-8",
        "content-length": str(len(body)),
        "cache-control": "no-store",
        **CLOSE,
        **HEADERS,
        **(SECURE_HEADERS if is_secure else {}),
        **more,
    }
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{name}: {value}" for name, value in headers.items())]
    lines += [f"set-cookie: {cookie}" for cookie in cookies]
    return "\r\n".join([*lines, "", ""]).encode() + body
