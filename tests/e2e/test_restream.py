"""Pushed streams, read by ffmpeg: the numbers painted into the pictures arrive; dead receivers cost nothing."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from camera_rig import free_port
from needs import LIBSRT, need

from edge.errors import SinkError, UsageError
from edge.sinks.choose import open_sink
from edge.sinks.restream import Patience, RestreamSink, hls_receiver, receiver_of

pytestmark = pytest.mark.real_server
SCENE = Path(__file__).parents[1] / "servers" / "record_kills.py"
QUICK = Patience(connect_s=15, stall_s=15, backoff_base_s=0.1, backoff_cap_s=0.3)


def load_scene() -> Any:
    spec = importlib.util.spec_from_file_location("record_kills_scene", SCENE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


scene = load_scene()


def reader(*arguments: str, num_frames: int) -> subprocess.Popen[bytes]:
    """ffmpeg that decodes so many frames and writes them as grey pixels."""
    output = ("-frames:v", str(num_frames), "-f", "rawvideo", "-pix_fmt", "gray", "-")
    command = [need("ffmpeg"), "-v", "error", "-fflags", "nobuffer", *arguments, *output]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def numbers_from(grey: bytes) -> list[int]:
    pictures = np.frombuffer(grey, np.uint8).reshape(-1, scene.HEIGHT, scene.WIDTH)
    half = scene.BLOCK_PX // 2
    found = []
    for picture in pictures:
        bits = picture[half : 2 * scene.BLOCK_PX : scene.BLOCK_PX, half :: scene.BLOCK_PX].ravel() > 128
        found.append(int(sum(int(bit) << index for index, bit in enumerate(bits))))
    return found


def feed(sink: RestreamSink, is_enough: Callable[[], bool], timeout_s: float = 60) -> int:
    """Numbered pictures at the camera's pace until it is enough; the number of the last one."""
    began, number = time.monotonic(), 0
    while not is_enough():
        assert time.monotonic() - began < timeout_s, sink.error
        result = scene.result(number)
        sink.write(result, lambda image=result.frame.image: image)  # type: ignore[misc]
        number += 1
        time.sleep(1 / scene.FPS)
    return number


def check(numbers: list[int], at_least: int) -> None:
    assert len(numbers) >= at_least
    assert all(later > earlier for earlier, later in itertools.pairwise(numbers))
    # the newest picture wins, so one may be missing where the encoder was late; most are there
    assert len(numbers) >= 0.6 * (numbers[-1] - numbers[0] + 1)


def pushed(url: str, process: subprocess.Popen[bytes]) -> RestreamSink:
    """The closed sink that pushed until the reader had its 30 pictures; they are checked."""
    output: list[bytes] = []
    waiting = threading.Thread(target=lambda: output.append(process.communicate()[0]))
    waiting.start()
    sink = RestreamSink(receiver_of(url), fps=scene.FPS, patience=QUICK)
    try:
        feed(sink, lambda: bool(output))
    finally:
        sink.close()
        process.kill()
        waiting.join()
    check(numbers_from(output[0]), 30)
    return sink


# what makes ffmpeg a server
RECEIVERS = {"rtsp": ("-rtsp_flags", "listen"), "rtmp": ("-listen", "1")}


@pytest.mark.parametrize("scheme", RECEIVERS)
def test_a_real_receiver_gets_the_pictures(scheme: str) -> None:
    url = f"{scheme}://127.0.0.1:{free_port()}/live/door"
    process = reader(*RECEIVERS[scheme], "-i", url, num_frames=30)
    assert pushed(url, process).counters["sent"] >= 30


@pytest.mark.parametrize("secret", ["", "passphrase=correct-horse-battery&pbkeylen=24&streamid=#!::r=live,m=publish"])
def test_srt_is_pushed(secret: str) -> None:
    url = f"srt://127.0.0.1:{free_port()}?{secret}"
    process = reader("-i", f"{url}&mode=listener".replace("#", "%23"), num_frames=30)
    pushed(url, process)


def test_srt_with_another_passphrase_says_so_and_tells_no_secret() -> None:
    need(LIBSRT)
    address = f"srt://127.0.0.1:{free_port()}"
    process = reader("-i", f"{address}?mode=listener&passphrase=correct-horse-battery", num_frames=30)
    sink = RestreamSink(receiver_of(f"{address}?passphrase=wrong-horse-canary"), fps=scene.FPS, patience=QUICK)
    try:
        feed(sink, lambda: "passphrase" in sink.error.lower() or "password" in sink.error.lower())
        assert "canary" not in sink.error
    finally:
        sink.close()
        process.kill()
        process.communicate()


