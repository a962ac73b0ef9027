"""Sink that shows a stream on the live page: results always, pictures only while somebody watches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from edge.metrics.clock import WallClock
from edge.overlay import Theme
from edge.overlay.marks import Marks
from edge.result_json import DEFAULT_SCORE, ResultEncoder, event_json
from edge.server.published import Plain

if TYPE_CHECKING:
    from edge.overlay.overlay import Shape
    from edge.server.board import LiveBoard
    from edge.types import Result, UInt8


class LiveSink:
    """Publishes one stream on a board.

    Args:
        board: knows the stream already.
        stream: its name.
        classes: names by class id.
        score: detections that belong to no track are reported from this score on.
        clock: turns capture times into UTC; None measures one now.
        shapes: gives the zones and lines.
    """

    takes_unseen = True

    def __init__(
        self,
        board: LiveBoard,
        stream: str,
        classes: Sequence[str],
        *,
        score: float = DEFAULT_SCORE,
        clock: WallClock | None = None,
        shapes: Callable[[], Sequence[Shape]] = tuple,
    ) -> None:
        self.name = f"live:{stream}"
        self._board = board
        self._stream = stream
        self._clock = clock or WallClock()
        # masks cost time: they are written where somebody draws them
        self._encoder = ResultEncoder(classes, score=score, clock=self._clock, has_masks=False)
        self._marks = Marks(classes, shapes, theme=Theme(score=score), clock=self._clock)

    def write(self, result: Result, picture: Callable[[], UInt8]) -> None:
        events = []
        if result.events:
            captured = f'{{"captured":"{self._clock.iso(result.frame.captured_ns)}",'
            events = [(captured + event_json(event)[1:]).encode() for event in result.events]
        line = self._encoder.encode(result)
        plain = Plain(result.frame.planes, lambda: self._marks.line(result, line))
        self._board.publish(self._stream, line, picture, events, plain)

    def close(self) -> None:
        pass
