"""The HTTP side of WHIP: one request, with a limit on its time and its answer."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from edge.errors import SinkError
from edge.net.timed_http import FAULTS, TimedHttp, target_of

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
    tls = ssl.create_default_context() if urlsplit(url).scheme == "https" else None
    headers = {"user-agent": "edgeloop", **headers}
    try:
        server = TimedHttp(url, tls)
        with closing(server):
            answer = server.ask(
                method, target_of(url), body.encode(), headers, timeout_s=timeout_s, max_bytes=MAX_ANSWER_BYTES
            )
    except FAULTS as error:
        # the text of the error may hold the address
        reason = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
        raise SinkError(f"the endpoint cannot be reached ({reason})") from None
    text = answer.body.decode("utf-8", "replace")
    return Answer(answer.status, text, location_of(url, answer.headers.get("location") or ""))


def location_of(url: str, location: str) -> str:
    """The absolute address that a Location header names; empty where it leads to another host."""
    if not location:
        return ""
    found = urljoin(url, location)
    return found if urlsplit(found)[:2] == urlsplit(url)[:2] else ""
