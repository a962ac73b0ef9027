"""Recordings over HTTP and on the page: lists, ranges, nothing but what the index names; and a browser that plays."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import cv2
import httpx
import numpy as np
import pytest
from e2e.live_show import wait_until
from e2e.test_page_browser import browser, chromium  # noqa: F401

from edge.config.recording import RecordSettings
from edge.metrics.clock import WallClock
from edge.server import LiveServer
from edge.server.board import LiveBoard
from edge.server.recordings import Archive, Shelf
from edge.sinks.record import RecordSink
from edge.types import Detections, Event, Frame, Result

pytestmark = pytest.mark.real_server
ID = "053f6a17-855b-5862-89c5-ed87d6ee8922"
TOKEN = "operate-" + "x" * 24
VIEW = "view-" + "x" * 24
FPS = 10


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    """12 s of a moving bar in segments of 4.5 s (from key picture to key picture), an hour ago; an event after 6 s."""
    folder = tmp_path_factory.mktemp("recordings")
    (folder / "secret.txt").write_text("canary")
    start_ns = time.time_ns() - 3600 * 10**9
    settings = RecordSettings(folder=folder, content="plain", segment_s=4, reserve_mb=0)
    sink = RecordSink(settings, "door", fps=FPS, is_lossless=True, clock=WallClock(start_ns))
    for number in range(12 * FPS):
        image = np.zeros((180, 320, 3), np.uint8)
        image[:, number * 2 : number * 2 + 40] = 220
        events = (Event("line_crossed", "door", number, 1),) if number == 6 * FPS else ()
        time_ns = number * 10**9 // FPS
        sink.write(
            Result(Frame("door", 0, number, time_ns, None, image), Detections.empty(), events=events), image.copy
        )
    sink.close()
    return Shelf(sink.folder, sink.entries())


@pytest.fixture(scope="module")
def snapshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("snapshots")
    cv2.imwrite(str(folder / f"{ID}.jpg"), np.full((90, 160, 3), 128, np.uint8))
    (folder / "notes.txt").write_text("canary")
    return folder


@pytest.fixture(scope="module")
def archive(shelf: Shelf, snapshots: Path) -> Archive:
    when_ns = shelf.entries[0].start_ns + 6 * 10**9
    event = {
        "id": ID,
        "kind": "line_crossed",
        "stream": "door",
        "time": WallClock(0).iso(when_ns),
        "data": {"line": "a"},
    }
    links = {"snapshot": str(snapshots / f"{ID}.jpg"), "clip": "/elsewhere/gone-clip.mp4"}
    return Archive(lambda: {"door": shelf}, lambda limit, stream: [json.dumps({**event, "links": links})], snapshots)


def served(archive: Archive, token: str | None = None) -> tuple[LiveServer, str, LiveBoard]:
    from edge.server.access import Access

    board = LiveBoard()
    board.add_stream("door", {"source": "rtsp://***", "model": {"classes": []}})
    stats = {"streams": {"door": {"state": "streaming"}}, "recordings": {"door": {}}}
    access = Access(token, VIEW if token else None)
    server = LiveServer(board, port=0, access=access, archive=archive, max_peers=0, stats=lambda: dict(stats))
    _, port = server.start()
    return server, f"http://127.0.0.1:{port}", board


@pytest.fixture
def url(archive: Archive) -> Iterator[str]:
    server, address, _ = served(archive)
    yield address
    server.stop()


def test_recordings_are_listed_newest_first_and_chosen_by_time(url: str, shelf: Shelf) -> None:
    answer = httpx.get(f"{url}/api/recordings").json()
    assert [one["file"] for one in answer["recordings"]] == [entry.file for entry in reversed(shelf.entries)]
    assert answer["streams"]["door"]["files"] == len(shelf.entries) == 3
    assert answer["left_out"] == 0
    (event,) = answer["recordings"][1]["events"]
    assert event["kind"] == "line_crossed"
    assert event["at_s"] == 1.5
    middle_s = shelf.entries[1].start_ns / 1e9 + 1
    chosen = httpx.get(f"{url}/api/recordings", params={"streams": "door", "from": middle_s, "to": middle_s + 1}).json()
    assert [one["file"] for one in chosen["recordings"]] == [shelf.entries[1].file]


def test_a_file_comes_whole_or_in_ranges(url: str, shelf: Shelf) -> None:
    entry = shelf.entries[0]
    content = (shelf.folder / entry.file).read_bytes()
    address = f"{url}/recordings/door/{entry.file}"
    whole = httpx.get(address)
    assert (whole.status_code, whole.headers["content-type"], whole.content) == (200, "video/mp4", content)
    assert whole.headers["accept-ranges"] == "bytes"
    part = httpx.get(address, headers={"range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, content[100:200])
    assert part.headers["content-range"] == f"bytes 100-199/{len(content)}"
    assert httpx.get(address, headers={"range": f"bytes={len(content) + 5}-"}).status_code == 416
    assert "attachment" in httpx.get(f"{address}?download=1").headers["content-disposition"]


@pytest.mark.parametrize(
    "path",
    [
        "/recordings/door/index.jsonl",
        "/recordings/door/.lock",
        "/recordings/door/..%2fsecret.txt",
        "/recordings/door/%2e%2e/secret.txt",
        "/recordings/door/..%5csecret.txt",
        "/recordings/%2e%2e/secret.txt",
        "/recordings/yard/x.mp4",
        "/recordings/door/x.mp4",
        "/snapshots/notes.txt",
        "/snapshots/..%2fsecret.txt",
        f"/snapshots/{ID}.jpg%00",
    ],
)
def test_nothing_is_given_out_that_the_index_does_not_name(url: str, path: str) -> None:
    answer = httpx.get(url + path)
    assert answer.status_code == 404
    assert "canary" not in answer.text


def test_a_recording_that_has_made_room_is_a_404(archive: Archive, shelf: Shelf) -> None:
    entry = shelf.entries[0]
    gone = Shelf(shelf.folder / "nowhere", shelf.entries)
    server, address, _ = served(Archive(lambda: {"door": gone}))
    try:
        assert httpx.get(f"{address}/recordings/door/{entry.file}").status_code == 404
    finally:
        server.stop()


@pytest.mark.parametrize("path", ["/api/recordings?streams=yard", "/api/recordings?from=x", "/api/history?limit=-1"])
def test_a_question_that_makes_no_sense_is_answered_in_words(url: str, path: str) -> None:
    answer = httpx.get(url + path)
    assert answer.status_code in (400, 404)
    assert "expected" in answer.text or "recorded: door" in answer.text


@pytest.mark.parametrize("path", ["/api/recordings", "/api/history", "/recordings/door/x.mp4"])
def test_long_lists_do_not_hold_up_other_answers(shelf: Shelf, path: str) -> None:
    """Sixteen cameras and thirty days are 270 ms of work, and the pictures of all viewers come from the same thread."""
    is_asked, may_go_on = threading.Event(), threading.Event()

    def slow_shelves() -> dict[str, Shelf]:
        is_asked.set()
        may_go_on.wait(10)
        return {"door": shelf}

    server, address, _ = served(Archive(slow_shelves))
    try:
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(httpx.get, address + path, timeout=20)
            assert is_asked.wait(10)
            try:
                assert httpx.get(f"{address}/healthz", timeout=5).status_code == 200
            finally:
                may_go_on.set()
            assert answer.result().status_code in (200, 404)
    finally:
        server.stop()


def test_events_have_addresses_instead_of_paths(url: str) -> None:
    (event,) = httpx.get(f"{url}/api/history").json()
    assert event["links"] == {"snapshot": f"snapshots/{ID}.jpg"}
    picture = httpx.get(f"{url}/{event['links']['snapshot']}")
    assert (picture.status_code, picture.headers["content-type"]) == (200, "image/jpeg")


def test_recordings_need_a_token_that_may_look(archive: Archive, shelf: Shelf) -> None:
    server, address, _ = served(archive, TOKEN)
    paths = ["/api/recordings", "/api/history", f"/recordings/door/{shelf.entries[0].file}", f"/snapshots/{ID}.jpg"]
    try:
        for path in paths:
            assert httpx.get(address + path).status_code == 401
            for token in (VIEW, TOKEN):
                assert httpx.get(address + path, headers={"authorization": f"Bearer {token}"}).status_code == 200
    finally:
        server.stop()


STATE = """
const video = document.querySelector("video") || {};
return {time: video.currentTime, length: video.duration, width: video.videoWidth, error: video.error?.message || "",
        source: decodeURI(video.currentSrc || ""), wide: document.documentElement.scrollWidth - innerWidth};
