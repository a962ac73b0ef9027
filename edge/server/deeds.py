"""Which requests the audit log tells of: every change, and every look at a recording."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

_LOOK = re.compile(r"/(?:recordings|snapshots|export|lapse|strip)/.")
_CAMERA = re.compile(r"/(?:recordings|strip|api/streams|stream)/([^/]+)/|/(?:export|lapse)/(.+)\.mp4")
# watching live begins and ends with one of these
_LIVE = re.compile(r"/stream/[^/]+/whep")
NOTE = "edge.note"


@dataclass(frozen=True, slots=True)
class Deed:
    """What a request does.

    Attributes:
        what: in the log.
        camera: that it is about, empty for none or where only the route knows it.
    """

    what: str
    camera: str
    is_change: bool


def deed_of(method: str, path: str) -> Deed | None:
    """None for what the log does not tell of."""
    found = _CAMERA.match(path)
    camera = (found[1] or found[2]) if found else ""
    if method in ("GET", "HEAD"):
        return Deed(f"look {path}", camera, False) if method == "GET" and _LOOK.match(path) else None
    return None if _LIVE.match(path) else Deed(f"{method} {path}", camera, True)


def tell_more(request: Request, **more: Any) -> None:
    """Have the audit log's line say more, which only the route knows; no secret."""
    request.scope.setdefault(NOTE, {}).update(more)
