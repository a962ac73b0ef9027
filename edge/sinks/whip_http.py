"""The HTTP side of WHIP: one request, with a limit on its time and its answer."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from edge.errors import SinkError

MAX_ANSWER_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class Answer:
    """``location`` is absolute, or empty; on another host it would get the token, so it is left out."""

    status: int
    body: str
    location: str


def ask(method: str, url: str, body: str, headers: Mapping[str, str], timeout_s: float) -> Answer:
    """Send a request and read its answer. Redirects are not followed: they would take the token elsewhere.

    Raises:
        SinkError: the host cannot be reached, or what it says is no HTTP.
    """
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    if secure:
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            parts.hostname or "", parts.port, timeout=timeout_s, context=ssl.create_default_context()
        )
    else:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout_s)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request(method, target, body.encode(), {"user-agent": "edgeloop", **headers})
        answer = connection.getresponse()
        text = answer.read(MAX_ANSWER_BYTES).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException, ValueError) as error:
        # the text of the error may hold the address
        reason = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
        raise SinkError(f"the endpoint cannot be reached ({reason})") from None
    finally:
        connection.close()
    return Answer(answer.status, text, location_of(url, answer.getheader("location") or ""))


def location_of(url: str, location: str) -> str:
    """The absolute address that a Location header names; empty where it leads to another host."""
    if not location:
        return ""
    found = urljoin(url, location)
    return found if urlsplit(found)[:2] == urlsplit(url)[:2] else ""
