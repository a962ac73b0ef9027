"""Who may ask the server, and which headers every answer carries."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from edge.addresses.networks import is_loopback
from edge.server.access import COOKIE, Access, Credentials, cookie_of
from edge.server.answers import CLOSE, HEADERS, NO_TOKEN, OPEN_PATHS, SECURE_HEADERS

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Guard:
    """ASGI middleware: checks the token or, without one, that the browser was not led here by a foreign name.

    The token comes as ``Authorization: Bearer``, as ``?token=``, or as the cookie that the page gets in exchange for
    ``?token=``. The cookie holds a hash, so the token itself is stored nowhere. What the token allows is left in the
    request as ``edge.role``. Who is refused is refused with the connection.

    Args:
        app: what is guarded.
        access: without a token in it, everybody on this machine may look.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

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

        answer = self._refuse_or_exchange(scope)
        await (answer or self._app)(scope, receive, send_guarded)

    def _refuse_or_exchange(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if self._access.operate is None:
            scope["edge.role"] = "view"
            return self._refuse_stranger(headers.get("host", ""), (scope.get("client") or ("",))[0])
        if scope["path"] in OPEN_PATHS:
            return None
        query = scope["query_string"].decode("latin-1")
        shown = Credentials.of(headers.get("authorization", ""), query, headers.get("cookie", ""))
        role = self._access.role_of(shown)
        if role is None and self._access.is_snooze(scope["path"], query):
            return None
        if role is None:
            return PlainTextResponse(NO_TOKEN, 401, {"www-authenticate": "Bearer", **CLOSE})
        scope["edge.role"] = role
        is_exchange = scope["path"] == "/" and self._access.role_of(Credentials(in_address=shown.in_address))
        return _exchange(scope, shown.in_address) if is_exchange else None

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
