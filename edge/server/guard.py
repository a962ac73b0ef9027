"""Who may ask the server, and which headers every answer carries."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from edge.addresses.networks import is_loopback
from edge.errors import DataError
from edge.server.access import COOKIE, Credentials, cookie_of
from edge.server.accounts import Accounts
from edge.server.answers import CLOSE, HEADERS, OPEN_PATHS, SECURE_HEADERS, needed
from edge.server.deeds import NOTE, Deed, deed_of
from edge.server.known import credentials
from edge.server.login import LOGIN_HEADERS, login_page
from edge.server.logins import MAX_BODY_BYTES, PATH
from edge.server.proxies import is_same_origin
from edge.server.request_body import read_small
from edge.server.who import WHO, headers_of
from edge.users.rights import ANYONE, Who

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

SAFE = ("GET", "HEAD")
# who opens the link of a message, which is good for one page
OF_A_LINK = Who("link of a message", "token", ANYONE.rights)
# of the request: where it comes from, seen through trusted proxies
FROM = "edge.from"


class Guard:
    """ASGI middleware: checks the token, session or user or, without any, that no foreign name led the browser here.

    A token comes as ``Authorization: Bearer``, as ``?token=``, or as the cookie that the page gets in exchange for
    ``?token=``. The cookie holds a hash, so the token itself is stored nowhere. Who asks is left in the request for
    the routes (``edge.server.who``). Who is refused is refused with the connection, and a user of whom less is true
    than when it asked has its answer broken off. Changes, and looks at recordings, stand in the audit log first.

    Args:
        app: what is guarded.
        accounts: without a token or users in them, everybody on this machine may look.
    """

    def __init__(self, app: ASGIApp, accounts: Accounts) -> None:
        self._app = app
        self._accounts = accounts
        self._access = accounts.access
        self._has_users = accounts.users is not None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in {**HEADERS, **(SECURE_HEADERS if scope.get("scheme") == "https" else {})}.items():
                    # a page with a form has a policy of its own
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        scope[FROM] = self._access.proxies.client_of(_peer(scope), headers_of(scope))
        answer = await self._login(scope, receive) or self._refuse_or_exchange(scope)
        if answer is not None:
            await answer(scope, receive, send_guarded)
        elif WHO not in scope:
            await self._app(scope, receive, send_guarded)
        else:
            await self._serve(scope[WHO], scope, receive, send_guarded)

    def _refuse_or_exchange(self, scope: Scope) -> Response | None:
        headers = headers_of(scope)
        if not self._access.is_closed:
            scope[WHO] = ANYONE
            return self._refuse_stranger((headers("host") or [""])[0], _peer(scope))
        if scope["path"] in OPEN_PATHS:
            return None
        if self._access.is_snooze(scope["path"], scope["query_string"].decode("latin-1")):
            scope[WHO] = OF_A_LINK
            return None
        shown = self._shown(scope)
        who = self._accounts.known.who(shown)
        if who is None:
            # a proxy may send the requests of many over one connection, so they come past the gate
            if self._has_users and scope["path"] == "/" and scope["method"] == "GET":
                return HTMLResponse(login_page(), 401, {**LOGIN_HEADERS, **CLOSE})
            words = needed(has_users=self._has_users)
            return PlainTextResponse(words, 401, {"www-authenticate": "Bearer", **CLOSE})
        if who.is_unasked and scope["method"] not in SAFE and not is_same_origin(headers, is_told=True):
            return PlainTextResponse("another site asks for this, or the browser does not say which\n", 403, CLOSE)
        scope[WHO] = who
        is_exchange = scope["path"] == "/" and self._access.role_of(Credentials(in_address=shown.in_address))
        return _exchange(scope, shown.in_address) if is_exchange else None

    def _shown(self, scope: Scope) -> Credentials:
        query, address = scope["query_string"].decode("latin-1"), _peer(scope)
        headers, is_secure = headers_of(scope), self._is_secure(scope)
        shown, is_spoofed = credentials(self._access, headers, query, address, is_secure=is_secure)
        if is_spoofed:
            self._accounts.note_spoof(address)
        return shown

    def _is_secure(self, scope: Scope) -> bool:
        return scope.get("scheme") == "https" or self._access.proxies.is_secure(_peer(scope), headers_of(scope))

    async def _login(self, scope: Scope, receive: Receive) -> Response | None:
        """The answer to a login that came past the gate; None where it is none."""
        if not (self._has_users and scope["path"] == PATH and scope["method"] == "POST"):
            return None
        try:
            body = await read_small(Request(scope, receive), MAX_BODY_BYTES, "form")
        except HTTPException as error:
            return PlainTextResponse(f"{error.detail}\n", error.status_code, CLOSE)
        answer = await self._accounts.logins.answer(
            *(body, scope[FROM], headers_of(scope)),
            is_secure=self._is_secure(scope),
            old=self._shown(scope).session,
        )
        response = PlainTextResponse(answer.words, answer.status, {**answer.headers, **CLOSE})
        for cookie in answer.cookies:
            response.headers.append("set-cookie", cookie)
        return response

    async def _serve(self, who: Who, scope: Scope, receive: Receive, send: Send) -> None:
        """Give the app's answer, as long as it may be given; the audit log is written before what it tells of."""
        deed = deed_of(scope["method"], scope["path"])
        noting = _Noting(self._accounts, who, scope, deed, send)
        try:
            if deed is not None and deed.is_change:
                await noting.note()
            await self._accounts.serve(who, lambda: self._app(scope, receive, noting.send))
            if deed is not None and deed.is_change:
                await noting.note_outcome()
        except DataError as error:
            if not noting.is_begun:
                await PlainTextResponse(f"{error}\n", 503)(scope, receive, send)

    def _refuse_stranger(self, host: str, address: str) -> Response | None:
        """Without a token: who comes from another machine, or by a name that somebody else may point here."""
        if not self._access.allow_anyone and not is_loopback(address):
            words = "only this machine is served without a token; set server.token_file\n"
            return PlainTextResponse(words, 403, CLOSE)
        if is_own_name(host):
            return None
        # a page elsewhere can point its own name at this machine and would then count as the same origin
        words = "this name is not served without a token; use the address itself\n"
        return PlainTextResponse(words, 421, CLOSE)


