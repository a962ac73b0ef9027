"""How much memory a configuration can need at most, computed before it runs: frames under way times their size.

The bounds that it counts on are kept elsewhere: slots per ring and rings per stream (``edge.capture.ring``), frames
that wait (``edge.handoff``), results that wait (``edge.lane``), and the size of a picture (``edge.capture.picture``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edge.capture.ring import MAX_RINGS, NUM_SLOTS
from edge.config import Config, StreamConfig
from edge.errors import ConfigError
from edge.manifest import InputSpec, Manifest
from edge.sources.synthetic import parse_synthetic
from edge.uris import kind_of

# a picture of unknown size is planned as this; with a budget, a larger one is made smaller
LARGEST_PX = (1920, 1080)
# Python, NumPy and OpenCV or PyAV in a capture child: measured 55 to 75 MB
CHILD_MB = 80.0
# Python, NumPy, OpenCV, pydantic and an engine's library in the main process: measured 120 to 170 MB
PROCESS_MB = 190.0
# a decoder's reference pictures (H.264, level 4: at most 16, and one in work) at 1.5 bytes, and three as BGR
DECODER_BYTES_PER_PX = 17 * 1.5 + 3 * 3
# in thread mode: being read, waiting (at most 2), in inference, waiting as results (2), in output
THREAD_FRAMES = 7
# the picture that is drawn on, its JPEG, and the scene or sinks that hold one more
OUTPUT_FRAMES = 3
# weights and arena of an engine, relative to the model file
ENGINE_TIMES_FILE = 4.0
ENGINE_MB = 60.0
DTYPE_BYTES = {"uint8": 1, "float16": 2, "float32": 4}
STEP_MB = 1e6


@dataclass(frozen=True, slots=True)
class MemoryRow:
    """One part of the plan: whose, what for, how many megabytes (10^6 bytes)."""

    owner: str
    what: str
    mb: float


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """The worst case of a configuration."""

    rows: tuple[MemoryRow, ...]

    @property
    def total_mb(self) -> float:
        return sum(row.mb for row in self.rows)

    def refuse_over(self, budget_mb: float | None) -> None:
        """Check it against a budget, None for none.

        Raises:
            ConfigError: it needs more; the message names the largest part.
        """
        if budget_mb is None or self.total_mb <= budget_mb:
            return
        largest = max(self.rows, key=lambda row: row.mb)
        raise ConfigError(
            f"memory_budget_mb = {budget_mb:g}: this configuration can need {self.total_mb:.0f} MB; the largest part "
            f"is {largest.mb:.0f} MB for {largest.owner}, {largest.what}; give streams a smaller size, or fewer of them"
        )


def plan_memory(config: Config, manifests: Mapping[str, Manifest]) -> MemoryPlan:
    """The worst case of a configuration.

    Args:
        config: what is to run.
        manifests: of the models that are used, by name.
    """
    rows = [MemoryRow("process", "Python and libraries", PROCESS_MB)]
    for model in config.models:
        if model.name in manifests:
            rows += _model_rows(model.name, model.path, manifests[model.name].input, model.max_batch or 16)
    for stream in config.streams:
        rows += _stream_rows(stream)
    return MemoryPlan(tuple(rows))


def _model_rows(name: str, path: Path, spec: InputSpec, max_batch: int) -> list[MemoryRow]:
    file_mb = path.stat().st_size / STEP_MB if path.is_file() else 0.0
    values = max_batch * spec.width * spec.height * 3
    # the batch, and what the engine makes of it on its way
    tensor_mb = 2 * values * DTYPE_BYTES.get(spec.dtype, 4) / STEP_MB
    return [
        MemoryRow(name, "weights and engine", ENGINE_MB + ENGINE_TIMES_FILE * file_mb),
        MemoryRow(name, f"batch of {max_batch}", tensor_mb),
    ]


def _stream_rows(stream: StreamConfig) -> list[MemoryRow]:
    width, height = size_of(stream)
    frame_mb = width * height * 3 / STEP_MB
    rows = [MemoryRow(stream.name, f"drawing and encoding {width}x{height}", OUTPUT_FRAMES * frame_mb)]
    if is_isolated(stream):
        slots = MAX_RINGS * NUM_SLOTS
        rows.append(MemoryRow(stream.name, f"{slots} pictures in shared memory", slots * frame_mb))
        rows.append(MemoryRow(stream.name, "capture child and its decoder", child_limit_mb(stream)))
    else:
        rows.append(MemoryRow(stream.name, f"{THREAD_FRAMES} pictures under way", THREAD_FRAMES * frame_mb))
        rows.append(MemoryRow(stream.name, "decoder", decoder_mb(stream)))
    return rows


def child_limit_mb(stream: StreamConfig) -> float:
    """The private memory that a capture child may use; beyond it is killed and replaced."""
    return CHILD_MB + decoder_mb(stream)


def decoder_mb(stream: StreamConfig) -> float:
    """What the decoder of a camera needs at most."""
    width, height = LARGEST_PX if stream.size is not None else size_of(stream)
    return width * height * DECODER_BYTES_PER_PX / STEP_MB


def size_of(stream: StreamConfig) -> tuple[int, int]:
    """The largest picture that a stream can put into the pipeline, width and height."""
    if stream.size is not None:
        return stream.size
    if kind_of(stream.source) == "synthetic":
        scene = parse_synthetic(stream.source)
        return scene.width, scene.height
    return LARGEST_PX


def is_isolated(stream: StreamConfig) -> bool:
    """Whether the stream decodes in a child process."""
    if stream.isolation != "auto":
        return stream.isolation == "process"
    return kind_of(stream.source) in ("network", "device", "gstreamer")
