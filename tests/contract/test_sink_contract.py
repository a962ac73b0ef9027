"""The contract of ``Sink``, for all of them alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge.errors import SinkError
from edge.interfaces import Sink
from edge.server.board import LiveBoard
from edge.sinks.choose import open_sink
from edge.sinks.live import LiveSink
from edge.types import Classification, Detections, Event, Frame, Result, Tracks, UInt8

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


SINKS = {
    "jsonl": opened("jsonl:FOLDER/out.jsonl"),
    "stdout": opened("jsonl:-"),
    "mp4": opened("mp4:FOLDER/out.mp4"),
    "snapshot": opened("snapshot:FOLDER"),
    "live": live,
    "live, watched": watched,
}


@pytest.fixture(params=SINKS.values(), ids=SINKS.keys())
def sink(request: pytest.FixtureRequest, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Sink:
    opener: Opener = request.param
    return opener(tmp_path)


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


def test_it_draws_exactly_when_it_said_that_it_wants_a_picture(sink: Sink) -> None:
    for seq in range(5):
        picture = Picture()
        wanted = sink.wants_picture()
        sink.write(result(seq), picture)
        assert picture.num_drawn == int(wanted)
    sink.close()


def test_it_takes_every_kind_of_prediction(sink: Sink) -> None:
    frame = result().frame
    sink.write(Result(frame, Classification(np.array([1.0], np.float32))), Picture())
    sink.close()


def test_it_does_not_hide_what_the_drawing_raises(sink: Sink) -> None:
    def broken() -> UInt8:
        raise SinkError("the picture cannot be drawn")

    if sink.wants_picture():
        with pytest.raises(SinkError, match="cannot be drawn"):
            sink.write(result(), broken)
    sink.close()
