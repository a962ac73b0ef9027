"""The routes of messages to people: phones that want them, and the link of a message by which one is left alone."""

from __future__ import annotations

import html
import time
from typing import Any, Protocol

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from edge.server.access import SNOOZE_PATH
from edge.server.edit import done
from edge.server.json_answer import JsonAnswer
from edge.server.login import FORM_HEADERS, page_of
from edge.server.operate import json_body, refuse_unless_json
from edge.server.recordings import Answer

PUSH, SNOOZES, SNOOZED, LINK = "/api/push", "/api/snoozes", "/api/snoozes/{id}", SNOOZE_PATH
METHODS = {PUSH: ["GET", "POST", "DELETE"], SNOOZES: ["GET"], SNOOZED: ["DELETE"], LINK: ["GET", "POST"]}
HOURS = (1, 8)


class Messaging(Protocol):
    """What can be asked for; see ``edge.pipeline.messages.Messaging``."""

    def push_key(self) -> str | None: ...

    def add_phone(self, value: Any) -> None: ...

    def remove_phone(self, endpoint: str) -> bool: ...

    def offered(self, text: str) -> list[tuple[str, str]]: ...

    def snooze(self, text: str, hours: float) -> float: ...

    def snoozed(self) -> list[dict[str, Any]]: ...

    def end_snooze(self, snooze_id: str) -> bool: ...

    @property
    def snooze_key(self) -> bytes: ...


class MessageRoutes:
    """The answers; the first sentence of each docstring is what ``/api`` says about it."""

    def __init__(self, messaging: Messaging) -> None:
        self._messaging = messaging

    def answers(self) -> dict[str, Answer]:
        """Path → answer."""
        return {PUSH: self.push, SNOOZES: self.snoozes, SNOOZED: self.end, LINK: self.link}

    async def push(self, request: Request) -> Response:
        """GET: the key to subscribe a browser with; POST its subscription, DELETE {"endpoint"} ends it."""
        if request.method == "GET":
            return JsonAnswer({"key": await done(self._messaging.push_key)})
        refuse_unless_json(request)
        body = await json_body(request)
        if request.method == "POST":
            await done(lambda: self._messaging.add_phone(body))
            return JsonAnswer({"taken": True})
        endpoint = body.get("endpoint") if isinstance(body, dict) else None
        if not isinstance(endpoint, str):
            raise HTTPException(400, 'expected {"endpoint"}, as the browser gives it')
        return JsonAnswer({"was_there": await done(lambda: self._messaging.remove_phone(endpoint))})

    async def snoozes(self, request: Request) -> Response:
        """Who is told nothing of which stream's events of which kind (empty: any), and until when."""
        return JsonAnswer({"snoozes": await done(self._messaging.snoozed)})

    async def end(self, request: Request) -> Response:
        """DELETE ends a silence before its time."""
        if not await done(lambda: self._messaging.end_snooze(request.path_params["id"])):
            raise HTTPException(404, "there is no such silence; it may have ended")
        return JsonAnswer({"ended": True})

    async def link(self, request: Request) -> Response:
        """The page behind the link of a message: GET changes nothing, POST ?k=…&hours= leaves its receiver alone."""
        text, hours = request.query_params.get("k", ""), request.query_params.get("hours", "")
        offered = await done(lambda: self._messaging.offered(text))
        if request.method != "POST":
            return _page(offered, text, HOURS)
        if hours not in ("0", *map(str, HOURS)):
            raise HTTPException(400, f"hours: expected 0, {', '.join(map(str, HOURS))}")
        until_s = await done(lambda: self._messaging.snooze(text, int(hours)))
        return _page(offered, text, (0,) if int(hours) else HOURS, until_s)


def _page(offered: list[tuple[str, str]], text: str, hours: tuple[int, ...], until_s: float = 0.0) -> Response:
    """What is offered, a button for each number of hours, and what holds now."""
    cameras = "; ".join(f"{stream}: {(kind or 'everything').replace('_', ' ')}" for stream, kind in offered)
    state = f"No messages until {time.strftime('%H:%M', time.localtime(until_s))}." if 0 in hours else ""
    words = {0: "Send messages again", 1: "Quiet for an hour"}
    forms = "".join(
        f'<form method="post" action="snooze?k={html.escape(text)}&amp;hours={count}">'
        f"<button>{words.get(count, f'Quiet for {count} hours')}</button></form>"
        for count in hours
    )
    shown = f'<p role="status">{state or "Send no messages for a while about:"}</p><p>{html.escape(cameras)}</p>{forms}'
    return HTMLResponse(page_of(shown), headers=dict(FORM_HEADERS))
