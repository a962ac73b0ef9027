"""The routes to what was recorded: lists of files and events, and the files themselves, in ranges.

A file is given out only if the index of its stream names it, so no path can be asked for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from edge.recording.boxes import SUFFIX as NOTES
from edge.server.deeds import tell_more
from edge.server.json_answer import JsonAnswer
from edge.server.who import who_of
from edge.users.rights import Who

if TYPE_CHECKING:
    from edge.events.index import EventIndex
    from edge.recording.index import Recorded
    from edge.server.messages import Messaging

MAX_LISTED = 2000
MAX_EVENTS = 500
NS_PER_S = 1_000_000_000
SNAPSHOT = re.compile(r"[0-9a-f-]{36}\.jpg")
# what a name holds never changes, but it may be removed, and nobody else's cache shall keep it
CACHE = {"cache-control": "private, max-age=3600"}
Answer: TypeAlias = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Shelf:
    """The recordings of one stream: their folder, and the finished files in it, oldest first."""

    folder: Path
    entries: tuple[Recorded, ...]


@dataclass(frozen=True, slots=True)
class Archive:
    """What the server may give out.

    Attributes:
        shelves: stream → its recordings now; any thread may ask.
        history: (limit, stream or None) → the newest events as JSON bodies, newest first.
        snapshots: folder of the events' pictures, None where none are kept.
        index: finds events again, None where none are kept.
        messages: what can be asked of messages to people, None where nobody is told anything.
        streams: the names of those whose events there may be.
    """

    shelves: Callable[[], Mapping[str, Shelf]]
    history: Callable[[int, str | None], Sequence[str]] = lambda limit, stream: ()
    snapshots: Path | None = None
    index: EventIndex | None = None
    messages: Messaging | None = None
    streams: Callable[[], Sequence[str]] = tuple


def seen_by(archive: Archive, who: Who) -> Archive:
    """What somebody may be given of it; the index, whose events are asked for by stream, is as it was."""
    if who.sees_all:
        return archive

    def shelves() -> dict[str, Shelf]:
        return {name: shelf for name, shelf in archive.shelves().items() if who.rights.may("view", name)}

    def history(limit: int, stream: str | None) -> list[str]:
        names = [stream] if stream is not None else archive.streams()
        bodies = [body for name in who.rights.seen(names) for body in archive.history(limit, name)]
        bodies.sort(key=lambda body: str(json.loads(body).get("time", "")), reverse=True)
        return bodies[:limit]

    return replace(archive, shelves=shelves, history=history)


class RecordingRoutes:
    """The answers; the first sentence of each docstring is what ``/api`` says about it.

    Many cameras and days make long lists, so these are gone through in threads, next to the pictures of all viewers.
    """

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    def _seen(self, request: Request) -> Archive:
        return seen_by(self._archive, who_of(request))

    def answers(self) -> dict[str, Answer]:
        """Path → answer."""
        return {
            "/api/recordings": self.recordings,
            "/api/history": self.history,
            "/recordings/{name}/{file}": self.file,
            "/snapshots/{file}": self.snapshot,
        }

    async def recordings(self, request: Request) -> Response:
        """Recorded files, newest first; ?streams=a,b, ?from= and ?to= (seconds since 1970) choose."""
        return await run_in_threadpool(self._recordings, request)

    def _recordings(self, request: Request) -> Response:
        shelves = self._seen(request).shelves()
        names = self._names(request, shelves)
        start_s, end_s = number_of(request.query_params, "from", 0.0), number_of(request.query_params, "to", 1e11)
        found = [
            (entry.start_ns, name, entry)
            for name in names
            for entry in shelves[name].entries
            if entry.end_ns >= start_s * NS_PER_S and entry.start_ns < end_s * NS_PER_S
        ]
        found.sort(key=lambda item: item[:2], reverse=True)
        return JsonAnswer(
            {
                "streams": {name: _summary(shelf) for name, shelf in shelves.items()},
                "recordings": [
                    _listed(name, entry) | _beside(name, entry, shelves[name].folder)
                    for _, name, entry in found[:MAX_LISTED]
                ],
                "left_out": max(0, len(found) - MAX_LISTED),
                "review": self._archive.index is not None,
            },
        )

    async def history(self, request: Request) -> Response:
        """The newest events with their snapshots and clips; ?streams=door chooses one, ?limit= how many."""
        stream = request.query_params.get("streams") or None
        limit = int(min(MAX_EVENTS, max(1.0, number_of(request.query_params, "limit", 100.0))))
        return await run_in_threadpool(self._history, self._seen(request), limit, stream)

    def _history(self, archive: Archive, limit: int, stream: str | None) -> Response:
        events = [json.loads(body) for body in archive.history(limit, stream)]
        return JsonAnswer(linked(archive, events, archive.shelves()))

    async def file(self, request: Request) -> Response:
        """A recorded file as MP4, whole or in ranges, or what was found in it (.vtt); ?download=1 saves it."""
        stream, name = request.path_params["name"], request.path_params["file"]
        path = await run_in_threadpool(self._path, stream, name)
        if path is None:
            raise HTTPException(404, "there is no such recording; it may have made room for newer ones")
        kind = "attachment" if request.query_params.get("download") == "1" else "inline"
        media_type = "text/vtt" if path.suffix == NOTES else "video/mp4"
        return await _given(path, media_type, f"{stream}-{name}", kind)

    def _path(self, stream: str, name: str) -> Path | None:
        """Of a file that the index of the stream names, or of what is kept next to it."""
        shelf = self._archive.shelves().get(stream)
        file = f"{name.removesuffix(NOTES)}.mp4" if name.endswith(NOTES) else name
        is_known = shelf is not None and any(entry.file == file for entry in shelf.entries)
        return shelf.folder / name if shelf is not None and is_known else None

    async def snapshot(self, request: Request) -> Response:
        """The picture of an event as JPEG."""
        folder, name = self._archive.snapshots, request.path_params["file"]
        if folder is None or not SNAPSHOT.fullmatch(name):
            raise HTTPException(404, "there is no such picture")
        who, index = who_of(request), self._archive.index
        if not who.sees_all:
            stream = None if index is None else await run_in_threadpool(index.stream_of, name.removesuffix(".jpg"))
            if stream is None or not who.rights.may("view", stream):
                raise HTTPException(404, "there is no such picture")
            tell_more(request, camera=stream)
        return await _given(folder / name, "image/jpeg", name, "inline")

    def _names(self, request: Request, shelves: Mapping[str, Shelf]) -> list[str]:
        text = request.query_params.get("streams", "")
        names = list(dict.fromkeys(text.split(","))) if text else list(shelves)
        unknown = [name for name in names if name not in shelves]
        if unknown:
            known = ", ".join(shelves) or "none"
            raise HTTPException(404, f"nothing is recorded of {unknown[0]!r}; recorded: {known}")
        return names


def linked(archive: Archive, events: Sequence[dict[str, Any]], shelves: Mapping[str, Shelf]) -> list[dict[str, Any]]:
    """The events with addresses of this server instead of paths."""
    named = {str(event.get("stream", "")) for event in events} & set(shelves)
    files = {name: {entry.file for entry in shelves[name].entries} for name in named}
    return [{**event, "links": _addresses(archive, event, files)} for event in events]


def _addresses(archive: Archive, event: Mapping[str, Any], files: Mapping[str, Set[str]]) -> dict[str, str]:
    """Of what is there; ``files`` are those of each stream."""
    links, addresses = event.get("links") or {}, {}
    snapshot = Path(links.get("snapshot", "")).name
    if archive.snapshots is not None and SNAPSHOT.fullmatch(snapshot):
        addresses["snapshot"] = f"snapshots/{snapshot}"
    clip = Path(links.get("clip", "")).name
    if clip in files.get(event.get("stream", ""), ()):
        addresses["clip"] = f"recordings/{event['stream']}/{clip}"
    return addresses


async def _given(path: Path, media_type: str, name: str, kind: str) -> Response:
    facts = await run_in_threadpool(_facts, path)
    if facts is None:
        raise HTTPException(404, "there is no such file any more")
    return FileResponse(
        path, media_type=media_type, filename=name, content_disposition_type=kind, stat_result=facts, headers=CACHE
    )


def _facts(path: Path) -> Any:
    """Of an ordinary file; a link could lead anywhere."""
    try:
        return None if path.is_symlink() or not path.is_file() else path.stat()
    except OSError:
        return None


def number_of(query: Mapping[str, str], key: str, default: float) -> float:
    """A number of the query, from 0 on. Raises: HTTPException: it is none."""
    text = query.get(key, "")
    try:
        value = float(text) if text else default
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1e11:
        raise HTTPException(400, f"{key}: expected a number, found {text!r}")
    return value


def _summary(shelf: Shelf) -> dict[str, Any]:
    entries = shelf.entries
    first, last = (entries[0].start_ns, max(entry.end_ns for entry in entries)) if entries else (None, None)
    return {
        "files": len(entries),
        "bytes": sum(entry.num_bytes for entry in entries),
        "first": None if first is None else iso_of(first),
        "last": None if last is None else iso_of(last),
    }


def _beside(stream: str, entry: Recorded, folder: Path) -> dict[str, Any]:
    notes = Path(entry.file).with_suffix(NOTES).name
    return {"boxes": f"recordings/{stream}/{notes}"} if (folder / notes).is_file() else {}


def _listed(stream: str, entry: Recorded) -> dict[str, Any]:
    return {
        "stream": stream,
        "file": entry.file,
        "url": f"recordings/{stream}/{entry.file}",
        "kind": entry.kind,
        "start": iso_of(entry.start_ns),
        "end": iso_of(entry.end_ns),
        "seconds": round((entry.end_ns - entry.start_ns) / NS_PER_S, 3),
        "bytes": entry.num_bytes,
        "frames": entry.num_frames,
        "width": entry.width,
        "height": entry.height,
        "events": list(_events(entry)),
    }


def _events(entry: Recorded) -> Iterator[dict[str, Any]]:
    for time_ns, kind in entry.events:
        yield {"kind": kind, "time": iso_of(time_ns), "at_s": round((time_ns - entry.start_ns) / NS_PER_S, 3)}


def iso_of(wall_ns: int) -> str:
    """UTC with milliseconds."""
    when = datetime.fromtimestamp(wall_ns // 1_000_000 / 1e3, timezone.utc)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")
