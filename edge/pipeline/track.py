"""``edge.track``: sources through a model and a tracker, as a loop over results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.config.load import config_from_arguments
from edge.models.shipped import demo_model
from edge.pipeline import Pipeline
from edge.pipeline.latest_frames import LatestFrames

if TYPE_CHECKING:
    from edge.config.schema import Config
    from edge.pipeline.latest_frames import StreamSlot
    from edge.pipeline.stream import Stream
    from edge.types import Result

IDLE_S = 0.2
GROUP = "results"
Points = Sequence[tuple[float, float]]


def track(
    source: str | int | Path | Sequence[str | int | Path],
    model: str | Path | None = None,
    *,
    lines: Mapping[str, Points] | None = None,
    zones: Mapping[str, Points] | None = None,
    score: float | None = None,
    tracker: str = "edge",
    engine: str = "auto",
    threads: int | None = None,
    sinks: Sequence[str] = (),
    **stream: Any,
) -> Iterator[Result]:
    """Run one or many sources through a model and a tracker, and give each result.

    Every frame of a file comes out, and the file waits for the loop. Of a camera the newest frame comes out; one that
    breaks is opened again and costs the others nothing. Leaving the loop, by an error too, closes everything.

    Args:
        source: see ``edge.open_source``; several run at once, and ``result.frame.stream`` tells whose a result is.
        model: an ONNX file or a TensorRT engine; None takes the shipped detector.
        lines: name → two points as shares of the picture, (0, 0) upper left. Looking from the first to the second,
            left to right is ``in``.
        zones: name → three or more corners as shares of the picture.
        score: least score of an object that is shown; None for the model's own.
        tracker: ``edge``, ``bytetrack``, ``ocsort``, ``sort`` or ``off``.
        engine: see ``edge.interfaces.EngineName``.
        threads: of a CPU engine.
        sinks: where results go besides, as ``edge run --sink`` takes them: ``jsonl:out.jsonl``, ``mp4:out.mp4``.
        stream: further keys of a ``[[streams]]`` table: ``max_fps=5``, ``tiles=(2, 1)``, ``masks=…``.

    Raises:
        EdgeError: a model, a source or a setting is wrong; before the first result.
    """
    sources = [source] if isinstance(source, (str, int, Path)) else list(source)
    addresses = [str(one) for one in sources]
    analytics = {"lines": _drawn(lines), "zones": _drawn(zones)}
    config = config_from_arguments(
        addresses,
        demo_model(addresses[0]) if model is None else Path(model),
        sinks,
        for_model={"engine": engine, "threads": threads},
        for_stream={"score": score, "track": {"method": tracker}, "analytics": analytics, **stream},
    )
    return _Results(config).each()


class _Results:
    """What a pipeline finds, on its way to one loop: of each stream at most two results wait."""

    def __init__(self, config: Config) -> None:
        self._waiting: LatestFrames[Result] = LatestFrames()
        self._pipeline = Pipeline(config, on_result=self._give)
        self._slots = {name: self._slot(stream) for name, stream in self._pipeline.streams.items()}

    def each(self) -> Iterator[Result]:
        """Run until every stream has ended, or the loop was left."""
        with self._pipeline:
            try:
                while True:
                    is_running = self._pipeline.is_running and not self._pipeline.failures()
                    found = self._waiting.take({GROUP: len(self._slots)}, {GROUP: 0.0}, IDLE_S if is_running else 0.0)
                    yield from found
                    if not found and not is_running:
                        break
            finally:
                # an output that waits for the loop must not hold up the end
                self._waiting.stop()
        for failure in self._pipeline.failures():
            raise failure

    def _slot(self, stream: Stream) -> StreamSlot[Result]:
        """Where results of a stream wait; of a camera a new one takes the place of the oldest."""
        counters, is_lossless = stream.metrics.counters, stream.config.is_lossless
        return self._waiting.add(
            stream.name, group=GROUP, is_lossless=is_lossless, on_drop=lambda _: counters.add("unread"), capacity=2
        )

    def _give(self, result: Result) -> None:
        self._waiting.put(self._slots[result.frame.stream], result)


def _drawn(shapes: Mapping[str, Points] | None) -> list[dict[str, Any]]:
    return [
        {"name": name, "points_share": [list(point) for point in points]} for name, points in (shapes or {}).items()
    ]
