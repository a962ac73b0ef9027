"""What the sinks write, and what is left when they fail."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import av
import numpy as np
import pytest

from edge.errors import EdgeError, MissingError, SinkError, UsageError
from edge.metrics.clock import WallClock
from edge.result_json import ResultEncoder
from edge.sinks.choose import file_name, open_sink
from edge.sinks.jsonl import JsonlSink
from edge.sinks.mp4 import Mp4Sink
from edge.sinks.snapshot import SnapshotSink
from edge.types import Detections, Frame, Result, UInt8


def image(width: int = 64, height: int = 48, level: int = 90) -> UInt8:
    return np.full((height, width, 3), level, np.uint8)


def result(seq: int = 0, *, fps: float = 25.0, epoch: int = 0, pts_ns: int | None = None) -> Result:
    time_ns = round(seq * 1e9 / fps) if pts_ns is None else pts_ns
    return Result(Frame("door", epoch, seq, 1_000, time_ns, image()), Detections.empty())


def no_picture() -> UInt8:
    raise AssertionError("nothing may be drawn for this sink")


def encoder() -> ResultEncoder:
    return ResultEncoder(["person"], clock=WallClock(0, lambda: 0))


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# jsonl


def test_jsonl_writes_one_line_per_result_at_once(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    sink = JsonlSink(path, encoder())
    for seq in range(3):
        sink.write(result(seq), no_picture)
        assert [json.loads(line)["seq"] for line in path.read_text().splitlines()] == list(range(seq + 1))
    sink.close()


def test_jsonl_of_a_new_run_replaces_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("old\n")
    JsonlSink(path, encoder()).close()
    assert path.read_text() == ""


def test_streams_that_share_a_jsonl_file_never_mix_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    sinks = [JsonlSink(path, encoder()) for _ in range(4)]

    def write(sink: JsonlSink) -> None:
        for seq in range(200):
            sink.write(result(seq), no_picture)

    threads = [threading.Thread(target=write, args=(sink,)) for sink in sinks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = path.read_text().splitlines()
    assert len(lines) == 800
    assert all(json.loads(line)["stream"] == "door" for line in lines)


def test_a_jsonl_reader_that_ends_is_one_sentence(tmp_path: Path) -> None:
    read_fd, write_fd = os.pipe()
    sink = JsonlSink(tmp_path / "out.jsonl", encoder())
    os.dup2(write_fd, sink._fd)
    os.close(write_fd)
    os.close(read_fd)
    with pytest.raises(SinkError, match="the program that reads the lines has ended"):
        sink.write(result(), no_picture)
    sink.close()


def test_a_full_disk_loses_the_line_and_says_so() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    sink = JsonlSink(full, encoder())
    with pytest.raises(SinkError, match="a line was lost \\(No space left on device\\)"):
        sink.write(result(), no_picture)
    sink.close()


def test_jsonl_to_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    sink = open_sink("jsonl:-", stream="door", classes=["person"], fps=25)
    sink.write(result(7), no_picture)
    sink.close()
    assert json.loads(capfd.readouterr().out)["seq"] == 7


# mp4


def decoded(path: Path) -> tuple[list[float], float, tuple[int, int], list[UInt8]]:
    """Times in seconds, duration in seconds, (W, H), pictures."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        pictures = [frame.to_ndarray(format="bgr24") for frame in frames]
        return (
            [f.time for f in frames],
            float(stream.duration * stream.time_base),
            (stream.width, stream.height),
            pictures,
        )


def test_mp4_has_the_right_rate_duration_and_pictures(tmp_path: Path) -> None:
    sink = Mp4Sink(tmp_path / "out.mp4", fps=25)
    for seq in range(50):
        sink.write(result(seq), lambda seq=seq: image(level=seq * 5))  # type: ignore[misc]
    sink.close()
    times, duration, size, pictures = decoded(tmp_path / "out.mp4")
    assert times == pytest.approx([seq / 25 for seq in range(50)], abs=1e-4)
    assert duration == pytest.approx(2.0, abs=1e-3)
    assert size == (64, 48)
    levels = [float(picture.mean()) for picture in pictures]
    assert levels == pytest.approx([seq * 5 for seq in range(50)], abs=4)
    assert names_in(tmp_path) == ["out.mp4"]


def test_mp4_keeps_the_gaps_between_frames(tmp_path: Path) -> None:
    sink = Mp4Sink(tmp_path / "out.mp4", fps=30)
    seconds = [0.0, 0.033, 0.5, 0.51, 2.0]
    for time_s in seconds:
        sink.write(result(pts_ns=int((time_s + 77) * 1e9)), image)
    sink.close()
    times, duration, _, _ = decoded(tmp_path / "out.mp4")
    assert times == pytest.approx(seconds, abs=1e-3)
    assert duration == pytest.approx(2.0 + 1 / 30, abs=1e-3)


