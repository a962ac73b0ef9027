"""The routes of the live server: the page, the streams, the API, health and metrics."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from edge.overlay.palette import SAFE
from edge.server.account import AccountRoutes
from edge.server.accounts import Accounts
from edge.server.board import LiveBoard
from edge.server.cameras import CameraRoutes
from edge.server.edit import EditRoutes
from edge.server.guard import Guard
from edge.server.json_answer import JSON, JsonAnswer, json_bytes, refusal
from edge.server.messages import METHODS as MESSAGE_METHODS
from edge.server.messages import PHONE, PHONES, PUSH, SNOOZED, SNOOZES, MessageRoutes
from edge.server.night import NightRoutes
from edge.server.operate import Operable, OperateRoutes
from edge.server.push import (
    BOUNDARY,
    Hub,
    PushResponse,
    Wanted,
    event_parts,
    feed_parts,
    mjpeg_parts,
    next_picture,
    parse_seen,
    result_parts,
)
from edge.server.questions import QuestionRoutes
from edge.server.recordings import Answer, Archive, RecordingRoutes
from edge.server.review import SEEN, ReviewRoutes
from edge.server.spans import SpanRoutes
from edge.server.turning import TurnRoutes
from edge.server.visible import visible
from edge.server.webrtc_routes import WebRtcRoutes
from edge.server.who import guarded, refuse_hidden, who_of

if TYPE_CHECKING:
    from edge.server.webrtc import Peers
    from edge.types import UInt8
    from edge.users.rights import Who

# routes that leave out by themselves what may not be seen; all others that name no camera are for those that see all
FOR_EACH = {
    *("/api", "/api/openapi.json", "/api/streams", "/api/stats", "/api/feed", "/api/events", "/readyz", "/metrics"),
    *("/healthz", "/api/recordings", "/api/history", "/snapshots/{file}", "/api/review", "/api/review/density", SEEN),
    *("/api/questions", "/api/questions/{id}"),
    *(PUSH, PHONES, PHONE, SNOOZES, SNOOZED),
    *("/api/me", "/api/logout", "/api/sessions", "/api/sessions/{id}", "/api/audit"),
}
WEB = Path(__file__).parents[1] / "web"
SNAPSHOT_TIMEOUT_S = 2.0
STATS_KEPT_S = 0.5
# one picture in 100 s
MIN_FPS, MAX_FPS = 0.01, 240.0
MAX_WIDTH = 99_999


@dataclass(slots=True)
class Facts:
    """What the pipeline tells the server.

    Attributes:
        board: for the counts of viewers and pictures.
        stats: statistics as JSON values.
        not_ready: None, or the reason for not being ready.
        heat: the heat map of a stream as (H, W, 4) uint8; None where there is none.
        peers: the WebRTC viewers; None where there is no WebRTC.
        access: what is told of logins, empty for nothing.
    """

    board: LiveBoard
    stats: Callable[[], dict[str, Any]]
    not_ready: Callable[[], str | None]
    heat: Callable[[str], UInt8 | None]
    peers: Peers | None = None
    access: Callable[[], dict[str, Any]] = dict
    _now: dict[str, Any] = field(default_factory=dict)
    _text: bytes = b""
    _until_s: float = 0.0

    def now(self, who: Who) -> dict[str, Any]:
        """What this one may know."""
        self._renew()
        return self._now if who.sees_all else visible(self._now, who.rights)

    def text(self, who: Who) -> bytes:
        """The same as JSON; that of all is made at most twice a second however many ask."""
        self._renew()
        return self._text if who.sees_all else json_bytes(visible(self._now, who.rights))

    def _renew(self) -> None:
        now_s = time.monotonic()
        if now_s < self._until_s:
            return
        self._until_s = now_s + STATS_KEPT_S
        webrtc = {} if self.peers is None else {"webrtc": self.peers.counts()}
        access = {"access": told} if (told := self.access()) else {}
        board = {"live": self.board.counts(), "revision": self.board.revision}
        self._now = {**self.stats(), **board, **webrtc, **access}
        self._text = json_bytes(self._now)


def build_app(
    hub: Hub, facts: Facts, accounts: Accounts, operable: Operable | None = None, archive: Archive | None = None
) -> Guard:
    """The ASGI application. Starlette alone: FastAPI would add a third of a second to every start."""
    recorded: dict[str, Answer] = {}
    account = AccountRoutes(accounts)
    if archive is not None:
        archive = replace(archive, streams=lambda: hub.board.streams)
        recorded |= RecordingRoutes(archive).answers()
        recorded |= ReviewRoutes(archive).answers() | SpanRoutes(archive).answers()
    if archive is not None and archive.messages is not None:
        recorded |= MessageRoutes(archive.messages).answers()
    operate = None if operable is None else OperateRoutes(operable)
    routes = _Routes(hub, facts, accounts, operate, account, recorded).table()
    page = Mount("/", StaticFiles(directory=WEB, html=True))
    return Guard(Starlette(routes=[*routes, page], exception_handlers={HTTPException: refusal}), accounts)


class _Routes:
    """The answers; the first sentence of each docstring is what ``/api`` says about it."""

    def __init__(
        self,
        hub: Hub,
        facts: Facts,
        accounts: Accounts,
        operate: OperateRoutes | None,
        account: AccountRoutes,
        recorded: Mapping[str, Answer],
    ) -> None:
        self._operate = operate
        self._accounts = accounts
        self._account = account
        self._recorded = recorded
        self._hub = hub
        self._board = hub.board
        self._facts = facts

    def table(self) -> list[Route]:
        answers: dict[str, Callable[[Request], Awaitable[Response]]] = {
            "/stream/{name}.mjpeg": self.mjpeg,
            "/snapshot/{name}.jpg": self.snapshot,
            "/heatmap/{name}.png": self.heatmap,
            "/api": self.overview,
            "/api/openapi.json": self.openapi,
            "/api/streams": self.streams,
            "/api/stats": self.stats,
            "/api/feed": self.feed,
            "/api/results/{name}": self.results,
            "/api/events": self.events,
            "/api/events/{name}": self.recent_events,
            "/healthz": self.healthz,
            "/readyz": self.readyz,
            "/metrics": self.metrics,
        }
        answers |= {**self._recorded, **self._account.answers()}
        methods: dict[str, list[str]] = {SEEN: ["POST"], **MESSAGE_METHODS, **self._account.methods}
        if self._operate is not None:
            answers["/api/models"] = self._operate.models
            answers["/api/models/{name}/swap"] = self._operate.swap
            answers["/api/reload"] = self._operate.reload
            methods |= {"/api/models/{name}/swap": ["GET", "POST"], "/api/reload": ["POST"]}
            edit = EditRoutes(self._operate.editor, self._known)
            answers |= {"/api/streams/{name}/drawn": edit.drawn, "/api/config/versions": edit.versions}
            methods |= {"/api/streams/{name}/drawn": ["GET", "PUT"], "/api/config/versions": ["GET", "POST"]}
            cameras = CameraRoutes(self._operate.adder)
            answers |= {"/api/cameras": cameras.cameras, "/api/cameras/look": cameras.look}
            methods |= {"/api/cameras": ["GET", "POST"], "/api/cameras/look": ["POST"]}
            night = NightRoutes(self._operate.night)
            answers |= {"/api/night": night.told, "/api/night/page": night.page}
            if self._operate.turner is not None:
                answers["/api/streams/{name}/presets"] = TurnRoutes(self._operate.turner, self._known).presets
                methods["/api/streams/{name}/presets"] = ["GET", "POST"]
            if self._operate.questions is not None:
                asked = QuestionRoutes(self._operate.questions, lambda: self._board.streams)
                answers |= {"/api/questions": asked.questions, "/api/questions/{id}": asked.question}
                methods |= {"/api/questions": ["GET", "POST"], "/api/questions/{id}": ["GET", "PUT", "DELETE"]}
        if self._facts.peers is not None:
            webrtc = WebRtcRoutes(self._facts.peers, self._known, self._accounts.still_sees)
            answers |= {"/stream/{name}/whep": webrtc.whep, "/stream/{name}/whep/{viewer}": webrtc.leave}
            methods |= {"/stream/{name}/whep": ["POST"], "/stream/{name}/whep/{viewer}": ["DELETE"]}
        self._overview = {path: (answer.__doc__ or "").partition("\n")[0] for path, answer in answers.items()}
        self._methods = {path: methods.get(path, ["GET"]) for path in answers}
        return [
            Route(path, self._guarded(path, answer), methods=self._methods[path]) for path, answer in answers.items()
        ]

    def _guarded(self, path: str, answer: Answer) -> Answer:
        return guarded(path, answer, lambda: self._board.streams, is_for_each=path in FOR_EACH)

    async def overview(self, request: Request) -> Response:
        """This list."""
        return JsonAnswer(self._overview)

    async def openapi(self, request: Request) -> Response:
        """The same as OpenAPI 3.1, for programs."""
        from edge.server.schema import openapi_of

        return JsonAnswer(openapi_of(self._overview, self._methods))

    async def mjpeg(self, request: Request) -> Response:
        """Annotated pictures as multipart/x-mixed-replace; ?fps= limits the rate."""
        name, max_fps = self._name(request), _max_fps(request)
        media_type = f"multipart/x-mixed-replace; boundary={BOUNDARY}"
        return PushResponse(lambda: mjpeg_parts(self._hub, name, max_fps), media_type)

    async def snapshot(self, request: Request) -> Response:
        """The next annotated picture as JPEG, or the last one if none comes (X-Is-New: 0)."""
        name = self._name(request)
        shown, is_new = await next_picture(self._hub, name, SNAPSHOT_TIMEOUT_S)
        if shown is None or shown.jpeg is None:
            raise HTTPException(503, f"stream {name} has shown no picture yet")
        return Response(shown.jpeg, media_type="image/jpeg", headers={"x-is-new": str(int(is_new))})

    async def heatmap(self, request: Request) -> Response:
        """Where objects spent their time, as a PNG to be laid over the picture."""
        name = self._name(request)
        drawn = await run_in_threadpool(self._facts.heat, name)
        if drawn is None:
            raise HTTPException(404, f"stream {name} has no heat map; [streams.analytics.heatmap] makes one")
        _, png = cv2.imencode(".png", drawn)
        return Response(png.tobytes(), media_type="image/png", headers={"cache-control": "no-store"})

    async def streams(self, request: Request) -> Response:
        """What the streams are, with their models, and the colours of the classes."""
        colours = [f"#{red:02x}{green:02x}{blue:02x}" for blue, green, red in SAFE]
        who = who_of(request)
        seen = who.rights.seen(self._board.streams)
        cards = [{"name": name, **self._board.info(name), "role": who.rights.on(name)} for name in seen]
        facts = {
            "webrtc": self._facts.peers is not None,
            "revision": self._board.revision,
            "has_messages": PUSH in self._recorded and who.rights.anywhere("view"),
            "can_edit": self._operate is not None and self._operate.editor is not None,
            "has_night": self._operate is not None and self._operate.night is not None and who.sees_all,
            "can_ask": {} if self._operate is None or not self._operate.questions else self._operate.questions.can(),
        }
        return JsonAnswer({"streams": cards, "colours": colours, **facts, "me": self._account.facts_of(who)})

    async def stats(self, request: Request) -> Response:
        """Rates, ages, counts and stage times."""
        return Response(self._facts.text(who_of(request)), media_type=JSON)

    async def feed(self, request: Request) -> Response:
        """Pictures, results, events and statistics of many streams over one connection; ?plain=WIDTH draws nothing."""
        query = request.query_params
        has_pictures = query.get("pictures", "1") != "0"
        seen, width = parse_seen(query.get("seen", "")), _width(request)
        names, who = self._names(request), who_of(request)
        wanted = Wanted(names, _max_fps(request), seen, has_pictures, width, lambda name: who.rights.may("view", name))
        stats = partial(self._facts.text, who)
        return PushResponse(lambda: feed_parts(self._hub, wanted, stats), "application/octet-stream")

    async def results(self, request: Request) -> Response:
        """The JSONL line of every frame as server-sent events."""
        name = self._name(request)
        return PushResponse(lambda: result_parts(self._hub, name), "text/event-stream")

    async def events(self, request: Request) -> Response:
        """Events as server-sent events; Last-Event-ID continues; ?streams=a,b chooses."""
        names = self._names(request)
        seen = parse_seen(request.headers.get("last-event-id", ""))
        return PushResponse(lambda: event_parts(self._hub, names, seen), "text/event-stream")

    async def recent_events(self, request: Request) -> Response:
        """The events of one stream that are still kept, oldest first."""
        events = [event for _, event in self._board.events_after(self._name(request), 0)]
        return Response(b"[" + b",".join(events) + b"]", media_type=JSON)

    async def healthz(self, request: Request) -> Response:
        """200 while the server answers; needs no token."""
        return PlainTextResponse("ok\n")

    async def readyz(self, request: Request) -> Response:
        """200 when results can be expected, else 503 and the reason."""
        reason = self._facts.not_ready()
        if reason is not None and not who_of(request).sees_all:
            # it may be about any camera
            reason = "not ready"
        return PlainTextResponse("ready\n" if reason is None else f"{reason}\n", 200 if reason is None else 503)

    async def metrics(self, request: Request) -> Response:
        """The statistics for Prometheus."""
        from edge.server.metrics import prometheus_text

        return PlainTextResponse(
            prometheus_text(self._facts.now(who_of(request))), media_type="text/plain; version=0.0.4"
        )

    def _name(self, request: Request) -> str:
        return self._known(request.path_params["name"])

    def _names(self, request: Request) -> list[str]:
        """The streams of ``?streams=a,b``, each once; all of them without it."""
        text = request.query_params.get("streams", "")
        names = dict.fromkeys(text.split(",")) if text else who_of(request).rights.seen(self._board.streams)
        for name in names:
            refuse_hidden(request, name, self._board.streams)
        return [self._known(name) for name in names]

    def _known(self, name: str) -> str:
        if name not in self._board.streams:
            known = ", ".join(self._board.streams) or "none"
            raise HTTPException(404, f"there is no stream {name!r}; known: {known}")
        return name


def _max_fps(request: Request) -> float:
    text = request.query_params.get("fps", "0")
    try:
        fps = float(text)
    except ValueError:
        fps = -1.0
    if fps != 0 and not MIN_FPS <= fps <= MAX_FPS:
        raise HTTPException(400, f"fps: expected 0 (all) or a number from {MIN_FPS:g} to {MAX_FPS:.0f}, found {text!r}")
    return fps


def _width(request: Request) -> int:
    text = request.query_params.get("plain", "0")
    if not (text.isdecimal() and len(text) <= len(str(MAX_WIDTH)) and int(text) <= MAX_WIDTH):
        raise HTTPException(
            400, f"plain: expected the width of a place on screen, 0 to {MAX_WIDTH}, found {text[:40]!r}"
        )
    return int(text)