def test_a_wrong_parameter_of_srt_is_named() -> None:
    need(LIBSRT)
    sink = RestreamSink(receiver_of("srt://127.0.0.1:9?passfrase=x"), fps=scene.FPS, patience=QUICK)
    try:
        feed(sink, lambda: bool(sink.error))
        assert "cannot take the parameter 'passfrase'" in sink.error
    finally:
        sink.close()


def test_hls_is_played_and_old_segments_go(tmp_path: Path) -> None:
    (tmp_path / "door").mkdir()
    (tmp_path / "door" / "part-7.ts").write_bytes(b"of an earlier run")
    sink = RestreamSink(hls_receiver(tmp_path / "door"), fps=scene.FPS, patience=QUICK)
    playlist = tmp_path / "door" / "index.m3u8"
    feed(sink, lambda: playlist.exists() and playlist.read_text().count("#EXTINF") >= 2)
    sink.close()
    process = reader("-i", str(playlist), num_frames=80)
    output, errors = process.communicate(timeout=60)
    assert not errors
    check(numbers_from(output), 50)
    assert not (tmp_path / "door" / "part-7.ts").exists()
    assert "#EXT-X-PROGRAM-DATE-TIME" in playlist.read_text()


def test_a_silent_receiver_stops_no_other_thread_and_the_next_one_is_served() -> None:
    port = free_port()
    url = f"rtsp://127.0.0.1:{port}/live/door"
    silent = socket.create_server(("127.0.0.1", port))
    patience = Patience(connect_s=1.0, stall_s=1.0, backoff_base_s=0.1, backoff_cap_s=0.2)
    sink = RestreamSink(receiver_of(url), fps=scene.FPS, patience=patience)
    slowest_ms = 0.0
    deadline = time.monotonic() + 40
    while sink.counters["failures"] < 2:
        assert time.monotonic() < deadline
        began = time.monotonic()
        result = scene.result(0)
        sink.write(result, lambda image=result.frame.image: image)  # type: ignore[misc]
        slowest_ms = max(slowest_ms, (time.monotonic() - began) * 1e3)
        time.sleep(0.02)
    assert "not connected within 1 s" in sink.error
    # PyAV alone would have stopped every thread for as long as the receiver is silent
    assert slowest_ms < 500
    silent.close()
    sink._patience = QUICK
    process = reader(*RECEIVERS["rtsp"], "-i", url, num_frames=10)
    output: list[bytes] = []
    waiting = threading.Thread(target=lambda: output.append(process.communicate()[0]))
    waiting.start()
    try:
        feed(sink, lambda: bool(output))
    finally:
        sink.close()
        process.kill()
        waiting.join()
    check(numbers_from(output[0]), 10)


def test_a_receiver_that_is_away_costs_nothing_and_no_secret_is_told(caplog: pytest.LogCaptureFixture) -> None:
    canary = "canary-55b1"
    url = f"rtmp://{canary}:{canary}@127.0.0.1:{free_port()}/live/x?token={canary}"
    patience = Patience(backoff_base_s=60, backoff_cap_s=60)
    sink = RestreamSink(receiver_of(url), fps=scene.FPS, patience=patience)
    feed(sink, lambda: sink.counters["failures"] > 0)
    deadline = time.monotonic() + 10
    while not sink._is_away:
        assert time.monotonic() < deadline
    sink.write(scene.result(1), lambda: pytest.fail("nobody would see this picture"))
    assert canary not in " ".join([sink.error, sink.name, caplog.text])
    began = time.monotonic()
    sink.close()
    assert time.monotonic() - began < 4


def test_addresses_that_are_no_receiver_are_refused_without_their_password(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match="expected rtsp://"):
        receiver_of("ftp://a")
    with pytest.raises(UsageError) as refused:
        open_sink("ftp://user:canary-1@host/x", stream="door", classes=[], fps=25)
    assert "canary-1" not in str(refused.value)
    (tmp_path / "file").touch()
    with pytest.raises(SinkError, match="cannot be written"):
        hls_receiver(tmp_path / "file" / "folder")
    with contextlib.closing(open_sink(f"hls:{tmp_path}", stream="door", classes=[], fps=25)) as sink:
        assert sink.name == f"hls:{tmp_path}/door"
