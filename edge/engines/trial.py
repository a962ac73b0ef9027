"""What suits a model on this machine, the engine and the size of its batches: measured once, then remembered.

``EDGELOOP_ENGINE_TRIAL=off`` switches it off; then ONNX Runtime is taken, and batches of up to 16.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edge.errors import EdgeError
from edge.files import cache_folder, load_object, sha256_of, write_atomic
from edge.models.manifest import content_hash

if TYPE_CHECKING:
    from edge.interfaces import Engine

log = logging.getLogger(__name__)
SWITCH = "EDGELOOP_ENGINE_TRIAL"
TRIAL_S = 0.4
WARMUP = 3
# an engine must be clearly faster than the one before it in the list
MARGIN = 1.05
MAX_REMEMBERED = 200
BATCHES = (1, 2, 4, 8, 16)
# a larger batch must bring this much, for every frame in it waits for all of them
BATCH_MARGIN = 1.05
# nor may a batch hold its frames for longer
LONGEST_BATCH_S = 0.25


def is_wanted() -> bool:
    """Whether the environment lets engines be tried."""
    return os.environ.get(SWITCH, "").lower() not in ("off", "0", "no")


def fastest(
    path: Path,
    names: Sequence[str],
    versions: Sequence[str],
    threads: int | None,
    load: Callable[[str], Engine],
    clock_s: Callable[[], float] = time.perf_counter,
) -> str:
    """The name of the engine that runs a model fastest, one frame at a time.

    Args:
        path: the model file; a changed file is measured again, and so is another version, processor or thread count.
        names: the engines, the preferred one first.
        versions: of their libraries.
        threads: that they may use, None for their own choice.
        load: gives an engine by name.
        clock_s: what the speed is measured by.
    """
    key = _key(path, names, versions, threads)
    known = _remembered().get(key)
    if known in names:
        return str(known)
    rates = {name: _rate_of(name, load, clock_s) for name in names}
    best = names[0]
    for name in names[1:]:
        if rates[name] > rates[best] * MARGIN:
            best = name
    log.info("%s: %s; %s from now on", path.name, ", ".join(f"{name} {rates[name]:.0f}/s" for name in names), best)
    _remember(key, best)
    return best


def best_batch(
    path: Path,
    name: str,
    versions: Sequence[str],
    threads: int | None,
    load: Callable[[], Engine],
    clock_s: Callable[[], float] = time.perf_counter,
) -> int | None:
    """The smallest batch with nearly the highest frame rate; None where the model or the engine leaves no choice.

    Args:
        path, versions, threads: as for ``fastest``.
        name: of the engine.
        load: gives the engine.
        clock_s: what the speed is measured by.

    Raises:
        EdgeError: the engine cannot be loaded.
    """
    key = _key(path, ["batch", name], versions, threads)
    known = _remembered().get(key)
    if isinstance(known, int) and known in BATCHES:
        return known
    engine = load()
    try:
        if engine.is_fixed_batch:
            return None
        rates = _batch_rates(engine, clock_s)
    finally:
        engine.close()
    enough = max(rates.values()) / BATCH_MARGIN
    best = next(batch for batch, rate in rates.items() if rate >= enough)
    words = ", ".join(f"{batch}: {rate:.0f}/s" for batch, rate in rates.items())
    log.info("%s in batches of %s; of up to %d from now on", path.name, words, best)
    if rates[best]:
        _remember(key, best)
    return best


def _batch_rates(engine: Engine, clock_s: Callable[[], float]) -> dict[int, float]:
    """Frames per second by size of the batch, up to the first that takes too long or fails."""
    rates: dict[int, float] = {}
    for batch in BATCHES:
        if batch > engine.max_batch:
            break
        rates[batch] = _rate(engine, batch, clock_s)
        if rates[batch] * LONGEST_BATCH_S < 2 * batch:
            break
    return rates


def _rate_of(name: str, load: Callable[[str], Engine], clock_s: Callable[[], float]) -> float:
    """Frames per second, 0 where the engine cannot run the model."""
    try:
        engine = load(name)
    except EdgeError as error:
        log.info("%s is no choice: %s", name, error)
        return 0.0
    try:
        return _rate(engine, engine.max_batch if engine.is_fixed_batch else 1, clock_s)
    finally:
        engine.close()


def _rate(engine: Engine, batch: int, clock_s: Callable[[], float]) -> float:
    """Frames per second in batches of this size, 0 where the engine fails."""
    try:
        shape = (batch, *(length or 1 for length in engine.inputs[0].shape[1:]))
        picture = np.random.default_rng(0).integers(0, 256, shape).astype(engine.inputs[0].dtype)
        for _ in range(WARMUP):
            engine.infer(picture)
        started, count = clock_s(), 0
        while clock_s() - started < TRIAL_S:
            engine.infer(picture)
            count += batch
        return count / (clock_s() - started)
    except EdgeError as error:
        log.info("%s is no choice in batches of %d: %s", engine.name, batch, error)
        return 0.0


def _key(path: Path, names: Sequence[str], versions: Sequence[str], threads: int | None) -> str:
    return content_hash([sha256_of(path), names, versions, threads, len(os.sched_getaffinity(0)), processor()])


def _file() -> Path:
    return cache_folder() / "engine-trials.json"


def _remembered() -> dict[str, str | int]:
    try:
        return load_object(_file())
    except OSError:
        return {}


def _remember(key: str, choice: str | int) -> None:
    choices = {**dict(list(_remembered().items())[-MAX_REMEMBERED:]), key: choice}
    try:
        _file().parent.mkdir(parents=True, exist_ok=True)
        write_atomic(_file(), json.dumps(choices, indent=1))
    except OSError as error:
        # a read-only home: it is measured at the next start again
        log.info("what was measured cannot be kept (%s)", error.strerror)


def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
