"""The contract of ``Sink``, for all of them alike."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.config.recording import RecordSettings
from edge.errors import DiskError, SinkError
from edge.events.outbox import Outbox
from edge.events.schema import ModelFacts
from edge.events.snapshots import Snapshots
from edge.events.writer import EventWriter
from edge.interfaces import Sink
from edge.server.board import LiveBoard
from edge.sinks.choose import open_sink
from edge.sinks.events import EventSink
from edge.sinks.late import open_now_or_later
from edge.sinks.live import LiveSink
from edge.sinks.record import RecordSink
from edge.sinks.results import ResultSink
from edge.types import Classification, Detections, Event, Frame, Result, Tracks, UInt8
from edge.video.packets import PacketQueue

ROOT = Path(__file__).parents[2]
Opener = Callable[[Path], Sink]


def opened(spec: str) -> Opener:
    return lambda folder: open_sink(spec.replace("FOLDER", str(folder)), stream="door", classes=["person"], fps=25)


def live(folder: Path) -> Sink:
    board = LiveBoard()
    board.add_stream("door", {})
    return LiveSink(board, "door", ["person"])


def watched(folder: Path) -> Sink:
    board = LiveBoard()
    board.add_stream("door", {})
    board.watch("door", has_pictures=True)
    return LiveSink(board, "door", ["person"])


def plain_recording(folder: Path) -> Sink:
    return RecordSink(RecordSettings(folder=folder, content="plain"), "door", fps=25)


def source_recording(folder: Path) -> Sink:
    settings = RecordSettings(folder=folder, content="source")
    return RecordSink(settings, "door", packets=PacketQueue(is_lossless=False), late_s=1.0)


def results(folder: Path) -> Sink:
    return ResultSink(lambda result: None, ["person"], score=0.3, shapes=tuple)


def events(folder: Path, snapshots: Snapshots | None = None) -> Sink:
    # what is reported waits for the writer's thread, which is not the sink's
    writer = EventWriter(Outbox(folder / "events.db", []), snapshots)
    return EventSink(writer, "door", lambda: ModelFacts("street", ""))


def events_with_snapshots(folder: Path) -> Sink:
    return events(folder, Snapshots(folder / "snapshots", 1 << 20))


def late(folder: Path) -> Sink:
    """A sink whose disk was full at the start, at its second attempt."""
    attempts = iter([DiskError("mp4: the disk is full")])
    seconds = itertools.count(0, 60)

    def open_it() -> Sink:
        for error in attempts:
            raise error
        return opened("mp4:FOLDER/out.mp4")(folder)

    return open_now_or_later(open_it, lambda: next(seconds))


def away(spec: str) -> Opener:
    """A sink whose receiver is away; nobody listens on port 1."""

    def open_it(folder: Path) -> Sink:
        sink = opened(spec)(folder)
        is_known = threading.Event()
        for seq in range(500):
            if sink.error:  # type: ignore[attr-defined]
                return sink
            # it connects when there is something to send
            sink.write(result(seq), Picture())
            is_known.wait(0.02)
        raise AssertionError(f"{spec}: the receiver is away and the sink has not noticed")

    return open_it


@dataclass(frozen=True)
class Kind:
    """A sink, the file that has it, and how many of five pictures that come at once it draws."""

    file: str
    open: Opener
    num_drawn: int

    @property
    def is_process(self) -> bool:
        """Such a sink starts a process: the same contract holds in tests/integration/test_streaming_sinks.py."""
        return self.file == "restream"


SINKS = {
    "jsonl": Kind("jsonl", opened("jsonl:FOLDER/out.jsonl"), 0),
    "stdout": Kind("jsonl", opened("jsonl:-"), 0),
    "mp4": Kind("mp4", opened("mp4:FOLDER/out.mp4"), 5),
    "snapshot": Kind("snapshot", opened("snapshot:FOLDER"), 1),
    "record": Kind("record", opened("record:FOLDER"), 5),
    "record, plain": Kind("record", plain_recording, 0),
    "record, source": Kind("record", source_recording, 0),
    "late": Kind("late", late, 5),
    "live": Kind("live", live, 0),
    "live, watched": Kind("live", watched, 5),
    "results": Kind("results", results, 0),
    "events": Kind("events", events, 0),
    "events with snapshots": Kind("events", events_with_snapshots, 5),
    "hls": Kind("restream", opened("hls:FOLDER"), 5),
    "rtmp, away": Kind("restream", away("rtmp://127.0.0.1:1/live/x"), 0),
    "whip, away": Kind("whip", away("whip:http://127.0.0.1:1/x"), 0),
    "window": Kind("window", opened("window:"), 5),
}
# they open sinks, are run by one, or are targets of events
NO_SINKS = {"__init__", "choose", "home_assistant", "restream_child", "whip_http", "webhook"}
NO_SINKS |= {"mqtt", "mqtt_commands", "mqtt_packets", "mqtt_session", "retained", "notify", "notify_child", "push"}


IN_PROCESS = {name: kind for name, kind in SINKS.items() if not kind.is_process}


@pytest.fixture(params=list(IN_PROCESS.values()), ids=list(IN_PROCESS))
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Kind:
    found: Kind = request.param
    if found.file == "window":
        # the OpenCV of a machine without a display has no windows
        monkeypatch.setenv("DISPLAY", ":0")
        for name, answer in {"namedWindow": None, "imshow": None, "getWindowProperty": 1.0, "waitKey": -1}.items():
            monkeypatch.setattr(cv2, name, lambda *_, answer=answer: answer)
        monkeypatch.setattr(cv2, "destroyWindow", lambda _: None)
    return found


@pytest.fixture
def sink(kind: Kind, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Sink:
    return kind.open(tmp_path)


def test_every_sink_is_held_to_the_contract() -> None:
    files = {path.stem for path in (ROOT / "edge" / "sinks").glob("*.py")}
    assert files - NO_SINKS == {kind.file for kind in SINKS.values()}


def result(seq: int = 0) -> Result:
    image = np.full((48, 64, 3), 90, np.uint8)
    image.setflags(write=False)
    event = Event("zone_entered", "door", seq, 1, {"zone": "gate"})
    return Result(Frame("door", 0, seq, 0, seq * 40_000_000, image), Detections.empty(), Tracks.empty(), (event,))


class Picture:
    def __init__(self) -> None:
        self.num_drawn = 0

    def __call__(self) -> UInt8:
        self.num_drawn += 1
        return np.full((48, 64, 3), 90, np.uint8)


def test_it_has_a_name_for_people(sink: Sink) -> None:
    assert sink.name
    sink.close()


def test_it_takes_many_results_and_closes_twice(sink: Sink) -> None:
    for seq in range(10):
        sink.write(result(seq), Picture())
    sink.close()
    sink.close()


def test_it_closes_without_a_result(sink: Sink) -> None:
    sink.close()
    sink.close()


def test_it_draws_a_picture_for_whoever_sees_it_and_else_none(kind: Kind, sink: Sink) -> None:
    picture = Picture()
    for seq in range(5):
        sink.write(result(seq), picture)
    sink.close()
    assert picture.num_drawn == kind.num_drawn


def test_it_takes_every_kind_of_prediction(sink: Sink) -> None:
    frame = result().frame
    sink.write(Result(frame, Classification(np.array([1.0], np.float32))), Picture())
    sink.close()


def test_it_does_not_hide_what_the_drawing_raises(kind: Kind, sink: Sink) -> None:
    def broken() -> UInt8:
        raise SinkError("the picture cannot be drawn")

    if kind.num_drawn:
        with pytest.raises(SinkError, match="cannot be drawn"):
            sink.write(result(), broken)
    sink.close()
