"""Who a request comes from, and which camera it may ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from edge.server.proxies import Headers, Proxies
from edge.users.rights import ANYONE, Role, Who

WHO = "edge.who"
# paths with {name} in which it is no camera
_OTHERS = ("/api/models/",)


def who_of(request: Request) -> Who:
    """As the guard has found it."""
    found = request.scope.get(WHO, ANYONE)
    assert isinstance(found, Who)
    return found


def headers_of(scope: Any) -> Headers:
    """The values of each header of a request."""

    def values(name: str) -> list[str]:
        wanted = name.encode()
        return [value.decode("latin-1").strip() for key, value in scope["headers"] if key == wanted]

    return values


def is_secure(request: Request, proxies: Proxies) -> bool:
    """Whether the browser speaks HTTPS, here or with a trusted proxy."""
    address = request.client.host if request.client else ""
    return request.url.scheme == "https" or proxies.is_secure(address, headers_of(request.scope))


def refuse_unless_role(request: Request, role: Role, camera: str | None = None) -> None:
    """Answer 403 to who has not this role on the camera; without one, on all cameras."""
    who = who_of(request)
    if who.rights.everywhere(role) if camera is None else who.rights.may(role, camera):
        return
    if who.kind != "user":
        raise HTTPException(403, "this needs the operate token, as Authorization: Bearer …")
    where = "on all cameras" if camera is None else f"on {camera}"
    raise HTTPException(403, f"this needs the role {role} {where}")


def refuse_hidden(request: Request, camera: str, known: Iterable[str]) -> None:
    """Answer 404, as for a stream that is not there, where it may not be looked at."""
    who = who_of(request)
    if not who.rights.may("view", camera):
        names = ", ".join(who.rights.seen(known)) or "none"
        raise HTTPException(404, f"there is no stream {camera!r}; known: {names}")


def guarded(
    path: str,
    answer: Callable[[Request], Any],
    known: Callable[[], Iterable[str]],
    *,
    is_for_each: bool,
) -> Callable[[Request], Any]:
    """The answer of a route as it is given.

    Args:
        path: of the route; where it names a camera, that camera must be one that may be looked at.
        answer: to a request.
        known: the names of the streams.
        is_for_each: whether the answer itself leaves out what may not be seen; else, and where the path names no
            camera, it is for those that see all cameras.
    """
    names_camera = "{name}" in path and not path.startswith(_OTHERS)

    @wraps(answer)
    async def given(request: Request) -> Response:
        if names_camera:
            refuse_hidden(request, request.path_params["name"], known())
        elif not is_for_each and not who_of(request).sees_all:
            raise HTTPException(403, "this is about all cameras, and you may not see all of them")
        found = await answer(request)
        assert isinstance(found, Response)
        return found

    return given
