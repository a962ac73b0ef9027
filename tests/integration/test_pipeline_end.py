"""Streams that end late, sinks that cannot be opened, and an end in which parts fail or hang."""

from __future__ import annotations

import json
import logging
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from camera_rig import emitted, null_pipeline, unaccounted, wait_for

from edge.engines.null import NullEngine
from edge.errors import SinkError
from edge.interfaces import SourceInfo
from edge.pictures.planes import Planes
from edge.pipeline import Pipeline
from edge.pipeline.memory_plan import THREAD_FRAMES
from edge.pipeline.stream import LOSSLESS_CAPACITY
from edge.types import Array, Result, UInt8

SCENE = "synthetic://street?size=128x96&objects=2&live=1&fps=30"


class ListSink:
    """Takes everything and keeps nothing."""

    name = "list"

    def __init__(self) -> None:
        self.is_closed = False

    def write(self, result: Result, picture: Callable[[], UInt8]) -> None:
        pass

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def sinks(monkeypatch: pytest.MonkeyPatch) -> dict[str, ListSink]:
    """Stream → the sink that was opened for it."""
    opened: dict[str, ListSink] = {}

    def open_one(spec: str, *, stream: str, **_: Any) -> ListSink:
        return opened.setdefault(stream, ListSink())

    monkeypatch.setattr("edge.pipeline.build.open_sink", open_one)
    return opened


class LateSource:
    """Gives pictures until it hangs; comes back from ``read_planes`` when it is let go."""

    info = SourceInfo(width=64, height=48, fps=30.0, is_live=True, num_frames=None, decoder="late")

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.is_to_hang = False
        self.hangs = threading.Event()
        self.captured_ns = 0

    def read_planes(self) -> tuple[Planes, int | None] | None:
        if self.is_to_hang:
            self.hangs.set()
            assert self.let_go.wait(30)
        time.sleep(0.01)
        self.captured_ns = time.monotonic_ns()
        return Planes.of(np.zeros((48, 64, 3), np.uint8)), None

    def take_drops(self) -> dict[str, int]:
        return {}

    def take_changes(self) -> list[Any]:
        return []

    def close(self) -> None:
        pass


def test_a_late_capture_touches_no_later_stream_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[LateSource] = []

    def open_late(uri: str, **_: Any) -> LateSource:
        opened.append(LateSource())
        return opened[-1]

    monkeypatch.setattr("edge.pipeline.capture.open_source", open_late)
    pipeline = null_pipeline(tmp_path, ["rtsp://one.invalid/1"], top={"stop_timeout_s": 0.5})
    pipeline.start()
    wait_for(lambda: emitted(pipeline)["cam0"] > 2, 20, "first pictures")
    (old_stream,), (settings,), (old,) = pipeline.streams.values(), pipeline.config.streams, opened
    old.is_to_hang = True
    assert old.hangs.wait(10)
    assert not pipeline.remove_stream("cam0"), "its capture hangs"
    new_stream = pipeline.add_stream(settings)
    wait_for(lambda: new_stream.metrics.counters["emitted"] > 2, 20, "pictures of the new stream")
    old.let_go.set()
    wait_for(lambda: old_stream.status.state == "ended", 10, "the end of the old capture")
    before = new_stream.metrics.counters["emitted"]
    wait_for(lambda: new_stream.metrics.counters["emitted"] > before + 10, 10, "the new stream goes on")
    # its last picture is counted where it belongs
    assert old_stream.metrics.counters["drop_stopped"] == 1
    assert pipeline.stop()
    assert not any(unaccounted(pipeline).values())