def test_mp4_goes_on_one_frame_later_where_time_steps_back(tmp_path: Path) -> None:
    sink = Mp4Sink(tmp_path / "out.mp4", fps=10)
    for epoch in (0, 1):
        for seq in range(5):
            sink.write(result(seq, fps=10, epoch=epoch), image)
    sink.close()
    times, *_ = decoded(tmp_path / "out.mp4")
    assert times == pytest.approx([i / 10 for i in range(10)], abs=1e-3)


def test_mp4_makes_odd_sizes_even_by_repeating_the_edge(tmp_path: Path) -> None:
    sink = Mp4Sink(tmp_path / "out.mp4", fps=10)
    for seq in range(3):
        sink.write(result(seq), lambda: image(65, 47))
    sink.close()
    assert decoded(tmp_path / "out.mp4")[2] == (66, 48)


def test_mp4_begins_a_numbered_part_when_the_size_changes(tmp_path: Path) -> None:
    sink = Mp4Sink(tmp_path / "out.mp4", fps=10)
    for seq, width in enumerate([64, 64, 128, 128, 128, 64]):
        sink.write(result(seq), lambda width=width: image(width))  # type: ignore[misc]
    sink.close()
    found = {path.name: decoded(path) for path in tmp_path.iterdir()}
    assert {name: (len(part[0]), part[2][0]) for name, part in found.items()} == {
        "out.mp4": (2, 64),
        "out-2.mp4": (3, 128),
        "out-3.mp4": (1, 64),
    }


def test_mp4_has_no_name_before_it_is_complete(tmp_path: Path) -> None:
    sink = Mp4Sink(tmp_path / "out.mp4", fps=10)
    sink.write(result(), image)
    assert not (tmp_path / "out.mp4").exists()
    sink.close()
    assert (tmp_path / "out.mp4").exists()


def test_mp4_that_fails_leaves_nothing_and_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    path.write_text("the recording of yesterday")
    sink = Mp4Sink(path, fps=10)
    sink.write(result(), image)
    part = sink._part
    assert part is not None

    def fail(packets: object) -> None:
        raise OSError(28, "No space left on device")

    part._mux = fail  # type: ignore[method-assign]
    with pytest.raises(SinkError, match="No space left on device"):
        sink.write(result(1), image)
    assert names_in(tmp_path) == ["out.mp4"]
    assert path.read_text() == "the recording of yesterday"
    sink.write(result(2), image)
    sink.close()
    assert len(decoded(tmp_path / "out-2.mp4")[0]) == 1


def test_mp4_without_a_frame_makes_no_file(tmp_path: Path) -> None:
    Mp4Sink(tmp_path / "out.mp4", fps=10).close()
    assert names_in(tmp_path) == []


# snapshot


def test_snapshot_is_replaced_once_a_period(tmp_path: Path) -> None:
    now_ns = [0]
    sink = SnapshotSink(tmp_path / "door.jpg", period_s=1.0, clock_ns=lambda: now_ns[0])
    drawn: list[int] = []
    for index in range(25):
        sink.write(result(), lambda index=index: drawn.append(index) or image())
        now_ns[0] += 100_000_000
    assert drawn == [0, 10, 20]
    assert (tmp_path / "door.jpg").read_bytes()[:2] == b"\xff\xd8"
    assert names_in(tmp_path) == ["door.jpg"]


# choosing


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("out.jsonl", UsageError, "expected one of jsonl:FILE"),
        ("avi:out.avi", UsageError, "'avi' is no sink; expected one of jsonl:FILE"),
        ("jsonl:", UsageError, "nothing stands after the colon"),
        ("mp4:", UsageError, "nothing stands after the colon"),
        ("jsonl:/nowhere/out.jsonl", SinkError, "cannot be created \\(No such file or directory\\)"),
        ("mp4:/nowhere/out.mp4", SinkError, "the folder /nowhere does not exist; run: mkdir -p /nowhere"),
        ("snapshot:/nowhere/x", SinkError, "does not exist; run: mkdir -p"),
    ],
)
def test_a_wrong_sink_is_one_sentence(spec: str, error: type[EdgeError], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        open_sink(spec, stream="door", classes=[], fps=0)
    assert "\n" not in str(caught.value)


def test_a_window_without_a_display_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(MissingError, match="use --sink http:8080 instead"):
        open_sink("window:", stream="door", classes=[], fps=0)


def test_the_stream_name_goes_into_the_path(tmp_path: Path) -> None:
    open_sink(f"jsonl:{tmp_path}/{{stream}}.jsonl", stream="../etc/door 1", classes=[], fps=0).close()
    assert names_in(tmp_path) == ["_etc_door_1.jsonl"]


@pytest.mark.parametrize(
    ("stream", "name"), [("door", "door"), ("..", "stream"), (".hidden", "hidden"), ("a/b", "a_b")]
)
def test_stream_names_become_harmless_file_names(stream: str, name: str) -> None:
    assert file_name(stream) == name
