"""An engine of the CPU in a thread of its own."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pytest

from edge.engines import ahead as ahead_module
from edge.engines.ahead import AheadEngine
from edge.errors import EngineError
from edge.interfaces import FrameEngine, TensorInfo
from edge.models.manifest import InputSpec
from edge.types import Array, UInt8

SPEC = InputSpec(name="frames", width=8, height=4, layout="nhwc", dtype="uint8", colour="bgr")


class Gated:
    """Gives the sum of each frame, always in the same memory, when the gate is open."""

    name = "gated"
    max_batch = 2
    is_fixed_batch = False
    inputs: Sequence[TensorInfo] = [TensorInfo("frames", (None, 4, 8, 3), "uint8")]
    outputs: Sequence[TensorInfo] = [TensorInfo("sum", (None,), "float64")]

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.failing = False
        self.is_closed = False
        self._memory = np.zeros(2)

    def infer(self, tensor: Array) -> Mapping[str, Array]:
        assert self.gate.wait(10)
        if self.failing:
            raise EngineError("the fan has stopped")
        self._memory[: len(tensor)] = tensor.reshape(len(tensor), -1).sum(1)
        return {"sum": self._memory[: len(tensor)]}

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def inner() -> Gated:
    return Gated()


@pytest.fixture
def ahead(inner: Gated) -> Iterator[AheadEngine]:
    engine = AheadEngine(inner, SPEC)
    yield engine
    inner.gate.set()
    engine.close()


def picture(value: int) -> UInt8:
    return np.full((4, 8, 3), value, np.uint8)


def test_two_batches_are_under_way_and_come_back_in_order(inner: Gated, ahead: AheadEngine) -> None:
    assert isinstance(ahead, FrameEngine)
    ahead.submit_frames([picture(1)])
    # neither call waits for the engine, and the second does not disturb the tensor that it reads
    assert len(ahead.submit_frames([picture(2), picture(3)])) == 2
    inner.gate.set()
    first = ahead.collect()
    second = ahead.collect()
    assert first["sum"].tolist() == [96]
    assert second["sum"].tolist() == [192, 288]


def test_pictures_may_change_once_they_were_taken(inner: Gated, ahead: AheadEngine) -> None:
    image = picture(1)
    ahead.submit_frames([image])
    image[:] = 200
    inner.gate.set()
    assert ahead.collect()["sum"].tolist() == [96]


def test_what_fails_in_the_thread_is_raised_where_it_is_collected(inner: Gated, ahead: AheadEngine) -> None:
    inner.failing = True
    inner.gate.set()
    ahead.submit_frames([picture(1)])
    with pytest.raises(EngineError, match="fan"):
        ahead.collect()


def test_closing_waits_for_what_is_under_way_and_ends_the_thread() -> None:
    inner = Gated()
    engine = AheadEngine(inner, SPEC)
    engine.submit_frames([picture(1)])
    inner.gate.set()
    engine.close()
    engine.close()
    assert inner.is_closed
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("engine")]


def test_an_engine_that_hangs_is_waited_for_in_bounds_and_closed_if_it_comes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ahead_module, "CLOSE_TIMEOUT_S", 0.2)
    inner = Gated()
    engine = AheadEngine(inner, SPEC)
    engine.submit_frames([picture(1)])
    began = time.monotonic()
    engine.close()
    assert time.monotonic() - began < 2
    assert not inner.is_closed, "closed while it ran"
    with pytest.raises(EngineError, match="closed"):
        engine.submit_frames([picture(2)])
    inner.gate.set()
    engine.close()
    assert inner.is_closed


def test_a_failure_of_no_foreseen_kind_reaches_all_who_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    class StrangeError(Exception):
        pass

    def break_down(tensor: Array) -> Mapping[str, Array]:
        raise StrangeError

    inner = Gated()
    monkeypatch.setattr(inner, "infer", break_down)
    engine = AheadEngine(inner, SPEC)
    engine.submit_frames([picture(1)])
    engine.submit_frames([picture(2)])
    for ask in (engine.collect, engine.collect, lambda: engine.infer(np.zeros((1, 4, 8, 3), np.uint8)), engine.close):
        with pytest.raises(StrangeError):
            ask()


def test_the_thread_of_an_engine_that_was_dropped_ends() -> None:
    before = threading.active_count()
    AheadEngine(Gated(), SPEC)
    gc.collect()
    deadline = time.monotonic() + 5
    while threading.active_count() > before:
        assert time.monotonic() < deadline
        time.sleep(0.01)
