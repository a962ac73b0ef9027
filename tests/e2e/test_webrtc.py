"""WebRTC viewing with a real peer: the painted numbers arrive soon, one encoder serves all, nothing is left behind."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import pytest
from e2e.live_show import Show, check_ages, mjpeg_pictures, read_number, show, wait_until

from edge.server import LiveServer
from edge.server.access import Access
from edge.types import Event

pytestmark = [
    pytest.mark.real_server,
    pytest.mark.skipif(importlib.util.find_spec("aiortc") is None, reason="needs aiortc; run: pip install aiortc"),
]
SDP = {"content-type": "application/sdp"}
VIEW, OPERATE = "view-token-of-the-test", "operate-token-of-the-test"


@pytest.fixture
def door() -> Iterator[Show]:
    with show("door") as running:
        yield running


def viewer(running: Show, **options: Any) -> Any:
    from e2e.webrtc_viewer import Viewer

    return Viewer(running.url, **options)


def counts(running: Show) -> dict[str, int]:
    found: dict[str, int] = httpx.get(f"{running.url}/api/stats").json()["webrtc"]
    return found


def encoder_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("video ")]


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def timed(running: Show) -> dict[int, float]:
    """Number → when the picture was taken, before it is annotated; filled while the camera publishes."""
    camera, taken_s = running.cameras[0], {}
    publish = camera.publish

    def publish_timed(*events: Event) -> None:
        taken_s[camera.seq] = time.monotonic()
        publish(*events)

    camera.publish = publish_timed  # type: ignore[method-assign]
    return taken_s


def test_the_pictures_arrive_in_order_and_nothing_is_drawn_before_or_after(door: Show) -> None:
    with door.play():
        wait_until(lambda: door.cameras[0].seq > 5)
        assert door.cameras[0].num_drawn == 0
        with closing(viewer(door)) as client:
            client.start()
            wait_until(lambda: len(client.seen) >= 50)
            assert door.board.counts()["door"] == {**door.board.counts()["door"], "viewers": 1, "encoded": 0}
        wait_until(lambda: door.board.counts()["door"]["viewers"] == 0)
        num_drawn, seq = door.cameras[0].num_drawn, door.cameras[0].seq
        wait_until(lambda: door.cameras[0].seq > seq + 10)
        assert door.cameras[0].num_drawn == num_drawn
        wait_until(lambda: not encoder_threads())
    numbers = [number for number, _ in client.seen]
    assert numbers == sorted(set(numbers))
    assert len(numbers) >= 0.6 * (numbers[-1] - numbers[0] + 1)
    assert counts(door)["peers"] == 0


def test_one_encoder_serves_all_viewers_of_a_stream(door: Show) -> None:
    with door.play(), ExitStack() as stack:
        clients = [stack.enter_context(closing(viewer(door))) for _ in range(4)]
        for client in clients:
            client.start()
        wait_until(lambda: all(len(client.seen) >= 25 for client in clients))
        assert encoder_threads() == ["video door"]
        assert counts(door)["peers"] == 4
        assert counts(door)["encoded"] <= door.cameras[0].num_drawn <= door.cameras[0].seq


def test_from_the_camera_to_a_webrtc_viewer() -> None:
    with show("door", size=(1280, 720), is_textured=True) as running:
        taken_s = timed(running)
        with running.play(), closing(viewer(running)) as client:
            client.start()
            wait_until(lambda: len(client.seen) >= 250)
    ages_ms = [1000 * (seen_s - taken_s[number]) for number, seen_s in client.seen[50:]]
    check_ages("over WebRTC to aiortc", ages_ms, 150)


def test_from_the_camera_to_an_mjpeg_viewer() -> None:
    ages_ms = []
    with show("door", size=(1280, 720), is_textured=True) as running:
        taken_s = timed(running)
        with running.play(), httpx.stream("GET", f"{running.url}/stream/door.mjpeg") as response:
            for jpeg in islice(mjpeg_pictures(response), 250):
                number = read_number(jpeg)
                ages_ms.append(1000 * (time.monotonic() - taken_s[number]))
    check_ages("over MJPEG", ages_ms[50:], 100)


def test_a_viewer_that_is_deleted_ends(door: Show) -> None:
    with door.play(), closing(viewer(door)) as client:
        client.start()
        wait_until(lambda: len(client.seen) >= 5)
        assert httpx.delete(f"{door.url}{client.location}").status_code == 200
        wait_until(lambda: door.board.counts()["door"]["viewers"] == 0)
        assert counts(door)["peers"] == 0
        # a second time nothing is there any more, and that is fine
        assert httpx.delete(f"{door.url}{client.location}").status_code == 200


def test_a_viewer_ends_with_its_own_stream_only(door: Show) -> None:
    with show("door", "yard") as running, running.play(), closing(viewer(running)) as client:
        client.start()
        wait_until(lambda: len(client.seen) >= 5)
        httpx.delete(f"{running.url}{client.location.replace('door', 'yard')}")
        assert counts(running)["peers"] == 1


def test_who_never_connects_is_given_up_and_frees_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.server.webrtc.CONNECT_S", 0.5)
    with show("door") as running, running.play(), closing(viewer(running)) as client:
        client.start(is_connecting=False)
        assert client.status == 201
        wait_until(lambda: counts(running)["peers"] == 0)
        assert counts(running)["timed_out"] == 1
        assert running.cameras[0].num_drawn == 0


def test_a_viewer_that_is_killed_is_freed_long_before_ice_notices(door: Show) -> None:
    script = (
        "import sys, time; from webrtc_viewer import Viewer; viewer = Viewer(sys.argv[1]).start()\n"
        "while len(viewer.seen) < 50: time.sleep(0.05)\n"
        "print('watching', flush=True); time.sleep(600)"
    )
    folders = (Path(__file__).parents[1], Path(__file__).parent)
    path = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))}
    command = [sys.executable, "-c", script, door.url]
    with door.play(), subprocess.Popen(command, stdout=subprocess.PIPE, env=path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"watching\n"
        process.kill()
        killed_s = time.monotonic()
        wait_until(lambda: door.board.counts()["door"]["viewers"] == 0)
        assert time.monotonic() - killed_s < 20
    assert counts(door)["vanished"] == 1


def test_viewers_come_and_go_and_nothing_is_left(door: Show) -> None:
    def come_and_go(times: int) -> None:
        for number in range(times):
            with closing(viewer(door)) as client:
                client.start(is_connecting=number % 3 > 0)
                wait_until(lambda: number % 3 == 0 or len(client.seen) >= 2)  # noqa: B023
                httpx.delete(f"{door.url}{client.location}")
            wait_until(lambda: counts(door)["peers"] == 0)
        wait_until(lambda: not encoder_threads())

    with door.play():
        come_and_go(3)
        before = open_files(), threading.active_count()
        come_and_go(9)
        # the server closes the connections of a client's requests a little after the client does
        wait_until(lambda: open_files() <= before[0] and threading.active_count() <= before[1])


def test_too_many_viewers_are_refused_until_one_leaves() -> None:
    with show("door", max_peers=2) as running, running.play(), ExitStack() as stack:
        clients = [stack.enter_context(closing(viewer(running))) for _ in range(3)]
        assert [client.start().status for client in clients] == [201, 201, 503]
        assert "there are 2 WebRTC viewers already" in clients[2].text
        httpx.delete(f"{running.url}{clients[0].location}")
        with closing(viewer(running)) as another:
            assert another.start().status == 201


def test_stopping_the_server_ends_viewers_and_encoder() -> None:
    with show("door") as running, running.play(), closing(viewer(running)) as client:
        client.start()
        wait_until(lambda: len(client.seen) >= 5)
        began_s = time.monotonic()
        running.server.stop()
        assert time.monotonic() - began_s < 4
        assert running.board.counts()["door"]["viewers"] == 0
        assert not encoder_threads()
        assert not running.board.wants_picture("door")


@pytest.mark.parametrize(
    ("content", "headers", "status", "words"),
    [
        (b"v=0", {"content-type": "text/plain"}, 415, "expected content-type: application/sdp"),
        (b"v=0", SDP, 400, "expected an SDP offer with one video"),
        (b"\xff\xfe", SDP, 400, "found no text"),
        (b"x" * 40_000, SDP, 413, "expected at most 32768 bytes"),
        (b"m=video 9 x 96\r\na=candidate:1 1 udp 1 10.0.0.1 9 typ host\r\n", SDP, 400, "SDP offer cannot be read"),
    ],
)
def test_what_is_no_offer_is_refused_in_one_sentence(
    door: Show, content: bytes, headers: dict[str, str], status: int, words: str
) -> None:
    answer = httpx.post(f"{door.url}/stream/door/whep", content=content, headers=headers, timeout=30)
    assert answer.status_code == status
    assert words in answer.text
    assert counts(door)["peers"] == 0


def test_a_viewer_without_h264_is_told_so(door: Show) -> None:
    import asyncio

    with closing(viewer(door)) as client:
        offer = asyncio.run_coroutine_threadsafe(client.offer(), client._loop).result(30)
        answer = httpx.post(f"{door.url}/stream/door/whep", content=offer.replace("H264", "H269"), headers=SDP)
    assert (answer.status_code, answer.text) == (400, "the offer has no H.264 video; nothing else is sent")


def test_a_server_of_this_machine_alone_opens_no_port_to_others(door: Show) -> None:
    import asyncio

    with closing(viewer(door)) as client:
        offer = asyncio.run_coroutine_threadsafe(client.offer(), client._loop).result(30)
        answer = httpx.post(f"{door.url}/stream/door/whep", content=offer, headers=SDP).text
    assert set(re.findall(r"a=candidate:\S+ 1 udp \d+ (\S+) ", answer)) == {"127.0.0.1"}


def test_an_unknown_stream_is_404(door: Show) -> None:
    answer = httpx.post(f"{door.url}/stream/yard/whep", content=b"v=0", headers=SDP)
    assert (answer.status_code, answer.text) == (404, "there is no stream 'yard'; known: door")


@pytest.mark.parametrize(("token", "status"), [(None, 401), ("wrong", 401), (VIEW, 201), (OPERATE, 201)])
def test_the_view_token_is_enough_and_none_is_too_little(token: str | None, status: int) -> None:
    with show("door") as running:
        server = LiveServer(running.board, port=0, access=Access(OPERATE, VIEW))
        _, port = server.start()
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        running.port = port
        try:
            with closing(viewer(running, headers=headers)) as client:
                assert client.start(is_connecting=False).status == status
        finally:
            server.stop()


def test_the_api_describes_the_routes(door: Show) -> None:
    paths = httpx.get(f"{door.url}/api/openapi.json").json()["paths"]
    assert "application/sdp" in paths["/stream/{name}/whep"]["post"]["requestBody"]["content"]
    assert list(paths["/stream/{name}/whep/{viewer}"]) == ["delete"]


def test_another_site_cannot_post_an_offer(door: Show) -> None:
    """A browser asks with OPTIONS before it sends application/sdp to another site."""
    answer = httpx.options(f"{door.url}/stream/door/whep", headers={"origin": "https://elsewhere.example"})
    assert answer.status_code == 405
    assert "access-control-allow-origin" not in answer.headers
