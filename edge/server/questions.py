"""The routes of questions about the past: why, what if, and what a recording would expect as a test."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from edge.server.deeds import tell_more
from edge.server.edit import done
from edge.server.json_answer import JsonAnswer
from edge.server.operate import json_body, refuse_unless, refuse_unless_json
from edge.server.who import refuse_hidden, who_of

NEEDED = {
    "what-if": "server.can_edit = true and a [track_store]",
    "test": "server.can_add_tests = true and a [tests] folder",
}


class Questioner(Protocol):
    """What can be asked for; see ``edge.daemon.questions.Questions``."""

    def can(self) -> dict[str, bool]: ...

    def ask(self, body: Any) -> str: ...

    def state(self, job_id: str) -> dict[str, Any]: ...

    def stream_of(self, job_id: str) -> str: ...

    def cancel(self, job_id: str) -> None: ...

    def save(self, job_id: str, name: str) -> dict[str, Any]: ...


class QuestionRoutes:
    """The answers; the first sentence of each docstring is what ``/api`` says about it.

    Who may look may ask why; what-if and tests need the right to operate, as what they may end in does.

    Args:
        questions: takes them.
        streams: the names of those that there are.
    """

    def __init__(self, questions: Questioner, streams: Callable[[], Iterable[str]]) -> None:
        self._questions = questions
        self._streams = streams

    async def questions(self, request: Request) -> Response:
        """GET: which questions are answered; POST {"ask": "why", "what-if" or "test", "stream", …} puts one."""
        if request.method != "POST":
            return JsonAnswer(self._questions.can())
        refuse_unless_json(request)
        body = await json_body(request)
        ask = body.get("ask") if isinstance(body, dict) else None
        camera = body.get("stream") if isinstance(body, dict) else None
        if isinstance(camera, str):
            refuse_hidden(request, camera, self._streams())
            tell_more(request, camera=camera, ask=ask)
        elif not who_of(request).sees_all:
            raise HTTPException(400, 'expected "stream", the name of one')
        if isinstance(ask, str) and ask in NEEDED:
            self._refuse_unless_operating(request, ask, camera if isinstance(camera, str) else None)
        return JsonAnswer({"id": await done(lambda: self._questions.ask(body))}, 202)

    async def question(self, request: Request) -> Response:
        """GET: how it goes, and the answer; DELETE ends it; PUT {"name": NAME} saves the test that was shown."""
        job_id, camera = request.path_params["id"], None
        if who_of(request).kind == "user":
            camera = await done(lambda: self._questions.stream_of(job_id))
            refuse_hidden(request, camera, self._streams())
        if request.method == "DELETE":
            await done(lambda: self._questions.cancel(job_id))
        elif request.method == "PUT":
            self._refuse_unless_operating(request, "test", camera)
            body = await json_body(request)
            name = body.get("name") if isinstance(body, dict) else None
            if not isinstance(name, str) or "\0" in name:
                raise HTTPException(400, 'expected {"name": NAME} of the test')
            return JsonAnswer(await done(lambda: self._questions.save(job_id, name)), 201)
        return JsonAnswer(await done(lambda: self._questions.state(job_id)))

    def _refuse_unless_operating(self, request: Request, ask: str, camera: str | None) -> None:
        refuse_unless(request, self._questions.can()[ask], NEEDED[ask], camera)
