"""Measuring: the bare engine against the whole loop, back to back on the same cores, by the pipeline's own clocks."""

from __future__ import annotations

import gc
import os
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edge.daemon.service import summarise
from edge.metrics.processor_time import own_s
from edge.pipeline import Pipeline
from edge.sources.choose import open_source

if TYPE_CHECKING:
    from edge.config.schema import Config
    from edge.interfaces import SourceInfo
    from edge.model import Model
    from edge.types import UInt8

WARMUP = 10
LOOK_S = 0.02


@dataclass(frozen=True, slots=True)
class BareEngine:
    """The engine alone, on one tensor. Milliseconds per batch; ``fps`` counts frames."""

    name: str
    batch: int
    fps: float
    median_ms: float
    p99_ms: float
    cpu_ms_per_frame: float


def measure_engine(model: Model, images: Sequence[UInt8], seconds: float) -> BareEngine:
    """Run the engine alone for a while, on these (H, W, 3) images as one batch."""
    tensor, _ = model.preprocessor.images(images, pad_to=model.batch_size)
    for _ in range(WARMUP):
        model.engine.infer(tensor)
    spent: list[float] = []
    cpu_s = own_s()
    started = time.perf_counter()
    while time.perf_counter() - started < seconds:
        before = time.perf_counter()
        model.engine.infer(tensor)
        spent.append((time.perf_counter() - before) * 1e3)
    wall_s = time.perf_counter() - started
    count = len(spent) * len(images)
    return BareEngine(
        name=model.engine.name,
        batch=len(images),
        fps=round(count / wall_s, 2),
        median_ms=round(float(np.median(spent)), 3),
        p99_ms=round(float(np.percentile(spent, 99)), 3),
        cpu_ms_per_frame=round((own_s() - cpu_s) * 1e3 / count, 3),
    )


class GcPauses:
    """How often Python's garbage collector stopped everything, and for how long. Use it as a context."""

    def __init__(self) -> None:
        self.spent_ms: list[float] = []
        self._began_ns = 0

    def __enter__(self) -> GcPauses:
        gc.callbacks.append(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        gc.callbacks.remove(self._note)

    def _note(self, phase: str, _: Mapping[str, int]) -> None:
        if phase == "start":
            self._began_ns = time.perf_counter_ns()
        else:
            self.spent_ms.append((time.perf_counter_ns() - self._began_ns) / 1e6)

    def as_dict(self) -> dict[str, float]:
        """Number of pauses, the longest and the sum in milliseconds."""
        spent = self.spent_ms or [0.0]
        return {"pauses": len(self.spent_ms), "longest_ms": round(max(spent), 2), "sum_ms": round(sum(spent), 1)}


@dataclass(frozen=True, slots=True)
class _Moment:
    at_s: float
    cpu_s: float
    num_blocks: int
    num_frames: int


def measure_loop(config: Config, max_seconds: float) -> dict[str, Any]:
    """Run a configuration for a while; its rate, ages, drops and stage times, and the processor time per frame.

    It is measured from the first frames to the last one, without start and stop. ``blocks_per_frame`` is by how many
    blocks of Python's memory the process grew per frame: about 0 where nothing leaks and all windows are full.
    """
    pipeline = Pipeline(config)
    with GcPauses() as pauses:
        pipeline.start()
        first, last = _measured_stretch(pipeline, max_seconds)
        summary = summarise(pipeline)
        pipeline.stop()
    for failure in pipeline.failures():
        raise failure
    streams = pipeline.streams
    num_frames, seconds = max(1, last.num_frames - first.num_frames), max(1e-9, last.at_s - first.at_s)
    return {
        **{name: value for name, value in summary.as_dict().items() if name != "counts"},
        "fps": round((last.num_frames - first.num_frames) / seconds, 2),
        "cpu_ms_per_frame": round((last.cpu_s - first.cpu_s) * 1e3 / num_frames, 3),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "blocks_per_frame": round((last.num_blocks - first.num_blocks) / num_frames, 2),
        "gc": pauses.as_dict(),
        "ages_ms": {
            name: [round(age, 2) for age in stream.metrics.age_ms.values()] for name, stream in streams.items()
        },
        "streams": {name: stream.stats() for name, stream in streams.items()},
    }


def _measured_stretch(pipeline: Pipeline, max_seconds: float) -> tuple[_Moment, _Moment]:
    """Two moments, in each of which a frame had just come out."""
    deadline = time.monotonic() + max_seconds
    first = last = _moment(pipeline)
    while time.monotonic() < deadline and not pipeline.wait(LOOK_S):
        now = _moment(pipeline)
        if first.num_frames < WARMUP:
            first = last = now
        elif now.num_frames > last.num_frames:
            last = now
    return first, last


def _moment(pipeline: Pipeline) -> _Moment:
    num_frames = sum(stream.metrics.counters["emitted"] for stream in pipeline.streams.values())
    return _Moment(time.monotonic(), own_s(), sys.getallocatedblocks(), num_frames)


def first_images(uri: str, count: int) -> tuple[list[UInt8], SourceInfo]:
    """The first pictures of a source."""
    source = open_source(uri)
    try:
        pictures = [picture[0] for _ in range(count) if (picture := source.read()) is not None]
    finally:
        source.close()
    return pictures, source.info


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0))
