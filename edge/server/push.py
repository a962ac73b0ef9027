"""What the server pushes: MJPEG, server-sent events, and the page's own feed of all cameras over one connection.

The feed is a sequence of messages: two big-endian uint32, the lengths of a JSON text and of a JPEG, then both. A
message about a frame has the JSONL line and its picture; the others have only a JSON text with ``stats`` or ``events``.
A page that draws for itself gets plain pictures, and lines with ``shapes``, ``outlines`` and ``tint`` (see
``edge.overlay.marks``) and ``ticks``, the time of the frame in video: 1/90000 s from any beginning.
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from starlette.responses import Response

from edge.server.board import LiveBoard, Shown, Viewer
from edge.server.published import DRAWN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import Receive, Scope, Send

BOUNDARY = "edgeloopframe"
STATS_PERIOD_S = 1.0
# the clock of H.264 over RTP (RFC 6184)
TICKS_PER_S = 90_000
NS_PER_S = 1_000_000_000
# of the largest integer that JavaScript keeps exactly
MAX_DIGITS = 16
# a client that takes nothing for this long has gone, whatever its socket says
STUCK_S = 20.0


class Hub:
    """Wakes the waiting requests of the server's event loop when their stream has something new."""

    def __init__(self, board: LiveBoard, loop: asyncio.AbstractEventLoop) -> None:
        self.board = board
        self.is_closing = False
        self._loop = loop
        self._waiting: dict[str, set[asyncio.Event]] = {}
        board.listen(self._notify)

    def close(self) -> None:
        """End every request. Called in the event loop."""
        self.board.listen(None)
        self.is_closing = True
        for events in self._waiting.values():
            for event in events:
                event.set()

    @contextmanager
    def subscribe(
        self, streams: list[str], *, has_pictures: bool, max_fps: float = 0.0, width: int = DRAWN
    ) -> Iterator[tuple[list[Viewer], asyncio.Event]]:
        """Watch streams: one viewer each, and the event that is set when one of them has something new."""
        wake = asyncio.Event()
        viewers = [self.board.watch(name, has_pictures=has_pictures, max_fps=max_fps, width=width) for name in streams]
        for name in streams:
            self._waiting.setdefault(name, set()).add(wake)
        try:
            yield viewers, wake
        finally:
            for name in streams:
                self._waiting[name].discard(wake)
            for viewer in viewers:
                self.board.leave(viewer)

    def _notify(self, stream: str) -> None:
        # the loop may close between this frame and the end of the server
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._wake, stream)

    def _wake(self, stream: str) -> None:
        for event in self._waiting.get(stream, ()):
            event.set()


