"""Spans, time lapses and strips over HTTP: what they hold, who gets them, and that nobody can ask for too much."""

from __future__ import annotations

import io
import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import httpx
import numpy as np
import pytest
from e2e.live_show import wait_until
from e2e.test_recordings_page import TOKEN, VIEW, served, shelf  # noqa: F401
from here import run_here
from tiny_models import tiny_model

from edge.recording.index import RecordingIndex
from edge.recording.span import joined, planned
from edge.recording.strip import strip_of
from edge.server.recordings import Archive, Shelf
from edge.server.spans import MAX_AT_ONCE

pytestmark = pytest.mark.real_server


@pytest.fixture
def url(shelf: Shelf) -> Iterator[str]:  # noqa: F811
    server, address, _ = served(Archive(lambda: {"door": shelf}))
    yield address
    server.stop()


def span(shelf: Shelf, start_s: float, end_s: float) -> dict[str, float]:  # noqa: F811
    begin_s = shelf.entries[0].start_ns / 1e9
    return {"from": begin_s + start_s, "to": begin_s + end_s}


def seconds_of(data: bytes) -> float:
    with av.open(io.BytesIO(data)) as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert None not in times
    return float(times[-1] - times[0])  # type: ignore[operator]


def test_a_span_over_several_files_comes_as_one(url: str, shelf: Shelf) -> None:  # noqa: F811
    asked = span(shelf, 3, 10)
    plan = httpx.get(f"{url}/api/export/door", params=asked).json()
    assert (plan["files"], plan["gaps"]) == (3, [])
    assert plan["seconds"] == pytest.approx(7, abs=0.3)
    answer = httpx.get(f"{url}/export/door.mp4", params={**asked, "download": 1})
    assert answer.headers["content-type"] == "video/mp4"
    assert answer.headers["content-disposition"].startswith('attachment; filename="door-2')
    assert answer.headers["x-gaps"] == "0"
    # a key picture every 1.5 s
    assert 6.8 <= seconds_of(answer.content) <= 8.6
    assert plan["bytes"] == pytest.approx(len(answer.content), rel=0.3)


def test_gaps_are_said(shelf: Shelf) -> None:  # noqa: F811
    holey = Shelf(shelf.folder, (shelf.entries[0], shelf.entries[2]))
    server, address, _ = served(Archive(lambda: {"door": holey}))
    try:
        asked = span(shelf, 0, 12)
        plan = httpx.get(f"{address}/api/export/door", params=asked).json()
        assert [gap["from"] < gap["to"] for gap in plan["gaps"]] == [True]
        head = httpx.head(f"{address}/export/door.mp4", params=asked)
        assert (head.status_code, head.headers["x-gaps"]) == (200, "1")
    finally:
        server.stop()


def test_a_time_lapse_is_short(url: str, shelf: Shelf) -> None:  # noqa: F811
    answer = httpx.get(f"{url}/lapse/door.mp4", params={**span(shelf, 0, 12), "seconds": 1})
    assert 0.1 < seconds_of(answer.content) <= 1


def test_a_strip_says_how_it_is_to_be_read(url: str, shelf: Shelf) -> None:  # noqa: F811
    answer = httpx.get(f"{url}/strip/door/{shelf.entries[0].file.removesuffix('.mp4')}.jpg")
    width, height, columns = (int(part) for part in answer.headers["x-strip"].split("x"))
    times = [float(part) for part in answer.headers["x-times"].split(",")]
    image = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    assert image.shape[:2] == (height, width * min(columns, len(times)))
    assert times == sorted(times)
    assert times[0] == 0


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/export/yard.mp4?from=1&to=2", 404, "nothing is recorded of 'yard'; recorded: door"),
        ("/export/door.mp4", 400, "expected ?from= and ?to="),
        ("/export/door.mp4?from=5&to=5", 400, "to: expected up to 86400 s after from"),
        ("/export/door.mp4?from=5&to=99999999", 400, "to: expected up to 86400 s after from"),
        ("/export/door.mp4?from=nan&to=5", 400, "from: expected a number"),
        ("/export/door.mp4?from=5&to=6", 409, "nothing is recorded of this span"),
        ("/lapse/door.mp4?from=5&to=6&seconds=x", 400, "seconds: expected a number"),
        ("/strip/door/..%2fsecret.jpg", 404, ""),
        ("/strip/door/index.jsonl.jpg", 404, "no such recording"),
        ("/strip/yard/x.jpg", 404, "nothing is recorded of 'yard'"),
    ],
)
def test_what_cannot_be_made_is_said_in_words(url: str, path: str, status: int, words: str) -> None:
    answer = httpx.get(url + path)
    assert (answer.status_code, words in answer.text) == (status, True), answer.text
    assert "canary" not in answer.text


