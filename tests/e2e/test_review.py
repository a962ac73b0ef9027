"""Events are found again over HTTP: a week of sixteen cameras, every filter, page after page, seen and not seen."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from e2e.live_show import wait_until
from e2e.test_page_browser import browser, chromium  # noqa: F401
from e2e.test_recordings_page import shelf  # noqa: F401

from edge.events.index import EventIndex
from edge.events.stored import StoredEvent
from edge.metrics.clock import WallClock
from edge.server import LiveServer
from edge.server.access import Access
from edge.server.board import LiveBoard
from edge.server.recordings import Archive, Shelf

pytestmark = pytest.mark.real_server
NUM_EVENTS = 500_000
WEEK_S = 7 * 86_400
START_S = int(time.time()) - WEEK_S
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


def served(
    index: EventIndex | None,
    token: str | None = None,
    shelves: Callable[[], Mapping[str, Shelf]] = dict,
) -> tuple[LiveServer, str]:
    board = LiveBoard()
    for name in CAMERAS:
        board.add_stream(name, {"source": "rtsp://***", "model": {"classes": CLASSES}})
    access = Access(token, VIEW if token else None)
    server = LiveServer(board, port=0, access=access, archive=Archive(shelves, index=index), max_peers=0)
    _, port = server.start()
    return server, f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def week(tmp_path_factory: pytest.TempPathFactory, shelf: Shelf) -> Iterator[str]:  # noqa: F811
    """The address of a server with half a million events, and twelve recorded seconds of one camera an hour ago."""
    index = EventIndex(tmp_path_factory.mktemp("week") / "week.db", max_days=36500)
    events = list(made_up(NUM_EVENTS))
    for start in range(0, NUM_EVENTS, 20_000):
        index.deliver(events[start : start + 20_000])
    server, address = served(index, shelves=lambda: {"camera-03": shelf})
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
        # names without the time: two processes look at the clock one after the other
        pytest.param(DAY, id="a day"),
        "seen=0",
        "seen=1",
        pytest.param(
            f"streams=camera-01&kinds=zone_entered&classes=car&zones=zone-0-camera-01&labels=blue&seen=0&{DAY}",
            id="all",
        ),
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
    # what the programs next to the tests take is not measured
    assert min(spent) <= MAX_ANSWER_S


def test_deep_pages_are_as_fast_as_the_first(week: str) -> None:
    with httpx.Client(base_url=week) as client:
        middle = (START_S + WEEK_S // 2) * 10**9
        spent = []
        for _ in range(5):
            start = time.perf_counter()
            answer = client.get(f"/api/review?limit=200&before={middle}-0").json()
            spent.append(time.perf_counter() - start)
    assert min(spent) <= MAX_ANSWER_S
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


# the page


LIST = """
const rows = [...document.querySelectorAll(".past-event")];
const list = document.querySelector(".past");
return {rows: rows.length, first: rows[0]?.dataset.id, last: rows.at(-1)?.dataset.id,
        nodes: document.querySelectorAll("*").length, says: document.querySelector(".past-top p")?.textContent ?? "",
        seen: rows.map((row) => row.dataset.seen), top: list?.scrollTop,
        wide: document.documentElement.scrollWidth - innerWidth};
