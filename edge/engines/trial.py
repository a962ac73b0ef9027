"""Which of several engines runs a model fastest on this machine: measured once, then remembered.

``EDGELOOP_ENGINE_TRIAL=off`` switches it off; then ONNX Runtime is taken.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from edge.errors import EdgeError
from edge.files import cache_folder, sha256_of, write_atomic
from edge.interfaces import Engine
from edge.manifest import content_hash

log = logging.getLogger(__name__)
SWITCH = "EDGELOOP_ENGINE_TRIAL"
TRIAL_S = 0.4
WARMUP = 3
# an engine must be clearly faster than the one before it in the list
MARGIN = 1.05
MAX_REMEMBERED = 200


def is_wanted() -> bool:
    """Whether the environment lets engines be tried."""
    return os.environ.get(SWITCH, "").lower() not in ("off", "0", "no")


def fastest(
    path: Path, names: Sequence[str], versions: Sequence[str], threads: int | None, load: Callable[[str], Engine]
) -> str:
    """The name of the engine that runs a model fastest, one frame at a time.

    Args:
        path: the model file; a changed file is measured anew, and so is another version, processor or thread count.
        names: the engines, the preferred one first.
        versions: of their libraries.
        threads: that they may use, None for their own choice.
        load: gives an engine by name.
    """
    key = content_hash([sha256_of(path), names, versions, threads, len(os.sched_getaffinity(0)), _processor()])
    remembered = _remembered()
    known = remembered.get(key)
    if known in names:
        return str(known)
    rates = {name: _rate(name, load) for name in names}
    best = names[0]
    for name in names[1:]:
        if rates[name] > rates[best] * MARGIN:
            best = name
    log.info("%s: %s; %s from now on", path.name, ", ".join(f"{name} {rates[name]:.0f}/s" for name in names), best)
    _remember({**dict(list(remembered.items())[-MAX_REMEMBERED:]), key: best})
    return best


def _rate(name: str, load: Callable[[str], Engine]) -> float:
    """Frames per second, 0 where the engine cannot run the model."""
    try:
        engine = load(name)
    except EdgeError as error:
        log.info("%s is no choice: %s", name, error)
        return 0.0
    try:
        batch = engine.max_batch if engine.is_fixed_batch else 1
        shape = (batch, *(length or 1 for length in engine.inputs[0].shape[1:]))
        picture = np.random.default_rng(0).integers(0, 256, shape).astype(engine.inputs[0].dtype)
        for _ in range(WARMUP):
            engine.infer(picture)
        started, count = time.perf_counter(), 0
        while time.perf_counter() - started < TRIAL_S:
            engine.infer(picture)
            count += batch
        return count / (time.perf_counter() - started)
    except EdgeError as error:
        log.info("%s is no choice: %s", name, error)
        return 0.0
    finally:
        engine.close()


def _file() -> Path:
    return cache_folder() / "engine-trials.json"


def _remembered() -> dict[str, str]:
    try:
        found = json.loads(_file().read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _remember(choices: dict[str, str]) -> None:
    try:
        _file().parent.mkdir(parents=True, exist_ok=True)
        write_atomic(_file(), json.dumps(choices, indent=1))
    except OSError as error:
        # a read-only home: it is measured at the next start again
        log.info("the choice of the engine cannot be kept (%s)", error.strerror)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
