"""What the live server shows: pictures, results, events, and what slow viewers cost."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import islice, pairwise
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from e2e.live_show import HEAT, Show, feed_messages, mjpeg_pictures, read_number, show, sse_events, wait_until

from edge.types import Event


@pytest.fixture
def door() -> Iterator[Show]:
    with show("door") as running:
        yield running


# pictures


def test_nobody_watching_means_nothing_drawn_and_nothing_encoded(door: Show) -> None:
    for _ in range(50):
        door.cameras[0].publish()
    httpx.get(f"{door.url}/api/stats")
    assert door.cameras[0].num_drawn == 0
    assert door.board.counts()["door"] == {"published": 50, "encoded": 0, "viewers": 0, "missed": 0, "events": 0}


def test_mjpeg_shows_every_new_picture_in_order(door: Show) -> None:
    with door.play(), httpx.stream("GET", f"{door.url}/stream/door.mjpeg") as response:
        assert response.headers["content-type"].startswith("multipart/x-mixed-replace; boundary=")
        numbers = [read_number(jpeg) for jpeg in islice(mjpeg_pictures(response), 20)]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] - numbers[0] < 40


def test_a_picture_is_drawn_and_encoded_once_however_many_watch(door: Show) -> None:
    clients = [httpx.Client() for _ in range(5)]
    streams = [client.stream("GET", f"{door.url}/stream/door.mjpeg") for client in clients]
    pictures = [mjpeg_pictures(stream.__enter__()) for stream in streams]
    wait_until(lambda: door.board.counts()["door"]["viewers"] == 5)
    for number in range(10):
        door.cameras[0].publish()
        assert [read_number(next(viewer)) for viewer in pictures] == [number] * 5
    assert door.cameras[0].num_drawn == 10
    assert door.board.counts()["door"]["encoded"] == 10
    for stream, client in zip(streams, clients, strict=True):
        stream.__exit__(None, None, None)
        client.close()
    wait_until(lambda: door.board.counts()["door"]["viewers"] == 0)
    door.cameras[0].publish()
    assert door.cameras[0].num_drawn == 10


def test_a_viewer_may_limit_its_rate_and_then_less_is_drawn(door: Show) -> None:
    with door.play(fps=50), httpx.stream("GET", f"{door.url}/stream/door.mjpeg?fps=5") as response:
        numbers = [read_number(jpeg) for jpeg in islice(mjpeg_pictures(response), 6)]
    assert all(b - a >= 5 for a, b in pairwise(numbers))
    assert door.cameras[0].num_drawn <= 12


def test_snapshot_gives_a_new_picture_without_other_viewers(door: Show) -> None:
    with door.play():
        wait_until(lambda: door.cameras[0].seq > 10)
        before = door.cameras[0].seq
        answer = httpx.get(f"{door.url}/snapshot/door.jpg")
    assert answer.headers["content-type"] == "image/jpeg"
    assert read_number(answer.content) >= before - 1


def test_snapshot_of_a_stream_that_shows_nothing_is_503(door: Show) -> None:
    answer = httpx.get(f"{door.url}/snapshot/door.jpg", timeout=10)
    assert answer.status_code == 503
    assert "has shown no picture yet" in answer.text


def test_a_heat_map_is_a_picture_to_lay_over_the_stream() -> None:
    with show("door", "yard") as running:
        answer = httpx.get(f"{running.url}/heatmap/door.png")
        assert answer.headers["content-type"] == "image/png"
        drawn = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_UNCHANGED)
        assert drawn is not None
        assert np.array_equal(drawn, HEAT)
        none = httpx.get(f"{running.url}/heatmap/yard.png")
        assert none.status_code == 404
        assert "[streams.analytics.heatmap]" in none.text


def test_the_feed_carries_pictures_results_events_and_statistics() -> None:
    with show("door", "yard") as running:
        running.cameras[1].publish(Event("zone_entered", "yard", 5, 4, {"zone": "gate"}))
        with running.play(), httpx.stream("GET", f"{running.url}/api/feed?streams=door,yard") as response:
            kinds: dict[str, Any] = {}
            for message, jpeg in feed_messages(response):
                kinds["stats" if "stats" in message else message.get("stream", "events")] = (message, jpeg)
                if len(kinds) == 4:
                    break
    message, jpeg = kinds["door"]
    assert message["seq"] == read_number(jpeg)
    assert [o["track_id"] for o in message["objects"]] == [3, 4]
    assert kinds["events"][0]["events"][0]["stream"] == "yard"
    assert kinds["stats"][0]["stats"]["streams"]["door"]["fps_out"] == 25.0


def test_the_feed_begins_with_the_last_picture_of_a_stream_that_has_ended(door: Show) -> None:
    with httpx.stream("GET", f"{door.url}/stream/door.mjpeg") as response:
        wait_until(lambda: door.board.counts()["door"]["viewers"] == 1)
        door.cameras[0].publish()
        next(mjpeg_pictures(response))
    with httpx.stream("GET", f"{door.url}/api/feed") as response:
        message, jpeg = next(feed_messages(response))
    assert (message["seq"], read_number(jpeg)) == (0, 0)


# results and events


def test_results_come_as_server_sent_events_without_drawing(door: Show) -> None:
    with door.play(), httpx.stream("GET", f"{door.url}/api/results/door") as response:
        lines = [line for (_, line) in islice(sse_events(response), 5)]
    assert [list(line)[:3] for line in lines] == [["stream", "epoch", "seq"]] * 5
    assert door.cameras[0].num_drawn == 0


def test_a_client_that_reconnects_gets_the_events_that_it_missed(door: Show) -> None:
    for number in range(3):
        door.cameras[0].publish(Event("line_crossed", "door", number, number))
    with httpx.stream("GET", f"{door.url}/api/events") as response:
        seen = list(islice(sse_events(response), 2))
    assert [(i, e["track_id"]) for i, e in seen] == [(f"door={e['number']}", n) for n, (_, e) in enumerate(seen)]
    door.cameras[0].publish(Event("line_crossed", "door", 3, 3))
    with httpx.stream("GET", f"{door.url}/api/events", headers={"Last-Event-ID": seen[-1][0]}) as response:
        rest = list(islice(sse_events(response), 2))
    assert [e["track_id"] for _, e in rest] == [2, 3]
    assert rest[0][1]["captured"].endswith("Z")


def test_a_client_that_reconnects_after_a_restart_gets_all_that_happened_since() -> None:
    with show("door") as before:
        for number in range(5):
            before.cameras[0].publish(Event("line_crossed", "door", number, number))
        with httpx.stream("GET", f"{before.url}/api/events") as response:
            last_id = list(islice(sse_events(response), 5))[-1][0]
    with show("door") as after:
        after.cameras[0].publish(Event("line_crossed", "door", 9, 9))
        with httpx.stream("GET", f"{after.url}/api/events", headers={"Last-Event-ID": last_id}) as response:
            assert next(sse_events(response))[1]["track_id"] == 9
        with httpx.stream("GET", f"{after.url}/api/feed?seen={last_id}") as response:
            events = next(message["events"] for message, _ in feed_messages(response) if "events" in message)
        assert [event["track_id"] for event in events] == [9]


def test_an_event_number_of_thousands_of_digits_is_no_fault_of_the_server(door: Show) -> None:
    door.cameras[0].publish(Event("line_crossed", "door", 1, 1))
    with httpx.stream("GET", f"{door.url}/api/events", headers={"Last-Event-ID": "door=" + "9" * 5000}) as response:
        assert response.status_code == 200
        assert next(sse_events(response))[1]["track_id"] == 1


def test_kept_events_are_bounded(door: Show) -> None:
    for number in range(450):
        door.cameras[0].publish(Event("x", "door", number, number))
    kept = httpx.get(f"{door.url}/api/events/door").json()
    assert [event["track_id"] for event in kept] == list(range(250, 450))


# slow viewers


VIEWERS = """
import asyncio, sys
port, fast, slow = map(int, sys.argv[1:])

