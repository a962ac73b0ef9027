"""The routes that read and change what is drawn on a stream. They need the operate token and ``server.can_edit``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from edge.errors import EdgeError
from edge.server.deeds import tell_more
from edge.server.json_answer import JsonAnswer
from edge.server.operate import json_body, refuse_unless


class Editor(Protocol):
    """What can be asked for; see ``edge.daemon.edit.ConfigEditor``."""

    def drawn(self, stream: str) -> dict[str, Any]: ...

    def save(self, stream: str, drawn: Any, version: str) -> dict[str, Any]: ...

    def versions(self) -> list[dict[str, str]]: ...

    def restore(self, version: str) -> dict[str, Any]: ...


class EditRoutes:
    """The answers; the first sentence of each docstring is what ``/api`` says about it.

    Args:
        editor: None where the configuration does not allow it.
        known: gives a stream's name back, or answers 404.
    """

    def __init__(self, editor: Editor | None, known: Callable[[str], str]) -> None:
        self._editor = editor
        self._known = known

    async def drawn(self, request: Request) -> Response:
        """GET: lines, zones, masks and score of a stream in the file; PUT the same with its "version" saves them."""
        name = self._known(request.path_params["name"])
        editor = self._allowed(request, name)
        if request.method != "PUT":
            return JsonAnswer(await done(lambda: editor.drawn(name)))
        body = await json_body(request)
        if not isinstance(body, dict) or not isinstance(body.get("version"), str):
            raise HTTPException(400, 'expected {"version", "lines", "zones", "masks"}, as GET gives them')
        drawn = {key: value for key, value in body.items() if key != "version"}
        return JsonAnswer(await done(lambda: editor.save(name, drawn, body["version"])))

    async def versions(self, request: Request) -> Response:
        """GET: the last versions of the configuration file; POST {"restore": ID} puts one back."""
        editor = self._allowed(request)
        if request.method != "POST":
            return JsonAnswer({"versions": await done(editor.versions)})
        body = await json_body(request)
        version = body.get("restore") if isinstance(body, dict) else None
        if not isinstance(version, str):
            raise HTTPException(400, 'expected {"restore": ID}, the id of a version')
        tell_more(request, version=version)
        return JsonAnswer(await done(lambda: editor.restore(version)))

    def _allowed(self, request: Request, camera: str | None = None) -> Editor:
        refuse_unless(request, self._editor is not None, "server.can_edit", camera)
        assert self._editor is not None
        return self._editor


async def done(act: Callable[[], Any]) -> Any:
    """What it gives, in a thread of its own. Raises: HTTPException: 409 with the sentence of an ``EdgeError``."""
    try:
        return await run_in_threadpool(act)
    except EdgeError as error:
        raise HTTPException(409, str(error)) from None