class _Noting:
    """What is sent of one answer, and what the audit log tells of it."""

    def __init__(self, accounts: Accounts, who: Who, scope: Scope, deed: Deed | None, send: Send) -> None:
        self._accounts = accounts
        self._who = who
        self._scope = scope
        self._deed = deed
        self._send = send
        self._status = 0
        self.is_begun = False

    async def send(self, message: Message) -> None:
        """A part of the answer; a look at a recording is noted before its first.

        Raises:
            DataError: it cannot be noted, and nothing was sent.
        """
        if message["type"] == "http.response.start":
            self._status = message["status"]
            if self._deed is not None and not self._deed.is_change and self._status < 400:
                await self._note_look()
            self.is_begun = True
        await self._send(message)

    async def _note_look(self) -> None:
        look = self._who.name, self._scope[FROM], self._scope["path"]
        if not self._accounts.is_new_look(*look):
            return
        try:
            await self.note()
        except DataError:
            self._accounts.forget_look(*look)
            raise

    async def note(self, **more: Any) -> None:
        """Write the line. Raises: DataError: it cannot be written."""
        assert self._deed is not None
        camera = {"camera": self._deed.camera} if self._deed.camera else {}
        told = {**camera, **self._scope.get(NOTE, {}), **more}
        await self._accounts.note(self._deed.what, self._who.name, self._scope[FROM], **told)

    async def note_outcome(self) -> None:
        """Write what came of a change. Raises: DataError: it cannot be written, after the change was made."""
        await self.note(status=self._status)


def _peer(scope: Scope) -> str:
    """The address at the other end of the connection, be it a proxy's."""
    address: str = (scope.get("client") or ("",))[0]
    return address


def _exchange(scope: Scope, token: str) -> Response:
    """Send the browser to the same page with a cookie instead of the token."""
    query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    rest = urlencode([(key, value) for key, value in query if key != "token"])
    answer = RedirectResponse("/" + (f"?{rest}" if rest else ""), 303)
    is_secure = scope.get("scheme") == "https"
    answer.set_cookie(COOKIE, cookie_of(token), httponly=True, samesite="strict", secure=is_secure, max_age=30 * 86400)
    return answer


def is_own_name(host: str) -> bool:
    """Whether a Host header is an address or ``localhost``, which no foreign name server can point elsewhere."""
    # an IPv6 address stands in brackets, so that its colons are not the port's
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    name = name.lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
