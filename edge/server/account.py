"""The routes of who is logged in: who am I, log out, the sessions, the audit log."""

from __future__ import annotations

from datetime import datetime, timezone
from itertools import islice
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from edge.errors import DataError
from edge.server.accounts import Accounts
from edge.server.deeds import tell_more
from edge.server.json_answer import JsonAnswer
from edge.server.logins import both_gone
from edge.server.recordings import Answer, number_of
from edge.server.who import is_secure, who_of
from edge.users.audit import read_audit
from edge.users.rights import Who
from edge.users.sessions import Session

MAX_LINES = 500


class AccountRoutes:
    """The answers; the first sentence of each docstring is what ``/api`` says about it."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    def answers(self) -> dict[str, Answer]:
        """Path → answer."""
        return {
            "/api/me": self.me,
            "/api/logout": self.logout,
            "/api/sessions": self.sessions,
            "/api/sessions/{id}": self.session,
            "/api/audit": self.audit,
        }

    @property
    def methods(self) -> dict[str, list[str]]:
        """Of those that are not only read."""
        return {"/api/logout": ["POST"], "/api/sessions/{id}": ["DELETE"]}

    async def me(self, request: Request) -> Response:
        """Who is asking, and the roles that it has on which cameras."""
        return JsonAnswer(self.facts_of(who_of(request)))

    def facts_of(self, who: Who) -> dict[str, Any]:
        """What somebody may know of itself."""
        has_audit = self._accounts.audit is not None and _audits(who)
        facts = {"name": who.name, "kind": who.kind, "roles": dict(who.rights.roles)}
        of_all = {"operates_all": who.rights.everywhere("operate")}
        return {
            **facts,
            **of_all,
            "has_session": bool(who.session),
            "lists_sessions": _rules(who),
            "has_audit": has_audit,
        }

    async def logout(self, request: Request) -> Response:
        """POST ends the session, and takes the page's cookies away."""
        self._accounts.sessions.end(who_of(request).session)
        answer = JsonAnswer({"ended": "session"})
        for cookie in both_gone(is_secure=is_secure(request, self._accounts.access.proxies)):
            answer.headers.append("set-cookie", cookie)
        return answer

    async def sessions(self, request: Request) -> Response:
        """Who is logged in, from where, since when: all of it for an admin, else one's own."""
        who = who_of(request)
        found = [one for one in self._accounts.live_sessions() if _may_end(who, one)]
        return JsonAnswer({"sessions": [self._told(one, who) for one in found]})

    def _told(self, session: Session, who: Who) -> dict[str, Any]:
        return {
            "id": session.id,
            "user": session.user,
            "from": session.address,
            "since": datetime.fromtimestamp(session.begun, timezone.utc).isoformat(timespec="seconds"),
            "idle_s": round(self._accounts.sessions.idle_s(session)),
            "is_own": session.key == who.session,
        }

    async def session(self, request: Request) -> Response:
        """DELETE ends a session."""
        who, wanted = who_of(request), request.path_params["id"]
        for session in self._accounts.live_sessions():
            if session.id == wanted and _may_end(who, session):
                tell_more(request, user=session.user)
                self._accounts.sessions.end(session.key)
                return JsonAnswer({"ended": wanted})
        raise HTTPException(404, "there is no such session; it may have ended")

    async def audit(self, request: Request) -> Response:
        """Who changed what and looked at which recording, newest first; ?limit= how many, ?skip= goes on."""
        who, audit = who_of(request), self._accounts.audit
        if not _audits(who):
            raise HTTPException(403, "this needs the role admin")
        if audit is None:
            raise HTTPException(404, "there is no audit log; server.audit_file in the configuration begins it")
        limit = int(min(MAX_LINES, max(1.0, number_of(request.query_params, "limit", 100.0))))
        skip = int(min(1e9, number_of(request.query_params, "skip", 0.0)))

        def lines() -> list[dict[str, Any]]:
            found = (line for line in read_audit(audit.path) if _rules(who) or _is_of_admin(who, line))
            return list(islice(found, skip, skip + limit))

        try:
            return JsonAnswer({"lines": await run_in_threadpool(lines)})
        except DataError as error:
            raise HTTPException(503, str(error)) from None


def _rules(who: Who) -> bool:
    return who.kind == "user" and who.rights.everywhere("admin")


def _audits(who: Who) -> bool:
    return who.kind == "user" and "admin" in who.rights.roles.values()


def _is_of_admin(who: Who, line: dict[str, Any]) -> bool:
    camera = line.get("camera")
    return isinstance(camera, str) and bool(camera) and who.rights.may("admin", camera)


def _may_end(who: Who, session: Session) -> bool:
    return _rules(who) or (who.kind == "user" and session.user == who.name)
