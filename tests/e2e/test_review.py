"""Events are found again over HTTP: a week of sixteen cameras, every filter, page after page, seen and not seen."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from edge.events.index import EventIndex
from edge.events.stored import StoredEvent
from edge.metrics.clock import WallClock
from edge.server import LiveServer
from edge.server.access import Access
from edge.server.board import LiveBoard
from edge.server.recordings import Archive

pytestmark = pytest.mark.real_server
NUM_EVENTS = 500_000
WEEK_S = 7 * 86_400
START_S = 1_795_000_000
MAX_ANSWER_S = 0.1
OPERATE, VIEW = "operate-" + "x" * 24, "view-" + "x" * 24
CAMERAS = [f"camera-{number:02d}" for number in range(16)]
KINDS = ["line_crossed", "zone_entered", "zone_left", "loitering", "camera_frozen"]
CLASSES = ["person", "car", "truck", "dog"]
LABELS = ["red", "blue", "white", ""]
CLOCK = WallClock(0)


def made_up(num_events: int) -> Iterator[StoredEvent]:
    """A week: busy days, quiet nights; every camera has two zones and two lines of its own names."""
    random = np.random.default_rng(5)
    hours = random.normal(13, 4, num_events) % 24
    times = np.sort(random.integers(0, 7, num_events) * 86_400 + hours * 3600)
    cameras, kinds, classes, parts, labels = (random.integers(0, n, num_events) for n in (16, 40, 40, 2, 4))
    for number in range(num_events):
        kind = KINDS[min(kinds[number] // 10, 3)] if kinds[number] else "camera_frozen"
        camera = CAMERAS[cameras[number]]
        data: dict[str, Any] = {}
        if kind != "camera_frozen":
            place = "line" if kind == "line_crossed" else "zone"
            name = CLASSES[min(classes[number] // 12, 3)] if classes[number] else "dog"
            data = {
                place: f"{place}-{parts[number]}-{camera}",
                "class": name,
                "position_px": [100.5, 220.0],
                "speed_px_s": 31.5,
            }
            if LABELS[labels[number]] and name == "car":
                data["labels"] = {LABELS[labels[number]]: 0.8, "grey": 0.1}
        when = CLOCK.iso(round((START_S + times[number]) * 1e9))
        body = {
            "id": f"id-{number}",
            "kind": kind,
            "stream": camera,
            "time": when,
            "track_id": number % 999,
            "data": data,
            "links": {},
        }
        yield StoredEvent(number, f"id-{number}", camera, kind, json.dumps(body))


def served(index: EventIndex | None, token: str | None = None) -> tuple[LiveServer, str]:
    board = LiveBoard()
    for name in CAMERAS:
        board.add_stream(name, {"source": "rtsp://***", "model": {"classes": CLASSES}})
    access = Access(token, VIEW if token else None)
    server = LiveServer(board, port=0, access=access, archive=Archive(dict, index=index), max_peers=0)
    _, port = server.start()
    return server, f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def week(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with half a million events."""
    index = EventIndex(tmp_path_factory.mktemp("week") / "week.db", max_days=36500)
    events = list(made_up(NUM_EVENTS))
    for start in range(0, NUM_EVENTS, 20_000):
        index.deliver(events[start : start + 20_000])
    server, address = served(index)
    yield address
    server.stop()
    index.close()


DAY = f"from={START_S + 2 * 86_400}&to={START_S + 3 * 86_400}"


@pytest.mark.parametrize("path", ["/api/review", "/api/review/density"])
@pytest.mark.parametrize(
    "query",
    [
        "",
        "streams=camera-03",
        "streams=camera-03,camera-04,camera-15",
        "kinds=camera_frozen",
        "classes=dog",
        "classes=dog&classes=truck",
        "zones=zone-1-camera-07",
        "lines=line-0-camera-00",
        "labels=red",
        DAY,
        "seen=0",
        "seen=1",
        f"streams=camera-01&kinds=zone_entered&classes=car&zones=zone-0-camera-01&labels=blue&seen=0&{DAY}",
        "streams=camera-01&lines=line-0-camera-00",
        "classes=nothing",
    ],
)
def test_every_filter_over_a_week_of_sixteen_cameras_answers_in_100_ms(week: str, path: str, query: str) -> None:
    with httpx.Client(base_url=week) as client:
        spent = []
        for _ in range(7):
            start = time.perf_counter()
            answer = client.get(f"{path}?{query}")
            spent.append(time.perf_counter() - start)
            assert answer.status_code == 200, answer.text
    print(f"{path}?{query}: median {sorted(spent)[3] * 1e3:.1f} ms, worst of 7 {max(spent) * 1e3:.1f} ms")
    # the machine of the tests is shared: what else runs there is not measured
    assert sorted(spent)[3] <= MAX_ANSWER_S