def test_they_need_a_token_that_may_look(shelf: Shelf) -> None:  # noqa: F811
    server, address, _ = served(Archive(lambda: {"door": shelf}), TOKEN)
    query = "&".join(f"{key}={value}" for key, value in span(shelf, 0, 3).items())
    strip = f"/strip/door/{shelf.entries[0].file.removesuffix('.mp4')}.jpg"
    try:
        for path in (f"/api/export/door?{query}", f"/export/door.mp4?{query}", f"/lapse/door.mp4?{query}", strip):
            assert httpx.get(address + path).status_code == 401
            for token in (VIEW, TOKEN):
                assert httpx.get(address + path, headers={"authorization": f"Bearer {token}"}).status_code == 200
    finally:
        server.stop()


def test_a_link_in_the_folder_is_not_followed(shelf: Shelf, tmp_path: Path) -> None:  # noqa: F811
    entry = shelf.entries[0]
    (tmp_path / entry.file).symlink_to(shelf.folder / entry.file)
    server, address, _ = served(Archive(lambda: {"door": Shelf(tmp_path, (entry,))}))
    try:
        assert httpx.get(f"{address}/export/door.mp4", params=span(shelf, 0, 3)).status_code == 409
        assert httpx.get(f"{address}/strip/door/{entry.file.removesuffix('.mp4')}.jpg").status_code == 404
    finally:
        server.stop()


def test_files_that_nobody_takes_do_not_keep_their_places(
    url: str,
    shelf: Shelf,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("edge.server.push.STUCK_S", 0.5)
    # larger than what lies in the sockets' buffers
    monkeypatch.setattr("edge.recording.span.joined", lambda plan: iter([b"x" * (1 << 20)] * 64))
    port = int(url.rpartition(":")[2])
    query = "&".join(f"{key}={value}" for key, value in span(shelf, 0, 3).items())
    stuck = [socket.create_connection(("127.0.0.1", port)) for _ in range(MAX_AT_ONCE)]
    try:
        for one in stuck:
            one.sendall(f"GET /export/door.mp4?{query} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            assert one.recv(12) == b"HTTP/1.1 200"
        refused = httpx.get(f"{url}/export/door.mp4?{query}")
        assert (refused.status_code, "try again" in refused.text) == (503, True)
        assert httpx.get(f"{url}/api/export/door?{query}").status_code == 200
        monkeypatch.undo()
        wait_until(lambda: httpx.get(f"{url}/export/door.mp4?{query}").status_code == 200)
    finally:
        for one in stuck:
            one.close()


def test_odd_questions_break_nothing(url: str, shelf: Shelf) -> None:  # noqa: F811
    dice = random.Random(4)
    begin_s = shelf.entries[0].start_ns / 1e9
    odd = ["", "0", "-1", "nan", "inf", "1e11", "1e999", "x", "%00", f"{begin_s}", f"{begin_s + 5}", "9" * 400]
    names = [*["door"] * 6, "yard", "%2e%2e", "door%00", "a" * 500, "\u00e4"]
    seen = set()
    with httpx.Client(base_url=url) as client:
        for _ in range(300):
            path = dice.choice(["/export/{}.mp4", "/lapse/{}.mp4", "/api/export/{}", "/strip/{}/x.jpg"])
            query = {key: dice.choice(odd) for key in ("from", "to", "seconds", "download") if dice.random() < 0.8}
            if dice.random() < 0.3:
                query |= {"from": f"{begin_s}", "to": f"{begin_s + 5}"}
            answer = client.request(dice.choice(["GET", "HEAD"]), path.format(dice.choice(names)), params=query)
            seen.add(answer.status_code)
            assert answer.status_code < 500, (path, query, answer.text)
    assert {200, 400, 404} <= seen
    start = time.monotonic()
    assert httpx.get(f"{url}/healthz").status_code == 200
    assert time.monotonic() - start < 5


def test_what_is_made_of_a_recording_has_its_masks(tmp_path: Path) -> None:
    path = tmp_path / "edge.toml"
    path.write_text(
        f'[model]\npath = "{tiny_model(tmp_path / "tiny.onnx")}"\n'
        '[[streams]]\nname = "door"\nsource = "synthetic://street?seed=3&size=320x180&frames=40"\n'
        "masks = [[[0.0, 0.0], [0.5, 0.0], [0.5, 1.0], [0.0, 1.0]]]\n"
        f'[streams.record]\nfolder = "{tmp_path}/rec"\ncontent = "plain"\nreserve_mb = 0\n'
    )
    assert run_here(["--quiet", "run", str(path)]) == 0
    index = RecordingIndex(tmp_path / "rec" / "door")
    index.load()
    (entry,) = index.entries
    folder = tmp_path / "rec" / "door"
    strip = strip_of(folder / entry.file)
    decoded = cv2.imdecode(np.frombuffer(strip.jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    tile = decoded[: strip.size[1], : strip.size[0]]
    exported = b"".join(joined(planned(folder, index.entries, entry.start_ns, entry.end_ns)))
    with av.open(io.BytesIO(exported)) as container:
        pictures = [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]
    for picture in (tile, *pictures):
        middle = picture.shape[1] // 2
        # one colour where the mask is, a street next to it
        assert float(picture[:, : middle - 8].std()) < 4 < float(picture[:, middle + 8 :].std())
