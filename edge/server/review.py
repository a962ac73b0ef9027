"""The routes that find events again: lists by filter, how they lie in time, and which of them somebody has seen."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from edge.errors import EdgeError
from edge.events.index import MAX_BUCKETS, MAX_PAGE, EventIndex, Wanted
from edge.server.json_answer import JsonAnswer
from edge.server.operate import json_body, refuse_unless_json
from edge.server.recordings import Answer, Archive, linked, number_of, seen_by
from edge.server.who import who_of
from edge.users.rights import Who

SEEN = "/api/review/seen"
NS_PER_S = 1_000_000_000
# what comes after fits in no 64 bits
LATEST_S = 4_000_000_000.0
# of the query → of an event
FIELDS = {"streams": "stream", "kinds": "kind", "classes": "class", "zones": "zone", "lines": "line", "labels": "label"}
MAX_WORDS = 64
# no stream has this name
NOTHING = "\0"
MAX_QUERY = 4096
_CURSOR = re.compile(r"(\d{1,19})-(\d{1,19})")


class ReviewRoutes:
    """The answers; the first sentence of each docstring is what ``/api`` says about it.

    What is found is found in threads, next to the pictures of all viewers.
    """

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    def answers(self) -> dict[str, Answer]:
        """Path → answer."""
        return {"/api/review": self.review, "/api/review/density": self.density, SEEN: self.seen}

    async def review(self, request: Request) -> Response:
        """Events, newest first, by streams, kinds, classes, zones, lines, labels, from, to, seen; ?before= goes on."""
        wanted = wanted_in(request.query_params)
        archive, who = seen_by(self._archive, who_of(request)), who_of(request)
        limit = int(min(MAX_PAGE, max(1.0, number_of(request.query_params, "limit", 50.0))))
        before = _cursor(request.query_params.get("before", ""))
        return await self._found(lambda index: _page(index, seen(wanted, who, index), before, limit, archive))

    async def density(self, request: Request) -> Response:
        """How what /api/review would find lies in ?buckets= equal parts of time, and what else can be chosen."""
        wanted = wanted_in(request.query_params)
        buckets = int(min(MAX_BUCKETS, max(1.0, number_of(request.query_params, "buckets", 200.0))))
        who = who_of(request)
        return await self._found(lambda index: _density(index, wanted, who, buckets))

    async def seen(self, request: Request) -> Response:
        """POST {"seen": true, "ids": […]} or {"seen": true, "query": "streams=door"} notes events as seen, or not."""
        refuse_unless_json(request)
        mark = _order(await json_body(request), who_of(request))
        return await self._found(lambda index: dict(zip(("marked", "left"), mark(index), strict=True)))

    async def _found(self, find: Any) -> Response:
        index = self._archive.index
        if index is None:
            raise HTTPException(404, "no events are kept; [events] in the configuration begins it")
        try:
            return JsonAnswer(await run_in_threadpool(find, index))
        except EdgeError as error:
            raise HTTPException(503, str(error)) from None


def _page(
    index: EventIndex, wanted: Wanted, before: tuple[int, int] | None, limit: int, archive: Archive
) -> dict[str, Any]:
    page = index.page(wanted, before, limit)
    # shelves of other processes are read from disk, so only where a clip is to be found there
    has_clips = any(event["links"].get("clip") for event in page.events)
    shelves = archive.shelves() if has_clips else {}
    return {
        "events": linked(archive, page.events, shelves),
        "before": None if page.after is None else "-".join(str(part) for part in page.after),
        "found": page.found,
        "unseen": page.unseen,
    }


def seen(wanted: Wanted, who: Who, index: EventIndex) -> Wanted:
    """The same of the streams that somebody may look at."""
    if who.sees_all:
        return wanted
    asked = wanted.words.get("stream") or index.streams()
    # a list without a word would be all of them
    return replace(wanted, words={**wanted.words, "stream": who.rights.seen(asked) or [NOTHING]})


def _order(body: Any, who: Who) -> Callable[[EventIndex], tuple[int, int]]:
    """What a note of having seen asks of the index: how many it marks, and how many are left."""
    match body:
        case {"seen": bool(is_seen), "ids": list(ids), **rest} if "query" not in rest and _are_ids(ids):
            return lambda index: (index.mark(_seen_ids(ids, who, index), is_seen=is_seen), 0)
        case {"seen": bool(is_seen), "query": str(query), **rest} if "ids" not in rest and len(query) <= MAX_QUERY:
            wanted = wanted_in(QueryParams(parse_qsl(query, keep_blank_values=True)))
            return lambda index: index.mark_all(seen(wanted, who, index), is_seen=is_seen)
    words = f'expected {{"seen": true or false}} with "ids", at most {MAX_PAGE}, or "query", as /api/review takes it'
    raise HTTPException(400, words)


def _seen_ids(ids: list[str], who: Who, index: EventIndex) -> list[str]:
    return ids if who.sees_all else [one for one in ids if who.rights.may("view", index.stream_of(one) or NOTHING)]


def _are_ids(ids: list[Any]) -> bool:
    return len(ids) <= MAX_PAGE and all(isinstance(one, str) and one.isascii() for one in ids)


def wanted_in(query: QueryParams) -> Wanted:
    """The filters of a query. Raises: HTTPException: they make no sense."""
    words = {}
    for key, name in FIELDS.items():
        # names of streams have no comma, zones and classes may
        found = query.get(key, "").split(",") if key == "streams" else query.getlist(key)
        if len(found) > MAX_WORDS:
            raise HTTPException(400, f"{key}: expected at most {MAX_WORDS} words")
        words[name] = [word for word in found if word]
    start_s, end_s = number_of(query, "from", 0.0), number_of(query, "to", LATEST_S)
    seen = query.get("seen", "")
    if seen not in ("", "0", "1"):
        raise HTTPException(400, f"seen: expected 0 or 1, found {seen!r}")
    return Wanted(words, _ns(start_s), _ns(end_s), None if not seen else seen == "1")


def _ns(seconds: float) -> int:
    return int(min(seconds, LATEST_S) * NS_PER_S)


def _cursor(text: str) -> tuple[int, int] | None:
    match = _CURSOR.fullmatch(text)
    if text and match is None:
        raise HTTPException(400, f"before: expected what the last page gave, found {text!r}")
    return None if match is None else (min(int(match[1]), 2**62), min(int(match[2]), 2**62))


def _density(index: EventIndex, asked: Wanted, who: Who, buckets: int) -> dict[str, Any]:
    wanted = seen(asked, who, index)
    span = index.span(() if who.sees_all else seen(Wanted(), who, index).words["stream"])
    if span is None:
        return {"from": None, "to": None, "counts": [], "unseen": [], "choices": {}, "first": None, "last": None}
    # all there is, unless a time was asked for
    start_ns = wanted.start_ns or span[0]
    end_ns = wanted.end_ns if wanted.end_ns < LATEST_S * NS_PER_S else span[1] + 1
    within = Wanted(wanted.words, start_ns, max(end_ns, start_ns + 1), wanted.seen)
    counts, unseen = index.density(within, buckets)
    facets = index.facets(wanted)
    # those of the filter's own field are counted without it
    facets["stream"] = {name: count for name, count in facets["stream"].items() if who.rights.may("view", name)}
    return {
        "from": within.start_ns / NS_PER_S,
        "to": within.end_ns / NS_PER_S,
        "counts": counts,
        "unseen": unseen,
        "choices": {key: facets[name] for key, name in FIELDS.items()},
        "first": span[0] / NS_PER_S,
        "last": span[1] / NS_PER_S,
    }