def refuse_recording(pipeline: Pipeline, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def sinks(stream: Any) -> list[Any]:
        if stream.name == name:
            raise SinkError("the folder cannot be written")
        return []

    monkeypatch.setattr(pipeline.outputs, "sinks", sinks)


def test_a_start_that_fails_leaves_no_sink_open(
    tmp_path: Path, sinks: dict[str, ListSink], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = null_pipeline(tmp_path, [SCENE] * 3, sinks=["list:x"])
    refuse_recording(pipeline, "cam1", monkeypatch)
    with pytest.raises(SinkError, match="cannot be written"):
        pipeline.start()
    assert set(sinks) == {"cam0", "cam1"}
    assert all(sink.is_closed for sink in sinks.values())
    assert pipeline.stop()


def test_a_stream_that_cannot_be_added_leaves_no_sink_open(
    tmp_path: Path, sinks: dict[str, ListSink], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = null_pipeline(tmp_path, [SCENE], sinks=["list:x"])
    pipeline.start()
    refuse_recording(pipeline, "late", monkeypatch)
    with pytest.raises(SinkError, match="cannot be written"):
        pipeline.add_stream(pipeline.config.streams[0].model_copy(update={"name": "late"}))
    assert sinks["late"].is_closed
    assert not sinks["cam0"].is_closed
    assert pipeline.stop()
    assert sinks["cam0"].is_closed


class HangingEngine(NullEngine):
    """Takes a batch and gives nothing back; the test lets it go when all was looked at."""

    is_closed = False
    has_begun = threading.Event()
    is_let_go = threading.Event()

    def infer(self, tensor: Array) -> Mapping[str, Array]:
        self.has_begun.set()
        self.is_let_go.wait()
        raise RuntimeError("hung until the end of the test")

    def close(self) -> None:
        self.is_closed = True


def test_an_engine_that_hangs_holds_up_neither_the_end_nor_the_events(tmp_path: Path) -> None:
    pipeline = null_pipeline(tmp_path, [SCENE], top={"stop_timeout_s": 1, "state_dir": str(tmp_path), "events": {}})
    (model,) = pipeline.models.values()
    engine = HangingEngine(model.manifest.input, max_batch=1)
    model.engine = engine
    pipeline.start()
    assert engine.has_begun.wait(20)
    began = time.monotonic()
    assert not pipeline.stop()
    assert time.monotonic() - began < 8
    assert not engine.is_closed, "closed while it ran"
    assert pipeline.outputs.outbox is not None
    with pytest.raises(Exception, match="closed"):
        pipeline.outputs.outbox.recent(1)
    engine.is_let_go.set()
    for thread in threading.enumerate():
        if thread.name == "inference":
            thread.join(10)
            assert not thread.is_alive()


def test_a_model_whose_end_hangs_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.pipeline.pipeline.CLOSE_TIMEOUT_S", 0.3)
    pipeline = null_pipeline(tmp_path, [SCENE])
    (model,) = pipeline.models.values()
    monkeypatch.setattr(model.engine, "close", lambda: threading.Event().wait())
    pipeline.start()
    began = time.monotonic()
    assert not pipeline.stop()
    assert time.monotonic() - began < 8


def no_room() -> None:
    raise OSError(28, "No space left on device")


def test_counts_that_cannot_be_kept_skip_no_other_step_of_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    top = {"state_dir": str(tmp_path), "events": {}}
    pipeline = null_pipeline(tmp_path, [SCENE, SCENE], top=top)
    (model,) = pipeline.models.values()
    closed = threading.Event()
    monkeypatch.setattr(model.engine, "close", closed.set)
    for stream in pipeline.streams.values():
        monkeypatch.setattr(stream.analysis, "save", no_room)
    pipeline.start()
    wait_for(lambda: min(emitted(pipeline).values()) > 2, 20, "first pictures")
    assert pipeline.remove_stream("cam0")
    assert pipeline.stop()
    assert closed.is_set()
    assert "No space left on device" in caplog.text


def test_a_model_that_cannot_be_closed_skips_no_other_step_of_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = null_pipeline(tmp_path, [SCENE])
    (model,) = pipeline.models.values()

    def fail() -> None:
        raise RuntimeError("the device is gone")

    ended = threading.Event()
    monkeypatch.setattr(model.engine, "close", fail)
    monkeypatch.setattr(pipeline.outputs, "stop", lambda deadline_s: ended.set())
    pipeline.start()
    assert not pipeline.stop()
    assert ended.is_set()


class CountedSource(LateSource):
    """A file of numbered pictures that tells how many of them somebody still holds."""

    info = SourceInfo(width=64, height=48, fps=30.0, is_live=False, num_frames=60, decoder="counted")

    def __init__(self) -> None:
        super().__init__()
        self._given: list[weakref.ref[UInt8]] = []

    @property
    def num_held(self) -> int:
        return sum(image() is not None for image in self._given)

    def read_planes(self) -> tuple[Planes, int | None] | None:
        if len(self._given) == 60:
            return None
        image = np.zeros((48, 64, 3), np.uint8)
        self._given.append(weakref.ref(image))
        self.captured_ns = time.monotonic_ns()
        return Planes.of(image), len(self._given) * 33_000_000


class StuckSink(ListSink):
    """Holds its first result until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.let_go = threading.Event()

    def write(self, result: Result, picture: Callable[[], UInt8]) -> None:
        assert self.let_go.wait(30)


def test_a_file_whose_output_is_stuck_holds_no_more_pictures_than_the_memory_plan_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, sink = CountedSource(), StuckSink()
    monkeypatch.setattr("edge.pipeline.capture.open_source", lambda *_, **__: source)
    monkeypatch.setattr("edge.pipeline.build.open_sink", lambda *_, **__: sink)
    pipeline = null_pipeline(tmp_path, ["film.mp4"], sinks=["jsonl:-"])
    pipeline.start()
    stream = pipeline.streams["cam0"]
    wait_for(lambda: not stream.has_room and source.num_held >= 6, 20, "everything that has room is full")
    assert len(stream.results) + stream.num_in_engine <= LOSSLESS_CAPACITY
    assert 5 < source.num_held <= THREAD_FRAMES
    sink.let_go.set()
    assert pipeline.wait(20) and pipeline.stop()
    assert emitted(pipeline) == {"cam0": 60}


def test_counts_are_kept_when_a_stream_is_removed(tmp_path: Path) -> None:
    line = {"name": "gate", "points_share": [[0.5, 0.05], [0.5, 0.95]]}
    pipeline = null_pipeline(tmp_path, [SCENE, SCENE], top={"state_dir": str(tmp_path)}, analytics={"lines": [line]})
    pipeline.start()
    wait_for(lambda: min(emitted(pipeline).values()) > 2, 20, "first pictures")
    assert pipeline.remove_stream("cam0")
    assert "gate" in json.loads((tmp_path / "cam0.analytics.json").read_text())["lines"]
    assert pipeline.stop()
