"""Cameras that speak SRT, played by ffmpeg: plain, encrypted, calling or called; lost and found again."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from camera_rig import emitted, free_port, null_pipeline, started_pipelines, wait_for
from needs import LIBSRT, need
from waiting import wait_until

from edge.errors import SourceError
from edge.pipeline import Pipeline
from edge.sources.av import AvSource
from edge.sources.deadlines import Deadlines

pytestmark = pytest.mark.real_server
SECRET = "passphrase=correct-horse-battery"


@pytest.fixture(autouse=True)
def libsrt() -> None:
    need(LIBSRT)


@contextlib.contextmanager
def camera(address: str) -> Iterator[subprocess.Popen[bytes]]:
    """ffmpeg that sends a test picture of 320x180 at 15 fps to an SRT address, until it is left."""
    picture = ("-re", "-f", "lavfi", "-i", "testsrc=size=320x180:rate=15")
    coded = ("-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", "15", "-f", "mpegts")
    command = [need("ffmpeg"), "-v", "error", *picture, *coded, address]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def opened(address: str, within_s: float = 60.0) -> AvSource:
    """The source, tried until its camera is there."""
    found: list[AvSource] = []

    def is_there() -> bool:
        with contextlib.suppress(SourceError):
            found.append(AvSource(address))
        return bool(found)

    wait_until(is_there, within_s, f"the camera at {address}")
    return found[0]


@pytest.mark.parametrize("secret", ["latency=80000", f"{SECRET}&pbkeylen=32"])
@pytest.mark.parametrize("is_calling", [False, True])
def test_pictures_arrive(is_calling: bool, secret: str) -> None:
    address = f"srt://127.0.0.1:{free_port()}?{secret}"
    # one end listens, the other calls
    theirs, ours = ("caller", "listener") if is_calling else ("listener", "caller")
    with camera(f"{address}&mode={theirs}"):
        source = opened(f"{address}&mode={ours}")
        pictures = [source.read() for _ in range(20)]
        source.close()
    assert source.info.width == 320 and source.info.height == 180
    images = [picture[0] for picture in pictures if picture is not None]
    assert len(images) == 20
    # testsrc moves, so no two pictures are the same
    assert all(np.any(first != second) for first, second in itertools.pairwise(images))


def test_another_passphrase_is_refused_without_telling_it() -> None:
    address = f"srt://127.0.0.1:{free_port()}"
    with camera(f"{address}?mode=listener&{SECRET}"):
        said: list[str] = []

        def is_refused() -> bool:
            # until it listens, it is nobody there
            with pytest.raises(SourceError, match="cannot be opened") as caught:
                AvSource(f"{address}?passphrase=wrong-horse-canary")
            said.append(str(caught.value))
            return "passphrase" in said[-1]

        wait_until(is_refused, what="the refusal")
    assert not [words for words in said if "canary" in words]


def test_nobody_there_is_told_in_time() -> None:
    started_s = time.monotonic()
    with pytest.raises(SourceError, match="cannot be opened"):
        AvSource(f"srt://127.0.0.1:{free_port()}", deadlines=Deadlines(open_s=8))
    assert time.monotonic() - started_s < 10


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("pasphrase=x", "cannot take the parameter 'pasphrase'"),
        ("passphrase=short", "expected 10 to 79 characters, found 5"),
        ("pbkeylen=8", "expected 16, 24 or 32"),
        ("latency=20ms", "expected microseconds"),
        ("latency=65536000", "expected at most 65535000 microseconds"),
        (f"latency={10**15}", "latency of an SRT address: expected at most 65535000 microseconds"),
        (f"latency={'9' * 5000}", "found 5000 digits"),
        ("mode=rendezvous", "mode"),
    ],
)
def test_wrong_parameters_are_named(query: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        AvSource(f"srt://127.0.0.1:9?{query}")


def test_an_address_without_a_port_is_explained() -> None:
    with pytest.raises(SourceError, match="expected an address with a port, srt://HOST:PORT"):
        AvSource("srt://127.0.0.1")


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Callable[[str], Pipeline]]:
    with started_pipelines() as start:
        yield lambda source: start(null_pipeline(tmp_path, [source], stall_timeout_s=1.5))


def test_a_camera_that_went_comes_back(running: Callable[[str], Pipeline], caplog: pytest.LogCaptureFixture) -> None:
    address = f"srt://127.0.0.1:{free_port()}?{SECRET}"
    with camera(f"{address}&mode=listener"):
        pipeline = running(address)
        (stream,) = pipeline.streams.values()
        wait_for(lambda: emitted(pipeline)["cam0"] >= 5, 20, "first pictures")
    wait_for(lambda: stream.status.state == "backing_off", 10, "the loss is noticed")
    before = emitted(pipeline)["cam0"]
    with camera(f"{address}&mode=listener"):
        wait_for(lambda: emitted(pipeline)["cam0"] >= before + 5, 20, "pictures after the restart")
        assert stream.metrics.counters["reconnects"] >= 1
    assert "correct-horse" not in caplog.text
