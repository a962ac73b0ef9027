"""A camera's own packets in its recordings: not one bit changed, nothing encoded, whole after a kill."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.config.recording import RecordSettings
from edge.errors import SinkError
from edge.recording.disk import Disk
from edge.recording.index import Recorded
from edge.sinks.record import RecordSink
from edge.sources.choose import open_source
from edge.types import Event
from edge.video.encoder import VideoEncoder
from edge.video.packets import PacketQueue

SERVERS = Path(__file__).parents[1] / "servers"
from camera_rig import RtspServer, emitted, null_pipeline, started_pipelines, wait_for
from needs import need

KILLS = SERVERS / "record_source_kills.py"
FPS = 25
# pictures before an open key picture could not be decoded at the beginning of a file
CLOSED = {"libx265": ("-x265-params", "open-gop=0:scenecut=0:log-level=none")}


@pytest.fixture(autouse=True)
def _no_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("an encoder was opened")

    monkeypatch.setattr(VideoEncoder, "__init__", refuse)


@pytest.fixture
def server() -> Iterator[RtspServer]:
    running = RtspServer(320, 240, FPS)
    yield running
    running.kill()


def film(folder: Path, codec: str, *, gop: int, seconds: int, name: str = "film.mp4") -> Path:
    """A real file with reordered pictures."""
    path = folder / name
    scene = f"testsrc2=size=320x240:rate={FPS}:duration={seconds}"
    options = ["-c:v", codec, "-g", str(gop), "-bf", "2", "-pix_fmt", "yuv420p", *CLOSED.get(codec, ())]
    subprocess.run(
        [need("ffmpeg"), "-v", "error", "-f", "lavfi", "-i", scene, *options, str(path)],
        check=True,
        stderr=subprocess.DEVNULL,
    )
    return path


def hashes(path: Path) -> list[str]:
    """The MD5 of every packet, as ffmpeg reads it without decoding."""
    command = [need("ffmpeg"), "-v", "error", "-i", str(path), "-c", "copy", "-map", "0:v", "-f", "framemd5", "-"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return [line.split(",")[-1].strip() for line in lines if not line.startswith("#")]


def num_decoded(path: Path) -> int:
    """Pictures that decode; fails on any complaint of the decoder."""
    command = [
        need("ffprobe"),
        "-v",
        "error",
        "-count_frames",
        "-show_entries",
        "stream=nb_read_frames",
        "-of",
        "csv=p=0",
    ]
    done = subprocess.run([*command, str(path)], check=True, capture_output=True, text=True)
    assert not done.stderr, done.stderr
    return int(done.stdout.strip().strip(","))


def recorded(source: Path, folder: Path, *, is_isolated: bool, disk: Disk | None = None, **more: Any) -> RecordSink:
    """Read a file to its end while its packets are recorded."""
    settings = RecordSettings.model_validate({"folder": folder, "content": "source", "reserve_mb": 0, **more})
    packets = PacketQueue(is_lossless=True)
    sink = RecordSink(settings, "door", packets=packets, late_s=float("inf"), disk=disk)
    opened = open_source(str(source), packets=packets, is_isolated=is_isolated)
    while opened.read() is not None:
        pass
    opened.close()
    sink.close()
    return sink


def paths(folder: Path, stream: str = "door") -> list[Path]:
    return sorted((folder / stream).glob("*.mp4"))


@pytest.mark.parametrize(
    ("codec", "name", "is_isolated"),
    [
        ("libx264", "film.mp4", False),
        ("libx264", "film.mp4", True),
        ("libx264", "film.ts", False),
        ("libx265", "film.mp4", False),
        ("libx265", "film.ts", True),
    ],
)
def test_the_packets_of_a_file_are_recorded_bit_for_bit(
    tmp_path: Path, codec: str, name: str, is_isolated: bool
) -> None:
    source = film(tmp_path, codec, gop=50, seconds=7, name=name)
    sink = recorded(source, tmp_path, is_isolated=is_isolated, segment_s=2)
    assert [entry.num_frames for entry in sink.entries()] == [50, 50, 50, 25]
    assert {(entry.width, entry.height) for entry in sink.entries()} == {(320, 240)}
    if name.endswith(".mp4"):
        assert [one for path in paths(tmp_path) for one in hashes(path)] == hashes(source)
    assert [num_decoded(path) for path in paths(tmp_path)] == [50, 50, 50, 25]


def test_fragments_end_by_time_where_key_pictures_are_far_apart(tmp_path: Path) -> None:
    from edge.recording.fragments import whole_length

    recorded(film(tmp_path, "libx264", gop=1000, seconds=12), tmp_path, is_isolated=False, fragment_s=2)
    (path,) = paths(tmp_path)
    assert whole_length(path)[1] == 24  # of half a second each


def test_what_is_neither_h264_nor_h265_is_refused_in_words(tmp_path: Path) -> None:
    source = film(tmp_path, "mpeg4", gop=10, seconds=1)
    with pytest.raises(SinkError, match='sends mpeg4; content = "source" takes h264 and hevc'):
        recorded(source, tmp_path, is_isolated=False)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    settings = {"folder": tmp_path, "content": "source", "reserve_mb": 0}
    with started_pipelines() as start:
        yield lambda source, **record: start(null_pipeline(tmp_path, [source], record={**settings, **record}))


@pytest.mark.real_server
def test_an_rtsp_camera_is_recorded_as_it_sends(
    tmp_path: Path, server: RtspServer, running: Callable[..., Any]
) -> None:
    pipeline = running(server.url, segment_s=2)
    wait_for(lambda: emitted(pipeline)["cam0"] > 5, 20, "the camera runs")
    other = tmp_path / "ffmpeg.mp4"
    copy = [
        need("ffmpeg"),
        "-v",
        "error",
        "-rtsp_transport",
        "tcp",
        "-i",
        server.url,
        "-t",
        "4",
        "-c",
        "copy",
        str(other),
    ]
    subprocess.run(copy, check=True, timeout=60, stderr=subprocess.DEVNULL)
    wait_for(lambda: len(paths(tmp_path, "cam0")) >= 3, 20, "three files are whole")
    assert pipeline.stop()
    ours = [one for path in paths(tmp_path, "cam0") for one in hashes(path)]
    theirs = hashes(other)
    # what ffmpeg received on a connection of its own is a stretch of what we recorded
    start = ours.index(theirs[0])
    assert len(theirs) > 2 * FPS
    assert ours[start : start + len(theirs)] == theirs
    assert all(num_decoded(path) for path in paths(tmp_path, "cam0"))
    stats = pipeline.outputs.stats()["recordings"]["cam0"]
    assert stats.get("packets_lost", 0) == 0
    assert stats["frames"] == len(ours)


@pytest.mark.real_server
def test_a_clip_of_packets_begins_before_its_event_at_a_key_picture(
    tmp_path: Path, server: RtspServer, running: Callable[..., Any]
) -> None:
    pipeline = running(server.url, mode="events", pre_roll_s=2, post_roll_s=1)
    wait_for(lambda: emitted(pipeline)["cam0"] > 5 * FPS, 30, "some pictures are there")
    stream = pipeline.streams["cam0"]
    assert stream.status.info is not None
    told_ns = time.time_ns()
    stream.queue_event(Event("tick", "cam0", time.monotonic_ns()), 0, 0)
    # the file is there a moment before the index has it
    recording = pipeline.outputs.recordings["cam0"]
    wait_for(lambda: len(recording.entries()) == 1, 20, "the clip is whole")
    entry: Recorded = recording.entries()[0]
    assert entry.kind == "clip"
    assert [kind for _, kind in entry.events] == ["tick"]
    assert entry.events[0][0] - entry.start_ns >= 2e9
    # key pictures come every 15; the clip ends when a result has shown that nothing prolongs it
    assert told_ns - entry.start_ns <= (2 + 15 / FPS + 1) * 1e9
    assert 0.9e9 <= entry.end_ns - entry.events[0][0] <= 3.5e9
    assert num_decoded(paths(tmp_path, "cam0")[0]) == entry.num_frames


@pytest.mark.real_server
def test_a_camera_that_comes_back_begins_a_new_file(
    tmp_path: Path, server: RtspServer, running: Callable[..., Any]
) -> None:
    pipeline = running(server.url)
    wait_for(lambda: emitted(pipeline)["cam0"] > FPS, 20, "the camera runs")
    server.kill()
    before = emitted(pipeline)["cam0"]
    server.start()
    wait_for(lambda: emitted(pipeline)["cam0"] > before + 2 * FPS, 40, "the camera is back")
    assert pipeline.stop()
    assert len(paths(tmp_path, "cam0")) >= 2
    assert all(num_decoded(path) for path in paths(tmp_path, "cam0"))


@pytest.mark.real_server
def test_a_disk_that_hangs_costs_the_recording_and_no_frame(
    tmp_path: Path, server: RtspServer, running: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    is_hung = [True]

    def hang(fd: int, data: bytes) -> int:
        while is_hung[0]:
            time.sleep(0.02)
        return os.write(fd, data)

    monkeypatch.setattr("edge.sinks.record.RecordingFolder._write", lambda _, fd, data: hang(fd, data))
    pipeline = running(server.url)
    queue = pipeline.streams["cam0"].packets
    queue._limit_bytes = 200_000
    wait_for(lambda: queue.counters["packets_lost"] > 0, 40, "the queue is full")
    assert queue.num_bytes <= 200_000
    before, started_s = emitted(pipeline)["cam0"], time.monotonic()
    wait_for(lambda: emitted(pipeline)["cam0"] >= before + 2 * FPS, 20, "frames come while the disk hangs")
    assert time.monotonic() - started_s < 4
    is_hung[0] = False
    assert pipeline.stop()
    # packets that follow a loss begin another file: none has a gap inside
    assert all(num_decoded(path) for path in paths(tmp_path, "cam0"))


@pytest.mark.parametrize("mode", ["continuous", "events"])
def test_kills_lose_at_most_one_fragment_however_far_apart_key_pictures_are(tmp_path: Path, mode: str) -> None:
    command = [sys.executable, str(KILLS), "4", "1", str(tmp_path), mode, "30"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "4 kills" in done.stdout
