"""The routes that make something of recordings: a span as one file, a time lapse, a strip of small pictures.

Nothing of it is kept: files go out while they are made, and strips lie in memory.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from edge.errors import EdgeError
from edge.server.json_answer import JsonAnswer
from edge.server.push import PushResponse
from edge.server.recordings import CACHE, NS_PER_S, Answer, Archive, Shelf, iso_of, number_of

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from edge.recording.span import Plan

log = logging.getLogger(__name__)
MAX_SPAN_S = 86_400.0
MAX_LAPSE_SPAN_S = 31 * 86_400.0
MAX_LAPSE_S = 300.0
# files that are being made at once; each reads the disk as fast as its client takes it
MAX_AT_ONCE = 2
MAX_TOLD_GAPS = 1000


class SpanRoutes:
    """The answers; the first sentence of each docstring is what ``/api`` says about it."""

    def __init__(self, archive: Archive) -> None:
        from edge.recording.strip import Strips

        self._archive = archive
        self._places = threading.BoundedSemaphore(MAX_AT_ONCE)
        self._strips = Strips()

    def answers(self) -> dict[str, Answer]:
        """Path → answer."""
        return {
            "/api/export/{name}": self.plan,
            "/export/{name}.mp4": self.export,
            "/lapse/{name}.mp4": self.lapse,
            "/strip/{name}/{file}.jpg": self.strip,
        }

    async def plan(self, request: Request) -> Response:
        """What /export would give of ?from= to ?to=: its files, gaps, seconds and about how many bytes."""
        plan = await run_in_threadpool(self._planned, request, MAX_LAPSE_SPAN_S)
        return JsonAnswer(
            {
                "from": iso_of(plan.parts[0].start_ns),
                "to": iso_of(plan.parts[-1].end_ns),
                "seconds": round(plan.recorded_s, 3),
                "files": len(plan.parts),
                "bytes": plan.num_bytes,
                "gaps": [{"from": iso_of(begin), "to": iso_of(end)} for begin, end in plan.gaps[:MAX_TOLD_GAPS]],
            }
        )

    async def export(self, request: Request) -> Response:
        """What was recorded from ?from= to ?to= (seconds since 1970) as one MP4 of the packets that are there."""
        from edge.recording.span import joined

        plan = await run_in_threadpool(self._planned, request, MAX_SPAN_S)
        return self._file(request, plan, lambda: joined(plan))

    async def lapse(self, request: Request) -> Response:
        """The same span in ?seconds= (20), of its key pictures."""
        from edge.recording.span import lapse

        seconds = min(MAX_LAPSE_S, max(1.0, number_of(request.query_params, "seconds", 20.0)))
        plan = await run_in_threadpool(self._planned, request, MAX_LAPSE_SPAN_S)
        return self._file(request, plan, lambda: lapse(plan, seconds))

    async def strip(self, request: Request) -> Response:
        """Small pictures of a recorded file as one JPEG; X-Strip says how they lie in it, and X-Times when each was."""
        name, file = request.path_params["name"], f"{request.path_params['file']}.mp4"
        shelf = await run_in_threadpool(self._shelf, name)
        if not any(entry.file == file for entry in shelf.entries):
            raise HTTPException(404, "there is no such recording; it may have made room for newer ones")
        path = shelf.folder / file
        if path.is_symlink():
            raise HTTPException(404, "there is no such file any more")
        try:
            strip = await run_in_threadpool(self._strips.of, path)
        except EdgeError as error:
            raise HTTPException(404, str(error)) from None
        from edge.recording.strip import COLUMNS

        width, height = strip.size
        told = {"x-strip": f"{width}x{height}x{COLUMNS}", "x-times": ",".join(f"{time:g}" for time in strip.times_s)}
        return Response(strip.jpeg, media_type="image/jpeg", headers={**CACHE, **told})

    def _file(self, request: Request, plan: Plan, make: Callable[[], Iterator[bytes]]) -> Response:
        begin = iso_of(plan.parts[0].start_ns)[:19].replace(":", "").replace("-", "")
        kind = "attachment" if request.query_params.get("download") == "1" else "inline"
        name = "".join(char if char.isalnum() and char.isascii() else "-" for char in request.path_params["name"])
        told = {"content-disposition": f'{kind}; filename="{name}-{begin}Z.mp4"', "x-gaps": str(len(plan.gaps))}
        if request.method == "HEAD":
            return Response(headers=told, media_type="video/mp4")
        if not self._places.acquire(blocking=False):
            raise HTTPException(503, f"{MAX_AT_ONCE} files are being made; try again when one of them is done")
        answer = _FileResponse(make, self._places.release)
        answer.headers.update(told)
        return answer

    def _planned(self, request: Request, max_s: float) -> Plan:
        from edge.recording.span import planned

        shelf = self._shelf(request.path_params["name"])
        query = request.query_params
        if not query.get("from") or not query.get("to"):
            raise HTTPException(400, "expected ?from= and ?to=, in seconds since 1970")
        start_s, end_s = number_of(query, "from", 0.0), number_of(query, "to", 0.0)
        if not 0 < end_s - start_s <= max_s:
            raise HTTPException(400, f"to: expected up to {max_s:g} s after from, found {end_s - start_s:g} s")
        entries = [entry for entry in shelf.entries if not (shelf.folder / entry.file).is_symlink()]
        try:
            return planned(shelf.folder, entries, round(start_s * NS_PER_S), round(end_s * NS_PER_S))
        except EdgeError as error:
            raise HTTPException(409, str(error)) from None

    def _shelf(self, name: str) -> Shelf:
        shelves = self._archive.shelves()
        if name not in shelves:
            known = ", ".join(shelves) or "none"
            raise HTTPException(404, f"nothing is recorded of {name!r}; recorded: {known}")
        return shelves[name]


class _FileResponse(PushResponse):
    """An MP4 file that is made while it goes out, in threads; ``done`` is called however it ends."""

    def __init__(self, make: Callable[[], Iterator[bytes]], done: Callable[[], None]) -> None:
        super().__init__(lambda: _pieces(make()), "video/mp4")
        self._done = done

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._done()


async def _pieces(made: Iterator[bytes]) -> AsyncIterator[bytes]:
    while (piece := await run_in_threadpool(_next_of, made)) is not None:
        yield piece


def _next_of(made: Iterator[bytes]) -> bytes | None:
    """The next piece; None at the end, which may come early: what went out till then plays."""
    try:
        return next(made, None)
    except EdgeError as error:
        log.warning("%s; the file that was being made ends here", error)
        return None