async def view(is_slow):
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 16)
    writer.write(b"GET /stream/door.mjpeg HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n")
    while True:
        if is_slow:
            await reader.read(1)
            await asyncio.sleep(1)
        elif not await reader.read(1 << 20):
            return

async def main():
    await asyncio.gather(*(view(i < slow) for i in range(fast + slow)))

asyncio.run(main())
"""


def rate_with_viewers(running: Show, fast: int, slow: int, seconds: float = 4.0) -> tuple[float, int, int]:
    """Frames per second that a camera of 30 frames per second publishes, frames published, and frames encoded."""
    command = [sys.executable, "-c", VIEWERS, str(running.port), str(fast), str(slow)]
    with subprocess.Popen(command) as viewers:
        try:
            wait_until(lambda: running.board.counts()["door"]["viewers"] == fast + slow)
            with running.play(fps=30):
                # the sockets of the slow viewers fill up first
                time.sleep(1.5)
                before, begin_s = running.board.counts()["door"], time.monotonic()
                time.sleep(seconds)
                after, end_s = running.board.counts()["door"], time.monotonic()
        finally:
            viewers.kill()
    published = after["published"] - before["published"]
    return published / (end_s - begin_s), published, after["encoded"] - before["encoded"]


def test_fifty_viewers_of_which_ten_hardly_read_do_not_slow_the_camera() -> None:
    with show("door", size=(1280, 720), is_textured=True) as running:
        alone, *_ = rate_with_viewers(running, 1, 0)
        wait_until(lambda: running.board.counts()["door"]["viewers"] == 0)
        crowd, published, encoded = rate_with_viewers(running, 40, 10)
        wait_until(lambda: running.board.counts()["door"]["viewers"] == 0)
        missed = running.board.counts()["door"]["missed"]
    print(f"one viewer {alone:.2f} fps, fifty {crowd:.2f} fps, ratio {crowd / alone:.3f}, missed {missed}")
    assert crowd / alone >= 0.97
    assert encoded == published
    assert missed > 10 * 30