"""


def test_the_page_plays_a_recording_from_its_event(browser: Any, url: str, shelf: Shelf) -> None:  # noqa: F811
    browser.get(f"{url}/#/recordings")
    wait_until(lambda: len(browser.find_elements("css selector", ".file-row")) == 3)
    wait_until(lambda: browser.execute_script(STATE)["width"] == 320)
    browser.execute_script("document.querySelector('video').muted = true")
    browser.execute_script("document.querySelector('.past-event').click()")
    # the event was 6 s after the beginning, in the second file, and is shown from 3 s before
    wait_until(lambda: browser.execute_script(STATE)["source"].endswith(f"{shelf.entries[0].file}#t=3.00"))
    wait_until(lambda: browser.execute_script(STATE)["length"] is not None)
    state = browser.execute_script(STATE)
    assert not state["error"]
    assert state["length"] == pytest.approx(4.5, abs=0.2)
    assert state["wide"] <= 0
    browser.execute_script("document.querySelectorAll('.file-row')[0].click()")
    wait_until(lambda: browser.execute_script(STATE)["time"] > 0.5)
    assert browser.execute_script(STATE)["source"].endswith(shelf.entries[2].file)


BOXES = """
const video = document.querySelector("video").getBoundingClientRect();
return [...document.querySelectorAll(".box-layer rect")].map((one) => one.getBoundingClientRect()).map((box) => [
  (box.left - video.left) / video.width, (box.top - video.top) / video.height,
  (box.right - video.left) / video.width, (box.bottom - video.top) / video.height]);
