"""The routes of messages to people: phones that want them, and the link of a message by which one is left alone."""

from __future__ import annotations

import html
import time
from typing import Any, Protocol

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from edge.events.phones import NOBODY, Owner, Phone
from edge.server.access import SNOOZE_PATH
from edge.server.deeds import tell_more
from edge.server.edit import done
from edge.server.json_answer import JsonAnswer
from edge.server.login import FORM_HEADERS, page_of
from edge.server.operate import json_body, refuse_unless_json
from edge.server.recordings import Answer
from edge.server.who import who_of
from edge.users.rights import Who

PUSH, PHONES, PHONE = "/api/push", "/api/push/phones", "/api/push/phones/{id}"
SNOOZES, SNOOZED, LINK = "/api/snoozes", "/api/snoozes/{id}", SNOOZE_PATH
METHODS = {
    PUSH: ["GET", "POST", "DELETE"],
    PHONES: ["GET"],
    PHONE: ["DELETE"],
    SNOOZES: ["GET"],
    SNOOZED: ["DELETE"],
    LINK: ["GET", "POST"],
}
HOURS = (1, 8)


class Messaging(Protocol):
    """What can be asked for; see ``edge.pipeline.messages.Messaging``."""

    def push_key(self) -> str | None: ...

    def add_phone(self, value: Any, owner: Owner) -> None: ...

    def remove_phone(self, endpoint: str, owner: Owner | None) -> bool: ...

    def phone_list(self) -> list[Phone]: ...

    def offered(self, text: str) -> list[tuple[str, str]]: ...

    def snooze(self, text: str, hours: float) -> float: ...

    def snoozed(self, owner: Owner | None) -> list[dict[str, Any]]: ...

    def end_snooze(self, snooze_id: str, owner: Owner | None) -> bool: ...

    @property
    def snooze_key(self) -> bytes: ...


class MessageRoutes:
    """The answers; the first sentence of each docstring is what ``/api`` says about it."""

    def __init__(self, messaging: Messaging) -> None:
        self._messaging = messaging

    def answers(self) -> dict[str, Answer]:
        """Path → answer."""
        return {
            PUSH: self.push,
            PHONES: self.phones,
            PHONE: self.phone,
            SNOOZES: self.snoozes,
            SNOOZED: self.end,
            LINK: self.link,
        }

    async def push(self, request: Request) -> Response:
        """GET: the key to subscribe a browser with; POST its subscription, DELETE {"endpoint"} ends it."""
        if request.method == "GET":
            return JsonAnswer({"key": await done(self._messaging.push_key)})
        refuse_unless_json(request)
        who, body = who_of(request), await json_body(request)
        if request.method == "POST":
            if not who.rights.anywhere("view"):
                raise HTTPException(403, "you may see no camera, so there is nothing to be told")
            await done(lambda: self._messaging.add_phone(body, _owner(who)))
            return JsonAnswer({"taken": True})
        endpoint = body.get("endpoint") if isinstance(body, dict) else None
        if not isinstance(endpoint, str):
            raise HTTPException(400, 'expected {"endpoint"}, as the browser gives it')
        only = None if _rules(who) else _owner(who)
        return JsonAnswer({"was_there": await done(lambda: self._messaging.remove_phone(endpoint, only))})

    async def phones(self, request: Request) -> Response:
        """The phones that take messages and whose they are: all of them for an admin, else one's own."""
        who = who_of(request)
        found = [phone for phone in await done(self._messaging.phone_list) if _may_end(who, phone)]
        told = [{"id": one.id, "name": one.name, "service": one.host, "user": one.owner.name} for one in found]
        return JsonAnswer({"phones": told})

    async def phone(self, request: Request) -> Response:
        """DELETE sends a phone nothing more."""
        who, wanted = who_of(request), request.path_params["id"]
        for phone in await done(self._messaging.phone_list):
            if phone.id == wanted and _may_end(who, phone):
                tell_more(request, user=phone.owner.name)
                await done(lambda phone=phone: self._messaging.remove_phone(phone.endpoint, phone.owner))  # type: ignore[misc]
                return JsonAnswer({"ended": wanted})
        raise HTTPException(404, "there is no such phone; it may have been switched off")

    async def snoozes(self, request: Request) -> Response:
        """Who is told nothing of which stream's events of which kind (empty: any), and until when."""
        only = _own(who_of(request))
        return JsonAnswer({"snoozes": await done(lambda: self._messaging.snoozed(only))})

    async def end(self, request: Request) -> Response:
        """DELETE ends a silence before its time."""
        only = _own(who_of(request))
        if not await done(lambda: self._messaging.end_snooze(request.path_params["id"], only)):
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


def _owner(who: Who) -> Owner:
    """Whom its phones belong to."""
    return Owner(who.name, who.generation) if who.kind == "user" else NOBODY


def _own(who: Who) -> Owner | None:
    """Whose silences it is told of; None: those of all."""
    return None if who.sees_all else _owner(who)


def _rules(who: Who) -> bool:
    """Whether the phones of all are its affair: an admin of all cameras, or who has the operate token."""
    return who.rights.everywhere("admin") if who.kind == "user" else who.rights.everywhere("operate")


def _may_end(who: Who, phone: Phone) -> bool:
    return _rules(who) or (who.kind == "user" and phone.owner == _owner(who))


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
