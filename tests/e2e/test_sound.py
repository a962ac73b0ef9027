"""A camera's sound in its recordings: next to the picture in time, muted where it is to be, and played by a browser."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from camera_rig import TwoProfiles, emitted, null_pipeline, started_pipelines, wait_for
from e2e.live_show import wait_until
from e2e.test_page_browser import browser, chromium  # noqa: F401
from needs import need

from edge.pipeline import Pipeline
from edge.server import LiveServer
from edge.server.access import Access
from edge.server.board import LiveBoard
from edge.server.feeds import Feeds
from edge.server.rtsp.server import Offered, RtspServer
from edge.types import Event

pytestmark = pytest.mark.real_server
# a flash and a beep of this length come together every second
FLASH_S = 0.1


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Pipeline]]:
    """Starts a pipeline that records one camera."""
    with started_pipelines() as started:

        def begin(source: str, *, record: Any = None, **more: Any) -> Pipeline:
            kept = {"folder": tmp_path, "content": "source", "reserve_mb": 0, "segment_s": 5, **(record or {})}
            return started(null_pipeline(tmp_path, [source], record=kept, **more))

        yield begin


def recorded(pipeline: Pipeline, folder: Path, limit_s: float = 60) -> Path:
    """The second whole file: the sender reports have come by then."""
    recording = pipeline.outputs.recordings["cam0"]
    wait_for(lambda: len(recording.entries()) >= 2, limit_s, "two files are whole")
    return folder / "cam0" / recording.entries()[1].file


def flashes(path: Path) -> list[float]:
    """When each flash begins, seconds of the file."""
    found, was_bright = [], True
    with av.open(str(path)) as file:
        for frame in file.decode(video=0):
            is_bright = float(np.median(frame.to_ndarray(format="gray"))) > 64
            if is_bright and not was_bright:
                found.append(float(frame.time))
            was_bright = is_bright
    return found


def beeps(path: Path) -> list[float]:
    """When each beep begins, seconds of the file."""
    found, quiet_s = [], 0.0
    with av.open(str(path)) as file:
        rate = file.streams.audio[0].rate
        for frame in file.decode(audio=0):
            samples = np.abs(av.AudioResampler("flt", "mono").resample(frame)[0].to_ndarray()[0])
            block = max(1, rate // 200)
            for at in range(0, len(samples), block):
                is_loud = float(samples[at : at + block].max()) > 0.1
                if is_loud and quiet_s > 0.3:
                    found.append(float(frame.time) + at / rate)
                quiet_s = 0.0 if is_loud else quiet_s + block / rate
    return found


def apart(path: Path) -> list[float]:
    """Seconds from each flash to its beep; negative where the beep comes first. Not of one that the file's ends cut."""
    heard, seen = beeps(path), flashes(path)
    return [min((beep - flash for beep in heard), key=abs) for flash in seen if 0.5 < flash < seen[-1]]


@pytest.mark.parametrize(("codec", "kept"), [("aac", "aac"), ("pcmu", "opus"), ("opus", "opus")])
def test_sound_is_kept_beside_the_picture(
    tmp_path: Path, start: Callable[..., Pipeline], codec: str, kept: str
) -> None:
    camera = TwoProfiles("320x180x20", "160x90x10", codec)
    try:
        path = recorded(start(camera.main), tmp_path)
    finally:
        camera.kill()
    with av.open(str(path)) as file:
        assert [stream.codec_context.name for stream in file.streams] == ["h264", kept]
    offsets = apart(path)
    print(f"\n{codec}: {[f'{offset * 1e3:.0f} ms' for offset in offsets]}")
    assert len(offsets) >= 3
    # a picture comes every 50 ms, so a flash is seen up to that late
    assert max(abs(offset) for offset in offsets) <= 0.06


