"""How long a camera may be silent is what its settings say, in the process that reads it too."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import cv2
import numpy as np
import pytest

from edge.errors import SourceError
from edge.sources.deadlines import Deadlines
from edge.sources.direct import Decoding, open_direct
from edge.sources.isolation.source import IsolatedSource

# longer than FFmpeg was once given, whatever the settings said
PAUSE_S = 9.0
HEADER = b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=x\r\n\r\n"


def serve(server: socket.socket, ending: threading.Event) -> None:
    """MJPEG to everyone who asks: a few pictures, a pause, then pictures again."""
    jpeg = cv2.imencode(".jpg", np.full((48, 64, 3), 90, np.uint8))[1].tobytes()
    part = b"--x\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n" % (len(jpeg), jpeg)
    while not ending.is_set():
        with contextlib.suppress(OSError), server.accept()[0] as client:
            client.recv(4096)
            client.sendall(HEADER + part * 4)
            ending.wait(PAUSE_S)
            while not ending.wait(0.02):
                client.sendall(part)


@pytest.fixture
def slow_camera() -> Iterator[str]:
    ending = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        thread = threading.Thread(target=serve, args=(server, ending))
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/video"
        ending.set()
        thread.join(10)


@pytest.mark.parametrize("decoder", ["av", "opencv"])
def test_a_camera_may_be_silent_for_as_long_as_it_was_allowed(slow_camera: str, decoder: str) -> None:
    source = IsolatedSource(
        slow_camera, options={"decoding": {"decoder": decoder}}, deadlines=Deadlines(open_s=60.0, stall_s=60.0)
    )
    began = time.monotonic()
    for _ in range(10):
        assert source.read() is not None
    assert time.monotonic() - began > PAUSE_S - 2, "no pause was tried"
    source.close()


@pytest.mark.parametrize("decoder", ["av", "opencv"])
@pytest.mark.parametrize("scheme", ["http", "rtsp"])
def test_a_silent_camera_is_given_up_in_time_without_a_process_of_its_own(decoder: str, scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        expected = "cannot be opened: it does not answer in time" if decoder == "av" else "cannot be opened"
        with pytest.raises(SourceError, match=expected):
            open_direct(
                f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/x",
                Decoding(decoder),
                deadlines=Deadlines(open_s=1.0, stall_s=1.0),
            )
        assert time.monotonic() - began < 4.0


@pytest.mark.parametrize(("open_s", "of_child_s"), [(1.0, 0.8), (10.0, 8.0), (60.0, 58.0)])
def test_the_child_says_why_it_cannot_open_before_it_is_ended(open_s: float, of_child_s: float) -> None:
    deadlines = Deadlines(open_s=open_s, stall_s=60.0)
    assert deadlines.of_child().open_s == pytest.approx(of_child_s)
    assert deadlines.of_child().stall_s > 60.0