"""


def test_what_was_found_is_drawn_over_the_packets_of_the_camera(
    browser: Any,  # noqa: F811
    archive: Archive,
    shelf: Shelf,
) -> None:
    # found in a picture of a quarter of the size; the frame of the player is 16:9, as the file is
    notes = (shelf.folder / shelf.entries[0].file).with_suffix(".vtt")
    found = {"width": 80, "height": 45, "objects": [{"track_id": 7, "class": "car", "xyxy": [20, 9, 40, 36]}]}
    notes.write_text(f"WEBVTT\n\n00:00:01.000 --> 00:00:04.000\n{json.dumps(found)}\n")
    server, address, _ = served(archive)
    try:
        listed = httpx.get(f"{address}/api/recordings").json()["recordings"]
        assert [one.get("boxes") for one in listed] == [None, None, f"recordings/door/{notes.name}"]
        answer = httpx.get(f"{address}/recordings/door/{notes.name}")
        assert answer.headers["content-type"].startswith("text/vtt")
        assert httpx.get(f"{address}/recordings/door/other.vtt").status_code == 404
        browser.get(f"{address}/#/recordings")
        wait_until(lambda: len(browser.find_elements("css selector", ".file-row")) == 3)
        browser.execute_script("document.querySelector('video').muted = true")
        browser.execute_script("document.querySelectorAll('.file-row')[2].click()")
        wait_until(lambda: browser.execute_script(STATE)["time"] > 0.2)
        assert browser.execute_script(BOXES) == []
        browser.execute_script("const v = document.querySelector('video'); v.pause(); v.currentTime = 2;")
        wait_until(lambda: len(browser.execute_script(BOXES)) == 1)
        (box,) = browser.execute_script(BOXES)
        assert box == pytest.approx([0.25, 0.2, 0.5, 0.8], abs=0.02)
        assert browser.execute_script("return document.querySelector('.box-layer text').textContent") == "car 7"
        browser.execute_script("document.querySelectorAll('.file-row')[0].click()")
        wait_until(lambda: browser.execute_script(BOXES) == [])
    finally:
        server.stop()
        notes.unlink()


@pytest.mark.parametrize(
    ("day", "hours", "first_at"),
    [("2026-10-25", 25, "05:15"), ("2026-03-29", 23, "06:45"), ("2026-11-22", 24, "06:00")],
)
def test_a_day_ends_at_the_next_midnight_when_the_clocks_change(
    browser: Any,  # noqa: F811
    shelf: Shelf,
    day: str,
    hours: int,
    first_at: str,
) -> None:
    begin = datetime.fromisoformat(day).replace(tzinfo=ZoneInfo("Europe/Berlin"))
    end_ns = int(begin.timestamp() + hours * 3600) * 10**9
    # the last minutes of the day, and the first ones of the next
    late, next_day = (
        replace(entry, start_ns=end_ns + at_s * 10**9, end_ns=end_ns + (at_s + 4) * 10**9, events=())
        for entry, at_s in zip(shelf.entries, (-600, 600), strict=False)
    )
    server, address, _ = served(Archive(lambda: {"door": Shelf(shelf.folder, (late, next_day))}))
    browser.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": "Europe/Berlin"})
    try:
        browser.get(f"{address}/#/recordings/door?t={begin.timestamp():.0f}")
        wait_until(lambda: browser.find_elements("css selector", ".file-row"))
        assert [row.get_attribute("data-url") for row in browser.find_elements("css selector", ".file-row")] == [
            f"recordings/door/{late.file}"
        ]
        x = float(browser.execute_script("return document.querySelector('.timeline rect').getAttribute('x')"))
        assert x == pytest.approx(1440 * (1 - 1 / (6 * hours)), abs=0.1)
        hours_shown = browser.execute_script("return document.querySelector('.hours').innerText").split()
        assert (hours_shown[0], hours_shown[1], hours_shown[-1]) == ("00:00", first_at, "24:00")
        browser.execute_script("document.querySelector('[aria-label=\"The day after\"]').click()")
        wait_until(lambda: browser.execute_script("return document.querySelector('.date').value") > day)
        browser.execute_script("document.querySelector('[aria-label=\"The day before\"]').click()")
        wait_until(lambda: browser.execute_script("return document.querySelector('.date').value") == day)
    finally:
        browser.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": ""})
        server.stop()


@pytest.mark.parametrize("place", ["/%E0%A4%A?t=1e999", "/door?t=-1e300", "?t=x"])
def test_a_mistyped_time_or_name_shows_today(place: str, browser: Any, url: str) -> None:  # noqa: F811
    browser.get(f"{url}/#/recordings{place}")
    wait_until(lambda: "Recordings" in browser.title)
    assert browser.execute_script("return document.querySelector('.recordings') !== null")


def test_the_page_follows_streams_that_come_and_go(browser: Any, archive: Archive) -> None:  # noqa: F811
    server, address, board = served(archive)
    try:
        browser.get(f"{address}/")
        wait_until(lambda: len(browser.find_elements("css selector", ".card")) == 1)
        board.add_stream("yard", {"source": "rtsp://***", "model": {"name": "first", "classes": []}})
        wait_until(lambda: len(browser.find_elements("css selector", ".card")) == 2)
        browser.get(f"{address}/#/camera/yard")
        wait_until(
            lambda: "first" in browser.execute_script("return document.querySelector('.card-list')?.innerText || ''")
        )
        board.add_stream("yard", {"source": "rtsp://***", "model": {"name": "second", "classes": []}})
        wait_until(
            lambda: "second" in browser.execute_script("return document.querySelector('.card-list')?.innerText || ''")
        )
        board.remove_stream("yard")
        wait_until(lambda: len(browser.find_elements("css selector", ".card")) == 1)
    finally:
        server.stop()