class PushResponse(Response):
    """Sends parts as they come until the client goes, the server closes, or the client takes nothing for too long."""

    def __init__(self, parts: Callable[[], AsyncIterator[bytes]], media_type: str) -> None:
        super().__init__(media_type=media_type, headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sender = asyncio.ensure_future(self._send(send))
        gone = asyncio.ensure_future(_wait_until_gone(receive))
        try:
            await asyncio.wait((sender, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sender, gone):
                await _end(task)

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        parts = self._parts()
        try:
            async for part in parts:
                message = {"type": "http.response.body", "body": part, "more_body": True}
                await asyncio.wait_for(send(message), STUCK_S)
        finally:
            await parts.aclose()  # type: ignore[attr-defined]
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _end(task: asyncio.Future[None]) -> None:
    # wait_for of Python 3.11 and before may swallow a cancellation that comes together with its result
    while not task.done():
        task.cancel()
        await asyncio.wait((task,), timeout=0.1)
    # a client that goes in the middle of a part is no error
    with suppress(asyncio.CancelledError, asyncio.TimeoutError, OSError):
        task.result()


async def _wait_until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def mjpeg_parts(hub: Hub, stream: str, max_fps: float) -> AsyncIterator[bytes]:
    """``multipart/x-mixed-replace`` parts of one stream."""
    with hub.subscribe([stream], has_pictures=True, max_fps=max_fps) as (viewers, wake):
        while not hub.is_closing:
            shown = hub.board.take(viewers[0])
            if shown is None or shown.jpeg is None:
                await _wait(wake, viewers)
                continue
            head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(shown.jpeg)}\r\n\r\n"
            yield head.encode() + shown.jpeg + b"\r\n"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a page asks of the feed: streams, frames per second of each (0: all), the last event it has per stream.

    ``has_pictures`` False leaves the pictures out, for who has them over WebRTC. ``width`` is that of the places in
    which the page shows plain pictures and draws for itself; 0: annotated ones. Events come of all streams that
    ``may_see`` is true of.
    """

    streams: list[str]
    max_fps: float = 0.0
    seen: dict[str, int] = field(default_factory=dict)
    has_pictures: bool = True
    width: int = DRAWN
    may_see: Callable[[str], bool] = lambda stream: True


async def feed_parts(hub: Hub, wanted: Wanted, stats_json: Callable[[], bytes]) -> AsyncIterator[bytes]:
    """Messages of the page's feed: the newest frames of its streams, all events, the statistics once a second."""
    loop = asyncio.get_running_loop()
    next_stats_s = loop.time()
    seen = dict(wanted.seen)
    # of a stream that has ended or is offline there will be no other
    for part in [_last_message(hub.board, name, wanted) for name in wanted.streams if wanted.has_pictures]:
        yield part
    with hub.subscribe(
        wanted.streams, has_pictures=wanted.has_pictures, max_fps=wanted.max_fps, width=wanted.width
    ) as (viewers, wake):
        while not hub.is_closing:
            if loop.time() >= next_stats_s:
                next_stats_s = loop.time() + STATS_PERIOD_S
                yield message(b'{"stats":' + stats_json() + b"}", b"")
            events = list(_new_events(hub.board, [one for one in hub.board.streams if wanted.may_see(one)], seen))
            if events:
                yield message(b'{"events":[' + b",".join(events) + b"]}", b"")
            taken = [(viewer, hub.board.take(viewer)) for viewer in viewers]
            frames = [(viewer.width, shown) for viewer, shown in taken if shown is not None]
            for width, shown in frames:
                yield _frame_message(shown, width, wanted.has_pictures)
            if not frames:
                await _wait(wake, viewers, next_stats_s - loop.time())


def _frame_message(shown: Shown, width: int, has_picture: bool) -> bytes:
    """A frame for who shows it at this width; annotated, or with what is to be drawn over it."""
    text = shown.result
    if width != DRAWN and shown.marks:
        text = b'%s,"ticks":%d}' % (shown.marks[:-1], shown.time_ns * TICKS_PER_S // NS_PER_S)
    return message(text, (shown.jpegs.get(width) if has_picture else None) or b"")


def _last_message(board: LiveBoard, stream: str, wanted: Wanted) -> bytes:
    """The newest frame of a stream that there is a picture of, empty without any."""
    if wanted.width == DRAWN:
        shown = board.last_picture(stream)
        return b"" if shown is None else _frame_message(shown, DRAWN, True)
    seen = board.last_seen(stream)
    return b"" if seen is None else _frame_message(*seen, True)


async def result_parts(hub: Hub, stream: str) -> AsyncIterator[bytes]:
    """Server-sent events: the JSONL line of every frame, newest first if the client is slow."""
    yield b"retry: 1000\n\n"
    with hub.subscribe([stream], has_pictures=False) as (viewers, wake):
        while not hub.is_closing:
            shown = hub.board.take(viewers[0])
            if shown is None:
                yield b"" if await _wait(wake, viewers) else b": alive\n\n"
            else:
                yield b"data: " + shown.result + b"\n\n"


async def event_parts(hub: Hub, streams: list[str], seen: dict[str, int]) -> AsyncIterator[bytes]:
    """Server-sent events: what happened in these streams, from those on that the client has not seen.

    The id of each names the last event sent per stream, so that a client that reconnects misses nothing that is kept.
    """
    yield b"retry: 1000\n\n"
    seen = dict(seen)
    with hub.subscribe(streams, has_pictures=False) as (viewers, wake):
        while not hub.is_closing:
            for text in _new_events(hub.board, streams, seen):
                yield b"id: " + format_seen(seen).encode() + b"\ndata: " + text + b"\n\n"
            if not await _wait(wake, viewers):
                yield b": alive\n\n"


def _new_events(board: LiveBoard, streams: list[str], seen: dict[str, int]) -> Iterator[bytes]:
    """The events after those in ``seen``, which is brought up to date with each, with their streams and numbers."""
    for stream in streams:
        for number, event in board.events_after(stream, seen.get(stream, 0)):
            seen[stream] = number
            yield b'{"stream":%s,"number":%d,%s' % (json.dumps(stream).encode(), number, event[1:])


async def next_picture(hub: Hub, stream: str, timeout_s: float) -> tuple[Shown | None, bool]:
    """The next picture of a stream and True, or the last one, if any, and False if none comes in time."""
    deadline_s = asyncio.get_running_loop().time() + timeout_s
    with hub.subscribe([stream], has_pictures=True) as (viewers, wake):
        while not hub.is_closing:
            shown = hub.board.take(viewers[0])
            left_s = deadline_s - asyncio.get_running_loop().time()
            if shown is not None:
                return shown, True
            if left_s <= 0:
                break
            await _wait(wake, viewers, left_s)
    return hub.board.last_picture(stream), False


def message(text: bytes, jpeg: bytes) -> bytes:
    """One message of the feed."""
    return struct.pack(">II", len(text), len(jpeg)) + text + jpeg


def format_seen(seen: dict[str, int]) -> str:
    """``door=3,yard=7``: the id of a server-sent event."""
    return ",".join(f"{stream}={number}" for stream, number in sorted(seen.items()))


def parse_seen(text: str) -> dict[str, int]:
    """The inverse of ``format_seen``; what makes no sense is left out."""
    pairs = (part.rpartition("=") for part in text.split(",") if part)
    return {stream: int(number) for stream, _, number in pairs if number.isdecimal() and len(number) <= MAX_DIGITS}


async def _wait(wake: asyncio.Event, viewers: list[Viewer], timeout_s: float = 5.0) -> bool:
    """Wait for something new, or for the time of a viewer with a frame rate of its own; False when nothing came."""
    if any(viewer.period_ns for viewer in viewers):
        timeout_s = min(timeout_s, max(viewer.period_ns for viewer in viewers) / 1e9)
    try:
        await asyncio.wait_for(wake.wait(), max(timeout_s, 0.001))
    except asyncio.TimeoutError:
        return False
    wake.clear()
    return True
