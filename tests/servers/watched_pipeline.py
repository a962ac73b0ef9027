"""A pipeline of live cameras over a model on a server, with who answered and how old each result was."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tiny_models import tiny_model

from edge.config.load import parse_config
from edge.pipeline import Pipeline
from edge.types import Result

MAX_AGE_MS = 1000
# the score of what each model finds: on the server, in its place, and of here
REMOTE, FALLBACK, HERE = 0.9, 0.6, 0.5
FPS = 15


@dataclass(frozen=True, slots=True)
class Answer:
    """One result. Attributes: when it came, whose it is, how old, the score of its first object (-1: none)."""

    at_s: float
    stream: str
    seq: int
    age_ms: float
    score: float


@dataclass(slots=True)
class Watched:
    """What comes out of a pipeline; ``answers`` grows meanwhile."""

    pipeline: Pipeline | None = None
    answers: list[Answer] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, result: Result) -> None:
        now_ns = time.monotonic_ns()
        score = round(float(result.detections.score[0]), 2) if len(result.detections) else -1.0
        age_ms = (now_ns - result.frame.captured_ns) / 1e6
        with self._lock:
            self.answers.append(Answer(now_ns / 1e9, result.frame.stream, result.frame.seq, age_ms, score))

    def since(self, at_s: float) -> list[Answer]:
        return [one for one in list(self.answers) if one.at_s >= at_s]

    def wait_for(self, score: float, since_s: float, streams: int, limit_s: float) -> float:
        """Seconds from ``since_s`` until so many streams had an answer of this score."""
        while True:
            first: dict[str, float] = {}
            for one in self.since(since_s):
                if one.score == score:
                    first.setdefault(one.stream, one.at_s)
            if len(first) >= streams:
                return sorted(first.values())[streams - 1] - since_s
            assert time.monotonic() < since_s + limit_s, f"{score}: {len(first)} of {streams} streams in {limit_s} s"
            time.sleep(0.005)


def remote_config(
    folder: Path,
    url: str,
    *,
    cameras: Sequence[str] = ("a", "b", "c", "d"),
    neighbours: Sequence[str] = (),
    has_fallback: bool = True,
    timeout_ms: float = 400,
    **remote: Any,
) -> Any:
    """Cameras on the server's model, and others on a model of here."""
    tiny_model(folder / "tiny.onnx")
    tiny_model(folder / "instead.onnx", scores=(FALLBACK, 0.55))
    tiny_model(folder / "here.onnx", scores=(HERE, 0.45))

    def stream(name: str, model: str) -> dict[str, Any]:
        source = f"synthetic://street?seed=1&size=160x96&fps={FPS}&live=1&objects=1"
        track = {"method": "off"}
        return {"name": name, "source": source, "model": model, "max_age_ms": MAX_AGE_MS, "track": track}

    there = {"name": "there", "path": folder / "tiny.onnx", "engine": "kserve", "url": url, "max_batch": 8}
    there["remote"] = {"timeout_ms": timeout_ms, **remote}
    if has_fallback:
        there["fallback"] = "instead"
    models: list[dict[str, Any]] = [there]
    models += [{"name": name, "path": folder / f"{name}.onnx", "engine": "ort"} for name in ("instead", "here")]
    streams = [stream(name, "there") for name in cameras] + [stream(name, "here") for name in neighbours]
    return parse_config({"models": models, "streams": streams}, where="test")


@contextmanager
def watched(config: Any) -> Iterator[Watched]:
    found = Watched()
    found.pipeline = Pipeline(config, on_result=found.note)
    with found.pipeline:
        yield found
    assert not found.pipeline.failures()
