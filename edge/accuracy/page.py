"""The page on which a person confirms a round: served to this machine alone, behind a secret in its address."""

from __future__ import annotations

import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route

from edge.accuracy.cards import Answer
from edge.errors import EdgeError
from edge.files import parse_json

if TYPE_CHECKING:
    from starlette.requests import Request

    from edge.accuracy.cards import Card
    from edge.accuracy.session import Session

MAX_BODY_BYTES = 65_536
STATIC = {"": "page.html", "page.js": "page.js", "page.css": "page.css"}
HEADERS = {
    "content-security-policy": "default-src 'none'; img-src 'self'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


class Page:
    """The routes of one round."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._round = session.round()
        self._lock = threading.Lock()
        self.secret = secrets.token_urlsafe(24)

    def app(self) -> Starlette:
        """The application; nothing answers without the secret."""
        routes = [
            Route("/cards.json", self._cards),
            Route("/answer", self._answer, methods=["POST"]),
            Route("/{number:int}.jpg", self._picture),
            Route("/{name:path}", self._static),
        ]
        return Starlette(routes=[Mount(f"/{self.secret}", routes=routes)])

    def _cards(self, _: Request) -> Response:
        given = self._session.answers()
        told = [_told(card, given.get(card.number), bool(self._round.facts["teacher"])) for card in self._round.cards]
        return JSONResponse({"stream": self._round.stream, "cards": told}, headers=HEADERS)

    def _picture(self, request: Request) -> Response:
        number = request.path_params["number"]
        if not 0 <= number < len(self._round.cards):
            raise HTTPException(404)
        return FileResponse(self._session.folder / f"{number:03d}.jpg", headers=HEADERS)

    def _static(self, request: Request) -> Response:
        name = STATIC.get(request.path_params["name"])
        if name is None:
            raise HTTPException(404)
        return FileResponse(Path(__file__).with_name(name), headers=HEADERS)

    async def _answer(self, request: Request) -> Response:
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > MAX_BODY_BYTES:
                raise HTTPException(413)
        try:
            answer = Answer.from_json(parse_json(body))
        except ValueError as error:
            raise HTTPException(400, str(error)) from None
        if not 0 <= answer.number < len(self._round.cards):
            raise HTTPException(404)
        with self._lock:
            self._session.answer(answer)
        return Response(status_code=204, headers=HEADERS)


def _told(card: Card, answer: Answer | None, has_teacher: bool) -> dict[str, Any]:
    """A card for the page; what is not answered yet begins with what is most likely."""
    if answer is None:
        # a teacher is mostly right; a candidate with a low score mostly is not
        wrong = () if has_teacher else tuple(number for number, box in enumerate(card.boxes) if not box.seen)
        answer = Answer(card.number, wrong, 0, card.counted)
        return {**asdict(card), "answered": False, "answer": _without_number(answer)}
    return {**asdict(card), "answered": True, "answer": _without_number(answer)}


def _without_number(answer: Answer) -> dict[str, Any]:
    return {"wrong": list(answer.wrong), "missed": answer.missed, "crossed": answer.crossed}


@contextmanager
def served(session: Session, port: int) -> Iterator[str]:
    """Serve the page of a round while the block lasts; gives its address.

    Raises:
        EdgeError: the port is taken.
    """
    import uvicorn

    page = Page(session)
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(("127.0.0.1", port))
        # before the address is told: the server takes over a moment later
        listening.listen()
    except OSError as error:
        listening.close()
        raise EdgeError(f"port {port} cannot be used ({error.strerror}); give another --port") from None
    config = uvicorn.Config(page.app(), log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: server.run([listening]), name="accuracy page", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/{page.secret}/"
    finally:
        server.should_exit = True
        thread.join(3)
        listening.close()


def wait_for_answers(session: Session, poll_s: float = 0.5) -> None:
    """Wait until every card has its answer."""
    while session.unanswered():
        time.sleep(poll_s)
