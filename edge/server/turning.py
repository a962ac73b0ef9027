"""The route by which the page turns a camera to its presets. It needs the operate token, or that role on the camera."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from edge.server.deeds import tell_more
from edge.server.edit import done
from edge.server.json_answer import JsonAnswer
from edge.server.operate import json_body, refuse_unless

MAX_NAME_CHARS = 200


class Turner(Protocol):
    """What can be asked for; see ``edge.daemon.turning.Turner``."""

    def presets(self, stream: str) -> dict[str, Any]: ...

    def go_to(self, stream: str, preset: str) -> None: ...


class TurnRoutes:
    """The answers; the first sentence of each docstring is what ``/api`` says about it.

    Args:
        turner: turns cameras.
        known: gives a stream's name back, or answers 404.
    """

    def __init__(self, turner: Turner, known: Callable[[str], str]) -> None:
        self._turner = turner
        self._known = known

    async def presets(self, request: Request) -> Response:
        """GET: where the camera of a stream can turn to; POST {"preset": NAME} turns it."""
        stream = self._known(request.path_params["name"])
        refuse_unless(request, True, "", stream)
        if request.method != "POST":
            return JsonAnswer(await done(lambda: self._turner.presets(stream)))
        body = await json_body(request)
        preset = body.get("preset") if isinstance(body, dict) else None
        if not isinstance(preset, str) or not 0 < len(preset) <= MAX_NAME_CHARS:
            raise HTTPException(400, 'expected {"preset": NAME}, one of those that GET gives')
        tell_more(request, preset=preset)
        await done(lambda: self._turner.go_to(stream, preset))
        return JsonAnswer({"turned_to": preset}, 202)
