"""Who may ask the server, and which headers every answer carries."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "edgeloop"
OPEN_PATHS = frozenset({"/healthz"})
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; img-src 'self' blob: data:; style-src 'self'; script-src 'self'; connect-src 'self'; "
        "manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
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
    ``?token=``. The cookie holds a hash, so the token itself is stored nowhere.

    Args:
        app: what is guarded.
        token: None lets everybody in who can reach the port.
    """

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app = app
        self._token = token
        self._cookie = hmac.new(token.encode(), b"edgeloop page", hashlib.sha256).hexdigest() if token else ""

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
        if self._token is None:
            if is_own_name(headers.get("host", "")):
                return None
            # a page elsewhere can point its own name at this machine and would then count as the same origin
            return PlainTextResponse("this name is not served without a token; use the address itself\n", 421)
        if scope["path"] in OPEN_PATHS or self._has_token(headers):
            return None
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = dict(query).get("token", "")
        if not hmac.compare_digest(given.encode(), self._token.encode()):
            return PlainTextResponse(
                "a token is needed: open /?token=… or send Authorization: Bearer …\n",
                401,
                {"www-authenticate": "Bearer"},
            )
        if scope["path"] != "/":
            return None
        rest = urlencode([(key, value) for key, value in query if key != "token"])
        answer = RedirectResponse("/" + (f"?{rest}" if rest else ""), 303)
        answer.set_cookie(COOKIE, self._cookie, httponly=True, samesite="strict", max_age=30 * 86400)
        return answer

    def _has_token(self, headers: Headers) -> bool:
        assert self._token is not None
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(bearer.strip().encode(), self._token.encode()):
            return True
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            return False
        return cookie is not None and hmac.compare_digest(cookie.value.encode(), self._cookie.encode())


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