def test_deep_pages_are_as_fast_as_the_first(week: str) -> None:
    with httpx.Client(base_url=week) as client:
        middle = (START_S + WEEK_S // 2) * 10**9
        start = time.perf_counter()
        answer = client.get(f"/api/review?limit=200&before={middle}-0").json()
        assert time.perf_counter() - start <= 3 * MAX_ANSWER_S
    assert len(answer["events"]) == 200
    assert answer["found"] == NUM_EVENTS
    assert answer["before"]


@pytest.fixture
def few(tmp_path: Path) -> Iterator[EventIndex]:
    index = EventIndex(tmp_path / "few.db", max_days=36500)
    index.deliver(list(made_up(100)))
    yield index
    index.close()


def test_the_way_of_an_event_from_unseen_to_seen(few: EventIndex) -> None:
    server, address = served(few)
    try:
        with httpx.Client(base_url=address) as client:
            first = client.get("/api/review?limit=10&seen=0").json()
            assert (len(first["events"]), first["found"], first["unseen"]) == (10, 100, 100)
            ids = [event["id"] for event in first["events"]]
            assert client.post("/api/review/seen", json={"seen": True, "ids": ids}).json() == {"marked": 10, "left": 0}
            after = client.get("/api/review?seen=0").json()
            assert after["found"] == 90
            assert not {event["id"] for event in after["events"]} & set(ids)
            client.post("/api/review/seen", json={"seen": True, "query": "streams=camera-01"})
            assert client.get("/api/review?streams=camera-01&seen=0").json()["found"] == 0
            assert 0 < client.get("/api/review?seen=0").json()["found"] < 90
            client.post("/api/review/seen", json={"seen": False, "query": ""})
            assert client.get("/api/review").json()["unseen"] == 100
    finally:
        server.stop()


def test_density_and_choices_agree_with_what_is_found(few: EventIndex) -> None:
    server, address = served(few)
    try:
        with httpx.Client(base_url=address) as client:
            all_of_it = client.get("/api/review/density?buckets=50").json()
            assert (len(all_of_it["counts"]), sum(all_of_it["counts"]), sum(all_of_it["unseen"])) == (50, 100, 100)
            for key, words in all_of_it["choices"].items():
                for word, count in words.items():
                    assert client.get("/api/review", params={key: word}).json()["found"] == count
            half = f"from={START_S}&to={START_S + WEEK_S / 2}"
            found = client.get(f"/api/review?{half}").json()["found"]
            assert sum(client.get(f"/api/review/density?{half}").json()["counts"]) == found < 100
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/api/review?before=x", "before: expected what the last page gave"),
        ("/api/review?seen=2", "seen: expected 0 or 1"),
        ("/api/review?from=nan", "from: expected a number"),
        ("/api/review/density?buckets=-1", "buckets: expected a number"),
        ("/api/review?" + "&".join(["zones=a"] * 65), "zones: expected at most 64 words"),
    ],
)
def test_a_question_that_makes_no_sense_is_answered_in_words(few: EventIndex, path: str, words: str) -> None:
    server, address = served(few)
    try:
        answer = httpx.get(address + path)
    finally:
        server.stop()
    assert answer.status_code == 400
    assert words in answer.text


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{}", 400),
        (b"[]", 400),
        (b'{"seen": 1, "ids": []}', 400),
        (b'{"seen": true, "ids": [], "query": ""}', 400),
        (b'{"seen": true, "ids": [1]}', 400),
        (b'{"seen": true, "ids": [' + b'"a",' * 200 + b'"a"]}', 400),
        (b'{"seen": true, "query": "' + b"x" * 5000 + b'"}', 400),
        (b'{"seen": true, "query": "seen=7"}', 400),
        (b'{"seen": true, "query": "' + b"a=1&" * 100 + b'"}', 200),
        (b"[" * 20_000, 400),
        (b" " * 70_000, 413),
        (b'{"seen": true, "ids": ["\\ud800"]}', 400),
    ],
)
def test_what_is_no_note_of_having_seen_is_refused(few: EventIndex, body: bytes, status: int) -> None:
    server, address = served(few)
    try:
        sent = httpx.post(f"{address}/api/review/seen", content=body, headers={"content-type": "application/json"})
        # what a form on another site can send
        foreign = httpx.post(f"{address}/api/review/seen", content=body, headers={"content-type": "text/plain"})
    finally:
        server.stop()
    assert (sent.status_code, foreign.status_code) == (status, 415)


def test_finding_again_needs_a_token_that_may_look(few: EventIndex) -> None:
    server, address = served(few, OPERATE)
    note = {"seen": True, "ids": ["id-1"]}
    try:
        for path in ("/api/review", "/api/review/density"):
            assert httpx.get(address + path).status_code == 401
            for token in (VIEW, OPERATE):
                assert httpx.get(address + path, headers={"authorization": f"Bearer {token}"}).status_code == 200
        assert httpx.post(f"{address}/api/review/seen", json=note).status_code == 401
        headers = {"authorization": f"Bearer {VIEW}"}
        assert httpx.post(f"{address}/api/review/seen", json=note, headers=headers).status_code == 200
    finally:
        server.stop()


def test_a_device_that_keeps_no_events_says_so() -> None:
    server, address = served(None)
    try:
        answer = httpx.get(f"{address}/api/review")
    finally:
        server.stop()
    assert (answer.status_code, "[events]" in answer.text) == (404, True)


def test_a_file_that_cannot_be_used_is_a_503_in_words(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    server, address = served(EventIndex(tmp_path / "taken" / "review.db"))
    try:
        answer = httpx.get(f"{address}/api/review")
    finally:
        server.stop()
    assert (answer.status_code, "cannot be used" in answer.text) == (503, True)