def test_a_clip_of_the_large_picture_has_its_sound(tmp_path: Path, start: Callable[..., Pipeline]) -> None:
    camera = TwoProfiles("640x360x20", "160x90x10", "aac")
    try:
        record = {"mode": "events", "pre_roll_s": 3, "post_roll_s": 2}
        pipeline = start(camera.sub, record_source=camera.main, record=record)
        wait_for(lambda: emitted(pipeline)["cam0"] > 80, 60, "the camera runs")
        pipeline.streams["cam0"].queue_event(Event("tick", "cam0", time.monotonic_ns()), 0, 0)
        recording = pipeline.outputs.recordings["cam0"]
        wait_for(lambda: len(recording.entries()) == 1, 30, "the clip is whole")
    finally:
        camera.kill()
    offsets = apart(tmp_path / "cam0" / recording.entries()[0].file)
    print(f"\nclip: {[f'{offset * 1e3:.0f} ms' for offset in offsets]}")
    # a flash a second in 5 s; where the clip begins between two of them is chance, and those at its ends are left out
    assert len(offsets) >= 3
    assert max(abs(offset) for offset in offsets) <= 0.06


def test_a_muted_camera_is_recorded_without_its_sound(tmp_path: Path, start: Callable[..., Pipeline]) -> None:
    camera = TwoProfiles("320x180x20", "160x90x10", "aac")
    try:
        path = recorded(start(camera.main, audio=False), tmp_path)
    finally:
        camera.kill()
    with av.open(str(path)) as file:
        assert [stream.type for stream in file.streams] == ["video"]


def test_a_clip_with_sound_plays_in_chromium(
    tmp_path: Path,
    start: Callable[..., Pipeline],
    browser: Any,  # noqa: F811
) -> None:
    camera = TwoProfiles("320x180x20", "160x90x10", "pcmu")
    try:
        pipeline = start(camera.main)
        recorded(pipeline, tmp_path)
    finally:
        camera.kill()
    board = LiveBoard()
    board.add_stream("cam0", {"source": "rtsp://***", "model": {"classes": []}})
    server = LiveServer(board, port=0, archive=pipeline.outputs.archive(), max_peers=0)
    _, port = server.start()
    try:
        browser.get(f"http://127.0.0.1:{port}/#/recordings")
        wait_until(lambda: len(browser.find_elements("css selector", ".file-row")) >= 2)
        browser.execute_script("document.querySelector('video').muted = true")
        browser.execute_script("document.querySelectorAll('.file-row')[0].click()")
        state = "const v = document.querySelector('video'); return [v.currentTime, v.webkitAudioDecodedByteCount]"
        wait_until(lambda: browser.execute_script(state)[0] > 1)
        assert browser.execute_script(state)[1] > 1000
        assert browser.execute_script("return document.querySelector('video').error") is None
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("codec", "served", "transport"), [("aac", "aac", "tcp"), ("pcmu", "opus", "udp"), ("opus", "opus", "tcp")]
)
def test_who_watches_a_source_by_rtsp_hears_it(
    tmp_path: Path, start: Callable[..., Pipeline], codec: str, served: str, transport: str
) -> None:
    camera, path = TwoProfiles("320x180x20", "160x90x10", codec), tmp_path / "heard.mkv"
    board = LiveBoard()
    board.add_stream("cam0", {"fps": 20})
    feeds = Feeds(board)
    try:
        pipeline = start(camera.main, top={"rtsp": {"enabled": True}})
        stream = pipeline.streams["cam0"]
        server = RtspServer("127.0.0.1", 0, Access(), feeds, lambda: {"cam0": Offered(stream.tap)}, max_clients=4)
        _, port = server.start()
        try:
            wait_for(lambda: emitted(pipeline)["cam0"] > 20, 60, "the camera runs")
            command = [need("ffmpeg"), "-v", "error", "-rtsp_transport", transport]
            command += ["-i", f"rtsp://127.0.0.1:{port}/cam0/source", "-c", "copy", "-t", "8", str(path)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        finally:
            server.stop()
    finally:
        camera.kill()
        feeds.close()
    with av.open(str(path)) as file:
        assert [one.codec_context.name for one in file.streams] == ["h264", served], done.stderr
    offsets = apart(path)
    print(f"\n{codec} by RTSP: {[f'{offset * 1e3:.0f} ms' for offset in offsets]}")
    assert len(offsets) >= 4
    assert max(abs(offset) for offset in offsets) <= 0.06
