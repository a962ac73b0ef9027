"""Who may ask the server, and which headers every answer carries."""

from __future__ import annotations

import ipaddress
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from edge.server.access import Access, FailureLimit, cookie_of

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "edgeloop"
OPEN_PATHS = frozenset({"/healthz"})
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; img-src 'self' blob: data:; media-src 'self'; style-src 'self'; script-src 'self'; "
        "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    # other sites can neither read nor embed what this one shows
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


class Guard:
    """ASGI middleware: checks the token or, without one, that the browser was not led here by a foreign name.

    The token comes as ``Authorization: Bearer``, as ``?token=``, or as the cookie that the page gets in exchange for
    ``?token=``. The cookie holds a hash, so the token itself is stored nowhere. What the token allows is left in the
    request as ``edge.role``.

    Args:
        app: what is guarded.
        access: without a token in it, everybody may look who can reach the port.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access
        self._limit = FailureLimit()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        answer = self._refuse_or_exchange(scope)
        await (answer or self._app)(scope, receive, send_guarded)

    def _refuse_or_exchange(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        scope["edge.role"] = "view"
        if self._access.operate is None:
            if is_own_name(headers.get("host", "")):
                return None
            # a page elsewhere can point its own name at this machine and would then count as the same origin
            return PlainTextResponse("this name is not served without a token; use the address itself\n", 421)
        if scope["path"] in OPEN_PATHS:
            return None
        role = self._access.role_of_cookie(_cookie(headers))
        given = None
        token, is_in_address = _token(headers, scope)
        if token:
            address = (scope.get("client") or ("",))[0]
            wait_s = self._limit.wait_s(address)
            if wait_s:
                words = f"too many wrong tokens; try again in {wait_s:.0f} s\n"
                return PlainTextResponse(words, 429, {"retry-after": f"{wait_s:.0f}"})
            given = self._access.role_of(token)
            if given is None:
                self._limit.note(address)
            role = given or role
        if role is None:
            words = "a token is needed: open /?token=… or send Authorization: Bearer …\n"
            return PlainTextResponse(words, 401, {"www-authenticate": "Bearer"})
        # addresses end up in histories and logs: a token there may look, but change nothing
        scope["edge.role"] = "view" if is_in_address else role
        return _exchange(scope, token) if given and is_in_address and scope["path"] == "/" else None


def _exchange(scope: Scope, token: str) -> Response:
    """Send the browser to the same page with a cookie instead of the token."""
    query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    rest = urlencode([(key, value) for key, value in query if key != "token"])
    answer = RedirectResponse("/" + (f"?{rest}" if rest else ""), 303)
    is_secure = scope.get("scheme") == "https"
    answer.set_cookie(COOKIE, cookie_of(token), httponly=True, samesite="strict", secure=is_secure, max_age=30 * 86400)
    return answer


def _token(headers: Headers, scope: Scope) -> tuple[str, bool]:
    """The token of a request, empty if there is none, and whether it stands in the address."""
    scheme, _, bearer = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and bearer.strip():
        return bearer.strip(), False
    query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    return dict(query).get("token", ""), True


def _cookie(headers: Headers) -> str:
    try:
        cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return "" if cookie is None else cookie.value


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
