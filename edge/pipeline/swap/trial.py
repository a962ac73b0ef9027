"""The trial of a new model: golden frames in a process of its own, so that a crash or a hang costs only that process.

Run by ``try_model`` as ``python -m edge.pipeline.swap.trial``; the request comes as JSON over standard input, the
verdict goes out as the last line of standard output.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edge.errors import EngineError, ModelError
from edge.files import parse_json
from edge.model import Model, open_model
from edge.models.checks import check_outputs, check_sane
from edge.pipeline.inference import FAULTS
from edge.pipeline.swap.agreement import same_outputs
from edge.threads.python_process import child_environment, python_command

if TYPE_CHECKING:
    from edge.types import UInt8

GOLDEN_SIZE = (360, 640)
LAST_CHARS = 300


def golden_frames() -> list[UInt8]:
    """(360, 640, 3) pictures that never change: grey, black, white, noise, a gradient, a chessboard."""
    height, width = GOLDEN_SIZE
    noise = np.random.default_rng(7).integers(0, 256, (height, width, 3), np.uint8)
    gradient = np.broadcast_to(np.linspace(0, 255, width, dtype=np.uint8)[None, :, None], (height, width, 3))
    rows, columns = np.indices((height, width)) // 40
    board = np.repeat(((rows + columns) % 2 * 255).astype(np.uint8)[:, :, None], 3, axis=2)
    flat = [np.full((height, width, 3), level, np.uint8) for level in (114, 0, 255)]
    return [*flat, noise, np.ascontiguousarray(gradient), board]


def check_golden(model: Model, frames: Sequence[UInt8]) -> None:
    """Run the golden frames, alone and in full batches, twice.

    Raises:
        EngineError: an output is not finite, makes no sense, or is another one the second time.
    """
    num_classes = len(model.manifest.classes)
    for number, frame in enumerate(frames):
        try:
            (first,), (second,) = (model.predict([frame], check_outputs) for _ in range(2))
            check_sane(first, num_classes)
        except FAULTS as error:
            raise EngineError(f"golden frame {number}: {error}") from None
        if not same_outputs([first], [second]):
            raise EngineError(f"golden frame {number}: the same picture gives another answer the second time")
    try:
        full = [frames[number % len(frames)] for number in range(model.engine.max_batch)]
        for prediction in model.predict(full, check_outputs):
            check_sane(prediction, num_classes)
    except FAULTS as error:
        raise EngineError(f"golden frames in a batch of {model.engine.max_batch}: {error}") from None


def try_model(path: Path, *, manifest: Path | None, engine: str, threads: int | None, timeout_s: float) -> None:
    """Load a model and run the golden frames in a child process.

    Raises:
        ModelError: it fails, crashes or takes too long there; the message is its own.
    """
    request = {"path": str(path), "manifest": manifest and str(manifest), "engine": engine, "threads": threads}
    with subprocess.Popen(
        python_command("edge.pipeline.swap.trial"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=child_environment(),
    ) as process:
        try:
            text, _ = process.communicate(json.dumps(request), timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            raise ModelError(f"{path.name}: loading and the golden frames took longer than {timeout_s:g} s") from None
    verdict = _verdict(text, process.returncode, path.name)
    if verdict:
        raise ModelError(verdict)


def _verdict(text: str, code: int, name: str) -> str:
    """Why the model was refused; empty if it was not."""
    if code < 0:
        return f"{name}: the trial process was ended by {signal.Signals(-code).name}; the model crashes its engine"
    lines = text.strip().splitlines()
    try:
        verdict = parse_json(lines[-1])["error"] if lines else None
    except (ValueError, KeyError, TypeError):
        verdict = None
    if verdict is None:
        return f"{name}: the trial process ended with code {code} and no verdict"
    return str(verdict)


def main() -> None:
    """Serve one request."""
    # if memory runs out, this process goes and not the daemon
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="utf-8")
    # what libraries print must not be taken for the verdict
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    request = json.load(sys.stdin)
    print(json.dumps({"error": _refusal(request)}), file=out, flush=True)


def _refusal(request: dict[str, str | int | None]) -> str:
    manifest = request["manifest"]
    threads = request["threads"]
    try:
        model = open_model(
            Path(str(request["path"])),
            manifest=None if manifest is None else Path(str(manifest)),
            engine=str(request["engine"]),
            threads=None if threads is None else int(threads),
        )
        check_golden(model, golden_frames())
        model.close()
    except FAULTS as error:
        return f"{error}"[:LAST_CHARS] or type(error).__name__
    return ""


if __name__ == "__main__":
    main()
