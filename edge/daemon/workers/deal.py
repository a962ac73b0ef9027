"""How many workers there are, where they run, which streams each has, and what cannot run in several."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edge.config.workers import WorkerSettings
from edge.errors import ConfigError

if TYPE_CHECKING:
    from edge.config.schema import Config, StreamSettings

# `auto`: a single process is right up to here
MIN_CORES = 8
CORES_PER_WORKER = 4
STREAMS_PER_WORKER = 16
ON_GPU = ("trt", "ort-cuda", "ort-tensorrt")
GPUS = Path("/proc/driver/nvidia/gpus")


def places_of(config: Config, num_cores: int | None = None, num_gpus: int | None = None) -> tuple[WorkerSettings, ...]:
    """Where the workers run; none where everything runs in a single process.

    Args:
        config: with ``[workers]``.
        num_cores, num_gpus: of this machine; None: looked up.
    """
    count = config.workers.count
    if isinstance(count, tuple):
        return count
    if isinstance(count, int):
        return (WorkerSettings(),) * count if count > 1 else ()
    if refusal(config):
        return ()
    num_cores = len(os.sched_getaffinity(0)) if num_cores is None else num_cores
    num_gpus = _num_gpus() if num_gpus is None else num_gpus
    num_streams = len(config.streams)
    if num_gpus > 1 and all(_is_on_gpu(model.engine, model.path) for model in config.models):
        return tuple(WorkerSettings(device=number) for number in range(min(num_gpus, num_streams)))
    if num_cores < MIN_CORES or num_streams <= STREAMS_PER_WORKER:
        return ()
    return (WorkerSettings(),) * min(num_cores // CORES_PER_WORKER, math.ceil(num_streams / STREAMS_PER_WORKER))


def refusal(config: Config) -> str:
    """Why the streams cannot be dealt to several processes; empty if they can."""
    if config.workers.spare and not _are_alike(config):
        return "workers.spare: one process can stand by for workers that are alike only; leave spare out"
    if isinstance(config.workers.count, tuple) and any(place.device is not None for place in config.workers.count):
        for model in (model for model in config.models if model.device):
            one = f"model {model.name!r} asks for GPU {model.device}"
            return f"workers.count: {one}, and every worker has one of its own; leave the model's device out"
    for stream in config.streams:
        for spec in stream.sinks:
            if spec.partition(":")[0] == "window":
                return f"workers.count: stream {stream.name!r} opens a window, which needs a single process; use 1"
    return ""


def has_spare(config: Config) -> bool:
    """Whether a process stands by."""
    if config.workers.spare is not None:
        return config.workers.spare
    return _are_alike(config) and not all(stream.is_lossless for stream in config.streams)


def check_workers(config: Config) -> int:
    """How many workers there will be, 0 for a single process.

    Raises:
        ConfigError: this configuration needs a single process, or there are more workers than streams.
    """
    num_workers = len(places_of(config))
    if num_workers > len(config.streams):
        raise ConfigError(f"workers.count: {num_workers} workers for {len(config.streams)} streams; expected no more")
    reason = refusal(config) if num_workers else ""
    if reason:
        raise ConfigError(reason)
    return num_workers


def deal(streams: Sequence[StreamSettings], num_workers: int) -> list[list[StreamSettings]]:
    """The streams of each worker: as many as of the others, and of each model as many as of the others."""
    hands: list[list[StreamSettings]] = [[] for _ in range(num_workers)]
    by_model = sorted(streams, key=lambda stream: stream.model or "")
    for number, stream in enumerate(by_model):
        hands[number % num_workers].append(stream)
    return hands


def least_loaded(num_streams: Mapping[int, int]) -> int:
    """Which of the workers takes one more stream: the one with the fewest, the first of several."""
    return min(num_streams, key=lambda number: (num_streams[number], number))


def _are_alike(config: Config) -> bool:
    count = config.workers.count
    return not isinstance(count, tuple) or len(set(count)) == 1


def _is_on_gpu(engine: str, path: Path) -> bool:
    return engine in ON_GPU or (engine == "auto" and path.suffix in (".engine", ".plan"))


def _num_gpus() -> int:
    try:
        return sum(1 for _ in GPUS.iterdir())
    except OSError:
        return 0
