"""The routes of the night shift: how it stands, and the morning report with pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse

from edge.server.json_answer import JsonAnswer

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

NO_STORE = {"cache-control": "no-store"}


@dataclass(frozen=True, slots=True)
class Night:
    """What is known of the night shift. Attributes: ``told`` as JSON values; ``page`` as HTML."""

    told: Callable[[], dict[str, Any]]
    page: Callable[[], str]


class NightRoutes:
    """The answers; the first sentence of each docstring is what ``/api`` says about it."""

    def __init__(self, night: Night | None) -> None:
        self._night = night

    async def told(self, request: Request) -> Response:
        """How the night shift stands, and its last report."""
        return JsonAnswer(await run_in_threadpool(self._known().told))

    async def page(self, request: Request) -> Response:
        """The last report of the night shift as a page with pictures."""
        return HTMLResponse(await run_in_threadpool(self._known().page), headers=NO_STORE)

    def _known(self) -> Night:
        if self._night is None:
            raise HTTPException(404, "there is no night shift; [night] makes one")
        return self._night
