"""The routes of the live server: the page, the streams, the API, health and metrics."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Query, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.staticfiles import StaticFiles

from edge.live import LiveBoard
from edge.server_guard import Guard
from edge.server_metrics import prometheus_text
from edge.server_push import (
    BOUNDARY,
    Hub,
    PushResponse,
    event_parts,
    feed_parts,
    mjpeg_parts,
    next_picture,
    parse_seen,
    result_parts,
)

WEB = Path(__file__).parent / "web"
SNAPSHOT_TIMEOUT_S = 2.0
STATS_KEPT_S = 0.5
JSON = "application/json"
MjpegRate = Annotated[float, Query(ge=0, le=240, description="frames per second, 0 for all")]


@dataclass(slots=True)
class Facts:
    """What the pipeline tells the server.

    Attributes:
        board: for the counts of viewers and pictures.
        stats: statistics as JSON values.
        not_ready: None, or the reason for not being ready.
    """

    board: LiveBoard
    stats: Callable[[], dict[str, Any]]
    not_ready: Callable[[], str | None]
    _text: bytes = b""
    _until_s: float = 0.0

    def now(self) -> dict[str, Any]:
        return {**self.stats(), "live": self.board.counts()}

    def text(self) -> bytes:
        """The statistics as JSON, made at most twice a second however many ask."""
        now_s = time.monotonic()
        if now_s >= self._until_s:
            self._until_s = now_s + STATS_KEPT_S
            # numpy numbers and paths must not break the page
            self._text = json.dumps(self.now(), default=str).encode()
        return self._text


def build_app(board: LiveBoard, hub: Callable[[], Hub], facts: Facts, token: str | None) -> Guard:
    """The ASGI application. ``hub`` is called within the event loop only."""
    # the usual documentation pages would load scripts from elsewhere
    app = FastAPI(title="Edgeloop", docs_url=None, redoc_url=None)
    _add_streams(app, board, hub)
    _add_api(app, board, hub, facts)
    _add_health(app, facts)
    app.mount("/", StaticFiles(directory=WEB, html=True))
    return Guard(app, token)


def _add_streams(app: FastAPI, board: LiveBoard, hub: Callable[[], Hub]) -> None:
    @app.get("/stream/{name}.mjpeg", summary="Annotated pictures as multipart/x-mixed-replace")
    async def mjpeg(name: str, fps: MjpegRate = 0) -> Response:
        _check(board, name)
        media_type = f"multipart/x-mixed-replace; boundary={BOUNDARY}"
        return PushResponse(lambda: mjpeg_parts(hub(), name, fps), media_type)

    @app.get("/snapshot/{name}.jpg", summary="The next annotated picture, or the last one")
    async def snapshot(name: str) -> Response:
        _check(board, name)
        shown = await next_picture(hub(), name, SNAPSHOT_TIMEOUT_S)
        if shown is None or shown.jpeg is None:
            raise HTTPException(503, f"stream {name} has shown no picture yet")
        return Response(shown.jpeg, media_type="image/jpeg")


def _add_api(app: FastAPI, board: LiveBoard, hub: Callable[[], Hub], facts: Facts) -> None:
    @app.get("/api/streams", summary="What the streams are")
    async def streams() -> Response:
        return JSONResponse({"streams": [{"name": name, **board.info(name)} for name in board.streams]})

    @app.get("/api/stats", summary="Rates, ages, counts, stage times")
    async def stats() -> Response:
        return Response(facts.text(), media_type=JSON)

    @app.get("/api/feed", summary="Pictures and results of many streams over one connection, for the page")
    async def feed(streams: str = "", fps: MjpegRate = 0) -> Response:
        names = _names(board, streams)
        return PushResponse(lambda: feed_parts(hub(), names, fps, facts.text), "application/octet-stream")

    @app.get("/api/results/{name}", summary="JSONL lines as server-sent events")
    async def results(name: str) -> Response:
        _check(board, name)
        return PushResponse(lambda: result_parts(hub(), name), "text/event-stream")

    @app.get("/api/events", summary="Events as server-sent events; Last-Event-ID continues")
    async def events(request: Request, streams: str = "") -> Response:
        names = _names(board, streams)
        seen = parse_seen(request.headers.get("last-event-id", ""))
        return PushResponse(lambda: event_parts(hub(), names, seen), "text/event-stream")

    @app.get("/api/events/{name}", summary="The events of one stream that are still kept, oldest first")
    async def recent_events(name: str) -> Response:
        _check(board, name)
        return Response(b"[" + b",".join(event for _, event in board.events_after(name, 0)) + b"]", media_type=JSON)


def _add_health(app: FastAPI, facts: Facts) -> None:
    @app.get("/healthz", summary="The server answers")
    async def healthz() -> Response:
        return PlainTextResponse("ok\n")

    @app.get("/readyz", summary="200 when results can be expected, else 503 and the reason")
    async def readyz() -> Response:
        reason = facts.not_ready()
        return PlainTextResponse("ready\n" if reason is None else f"{reason}\n", 200 if reason is None else 503)

    @app.get("/metrics", summary="Prometheus")
    async def metrics() -> Response:
        return PlainTextResponse(prometheus_text(facts.now()), media_type="text/plain; version=0.0.4")


def _check(board: LiveBoard, name: str) -> None:
    if name not in board.streams:
        raise HTTPException(404, f"there is no stream {name!r}; known: {', '.join(board.streams) or 'none'}")


def _names(board: LiveBoard, text: str) -> list[str]:
    """The streams of a comma-separated list, each once; all of them if it is empty."""
    names = list(dict.fromkeys(text.split(","))) if text else list(board.streams)
    for name in names:
        _check(board, name)
    return names
