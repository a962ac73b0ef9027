"""The routes by which the page adds a camera. They need the operate token and ``server.can_edit``."""

from __future__ import annotations

from typing import Any, Protocol

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from edge.server.deeds import tell_more
from edge.server.edit import done
from edge.server.json_answer import JsonAnswer
from edge.server.operate import json_body, refuse_unless

MAX_TEXT = 1000


class Adder(Protocol):
    """What can be asked for; see ``edge.daemon.cameras.CameraAdder``."""

    def find(self) -> list[dict[str, str]]: ...

    def look(self, place: str, username: str, password: str) -> dict[str, Any]: ...

    def add(self, look: str, name: str) -> dict[str, Any]: ...


class CameraRoutes:
    """The answers; the first sentence of each docstring is what ``/api`` says about it.

    Args:
        adder: None where the configuration does not allow it.
    """

    def __init__(self, adder: Adder | None) -> None:
        self._adder = adder

    async def cameras(self, request: Request) -> Response:
        """GET: ONVIF cameras of the network, after 3 s; POST {"look": ID, "name": NAME} saves what was looked at."""
        adder = self._allowed(request)
        if request.method != "POST":
            return JsonAnswer({"cameras": await done(adder.find)})
        look, name = await _texts(request, "look", "name")
        tell_more(request, camera=name)
        return JsonAnswer(await done(lambda: adder.add(look, name)))

    async def look(self, request: Request) -> Response:
        """POST {"place": HOST or ADDRESS, "username", "password"}: what a camera is, and a picture of it."""
        adder = self._allowed(request)
        place, username, password = await _texts(request, "place", "username", "password")
        return JsonAnswer(await done(lambda: adder.look(place, username, password)))

    def _allowed(self, request: Request) -> Adder:
        refuse_unless(request, self._adder is not None, "server.can_edit")
        assert self._adder is not None
        return self._adder


async def _texts(request: Request, *keys: str) -> list[str]:
    """The texts of a JSON object; what is not there is empty."""
    body = await json_body(request)
    texts = [body.get(key, "") for key in keys] if isinstance(body, dict) else []
    if not texts or not all(isinstance(text, str) and len(text) <= MAX_TEXT for text in texts) or not texts[0]:
        raise HTTPException(400, f"expected a JSON object of texts: {', '.join(keys)}")
    return texts
