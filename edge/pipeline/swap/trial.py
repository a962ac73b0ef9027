"""The trial of a new model: golden frames in a process of its own, so that a crash or a hang costs only that process.

Run by ``try_model`` as ``python -m edge.pipeline.swap.trial``; the request comes as JSON over standard input, the
verdict goes out as the last line of standard output.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edge.errors import EngineError, ModelError
from edge.model import Model, open_model
from edge.models.checks import check_outputs, check_sane
from edge.pipeline.inference import FAULTS
from edge.pipeline.swap.agreement import same_outputs
from edge.threads.python_process import Answer, Asked, serve_request

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
    answer = Asked("edge.pipeline.swap.trial").answer(request, timeout_s)
    if answer.is_late:
        raise ModelError(f"{path.name}: loading and the golden frames took longer than {timeout_s:g} s")
    verdict = _verdict(answer, path.name)
    if verdict:
        raise ModelError(verdict)


def _verdict(answer: Answer, name: str) -> str:
    """Why the model was refused; empty if it was not."""
    if answer.code < 0:
        by = signal.Signals(-answer.code).name
        return f"{name}: the trial process was ended by {by}; the model crashes its engine"
    try:
        return str(answer.value["error"])
    except (LookupError, TypeError):
        return f"{name}: the trial process ended with code {answer.code} and no verdict"


def _served(request: dict[str, str | int | None]) -> dict[str, str]:
    return {"error": _refusal(request)}


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
    serve_request(_served)