"""
SCROLL = """
const [distance, done] = arguments;
const list = document.querySelector(".past");
const spent = [];
let last = performance.now();
function step() {
  const now = performance.now();
  spent.push(now - last);
  last = now;
  list.scrollTop += distance;
  if (spent.length < 120) requestAnimationFrame(step);
  else done(spent.slice(1).sort((a, b) => a - b));
}
requestAnimationFrame(step);
"""


def listed(browser: Any) -> dict[str, Any]:  # noqa: F811
    return dict(browser.execute_script(LIST))


def opened(browser: Any, week: str, camera: str = "camera-03") -> dict[str, Any]:  # noqa: F811
    browser.get("about:blank")
    browser.get(f"{week}/#/recordings/{camera}")
    wait_until(lambda: "found" in listed(browser)["says"])
    wait_until(lambda: browser.find_elements("css selector", "rect.bar-event"))
    return listed(browser)


def everywhere(browser: Any) -> None:  # noqa: F811
    browser.execute_script("document.querySelectorAll('.tick input')[1].click()")
    wait_until(lambda: listed(browser)["says"].startswith("500,000 found"))


def test_the_page_stays_small_and_smooth_with_half_a_million_events(browser: Any, week: str) -> None:  # noqa: F811
    opened(browser, week)
    everywhere(browser)
    first = listed(browser)
    browser.set_script_timeout(60)
    frames = browser.execute_async_script(SCROLL, 120)
    after = listed(browser)
    print(f"frames while scrolling: median {frames[59]:.1f} ms, worst {frames[-1]:.1f} ms; {after['nodes']} elements")
    assert after["rows"] <= 150
    assert after["nodes"] < 3000
    # 120 steps of 120 px are 180 events
    assert after["top"] > 10_000
    assert after["last"] != first["last"]
    browser.execute_async_script(SCROLL, -200)
    wait_until(lambda: listed(browser)["first"] == first["first"])
    # headless Chromium draws 60 pictures a second; in its slower ones other programs have the processor
    assert frames[30] < 50


def test_filters_find_what_the_api_finds_and_an_event_that_was_opened_is_seen(browser: Any, week: str) -> None:  # noqa: F811
    opened(browser, week)
    select = "document.querySelector('select[data-key=\"classes\"]')"
    wait_until(lambda: not browser.execute_script(f"return {select}.hidden"))
    browser.execute_script(f"{select}.value = 'dog'; {select}.dispatchEvent(new Event('change'))")
    found = httpx.get(f"{week}/api/review?streams=camera-03&classes=dog&limit=1").json()
    wait_until(lambda: listed(browser)["says"].startswith(f"{found['found']:,} found"))
    assert listed(browser)["first"] == found["events"][0]["id"]
    browser.execute_script("document.querySelector('.past-event').click()")
    wait_until(lambda: listed(browser)["seen"][0] == "true")
    wait_until(
        lambda: httpx.get(f"{week}/api/review?streams=camera-03&classes=dog&limit=1").json()["events"][0]["seen"]
    )
    browser.execute_script("document.querySelectorAll('.tick input')[0].click()")
    wait_until(lambda: listed(browser)["says"].startswith(f"{found['found'] - 1:,} found"))
    browser.execute_script("document.querySelector('.filters .button').click()")
    wait_until(lambda: listed(browser)["says"].startswith("0 found"))
    assert httpx.get(f"{week}/api/review?streams=camera-03&classes=dog&seen=0").json()["found"] == 0
    httpx.post(f"{week}/api/review/seen", json={"seen": False, "query": "streams=camera-03"})


WINDOW = "const line = window.edgeloop.view.line; return [line.from, line.to];"


def window(browser: Any) -> tuple[float, float]:  # noqa: F811
    start, end = browser.execute_script(WINDOW)
    return float(start), float(end)


def length(browser: Any) -> float:  # noqa: F811
    start, end = window(browser)
    return end - start


def test_the_time_line_zooms_by_wheel_keys_and_fingers(browser: Any, week: str) -> None:  # noqa: F811
    opened(browser, week)
    whole = length(browser)
    box = browser.execute_script(
        "const box = document.querySelector('.timeline').getBoundingClientRect(); return [box.left, box.top, box.width]"
    )
    x, y = box[0] + box[2] / 4, box[1] + 30
    under = window(browser)[0] + whole / 4
    wheel = {"type": "mouseWheel", "x": x, "y": y, "deltaX": 0, "deltaY": -200}
    browser.execute_cdp_cmd("Input.dispatchMouseEvent", wheel)
    wait_until(lambda: length(browser) < whole * 0.6)
    start, end = window(browser)
    # what was under the pointer is still there
    assert (under - start) / (end - start) == pytest.approx(0.25, abs=0.01)
    before = length(browser)
    press = (
        "document.querySelector('.timeline').dispatchEvent(new KeyboardEvent('keydown', {key: '%s', bubbles: true}))"
    )
    browser.execute_script(press % "-")
    assert length(browser) == pytest.approx(before * 2)
    start = window(browser)[0]
    browser.execute_script(press % "PageDown")
    assert window(browser)[0] == pytest.approx(start + before)
    browser.execute_script(press % "Home")
    assert length(browser) == pytest.approx(whole)
    middle = x + box[2] / 4
    for kind, apart in (("touchStart", 40), ("touchMove", 60), ("touchMove", 120), ("touchMove", 160), ("touchEnd", 0)):
        points = [{"x": middle + side * apart, "y": y, "id": side + 1} for side in (-1, 1)] if apart else []
        browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    wait_until(lambda: length(browser) < whole * 0.5)
    # however far one zooms, there are never more bars than pixels
    for _ in range(12):
        browser.execute_script(press % "-")
    wait_until(lambda: browser.execute_script("return document.querySelectorAll('.timeline rect').length") > 20)
    assert length(browser) == pytest.approx(31 * 86_400)
    assert browser.execute_script("return document.querySelectorAll('.timeline rect').length") < 1500


def zoomed_to(browser: Any, start_s: float, end_s: float) -> None:  # noqa: F811
    browser.execute_script("window.edgeloop.view.line.show(arguments[0], arguments[1])", start_s, end_s)
    wait_until(
        lambda: f"from={start_s}" in browser.execute_script("return document.querySelector('.span-foot a').href")
    )


def test_scrubbing_shows_small_pictures_of_the_moment(browser: Any, week: str, shelf: Shelf) -> None:  # noqa: F811
    opened(browser, week)
    begin_s = shelf.entries[0].start_ns / 1e9
    zoomed_to(browser, begin_s, begin_s + 12)
    seen, picture = [], "document.querySelector('.scrub-picture')"
    for share in (0.05, 0.3, 0.6, 0.95):
        browser.execute_script("window.edgeloop.view.line.hover(arguments[0])", begin_s + share * 12)
        wait_until(lambda: browser.execute_script(f"return !{picture}.hidden"))
        seen.append(browser.execute_script(f"return {picture}.style.backgroundImage + {picture}.dataset.tile"))
    assert len(set(seen)) == 4


def test_the_time_shown_is_saved_as_one_file_that_plays(browser: Any, week: str, shelf: Shelf) -> None:  # noqa: F811
    opened(browser, week)
    begin_s = shelf.entries[0].start_ns / 1e9
    zoomed_to(browser, begin_s + 2, begin_s + 10)
    foot = "return document.querySelector('.span-foot span')?.textContent ?? ''"
    wait_until(lambda: "recorded, about" in browser.execute_script(foot))
    for number, longest_s in ((1, 10), (0, 1)):
        browser.execute_script(
            "const video = document.querySelector('video'); video.muted = true;"
            "video.src = document.querySelectorAll('.span-foot a')[arguments[0]].href; video.play();",
            number,
        )
        wait_until(lambda: browser.execute_script("return document.querySelector('video').ended"), 30)
        shown = browser.execute_script(
            "const v = document.querySelector('video'); return [v.duration, v.videoWidth, v.error]"
        )
        assert shown[1:] == [320, None]
        assert 0.1 < shown[0] <= longest_s


@pytest.mark.parametrize("size", [(1440, 900), (390, 844)])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_is_cut_at_any_size(browser: Any, week: str, size: tuple[int, int], theme: str) -> None:  # noqa: F811
    width, height = size
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        browser.get(week)
        browser.execute_script("localStorage.setItem('theme', arguments[0])", theme)
        assert opened(browser, week)["wide"] <= 0
        picture = browser.get_screenshot_as_png()
        if folder := os.environ.get("REVIEW_PICTURES"):
            Path(folder, f"{width}-{theme}.png").write_bytes(picture)
    finally:
        browser.execute_script("localStorage.removeItem('theme')")
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
