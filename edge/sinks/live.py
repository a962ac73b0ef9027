"""Sink that shows a stream on the live page: results always, pictures only while somebody watches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from edge.metrics.clock import WallClock
from edge.result_json import DEFAULT_SCORE, ResultEncoder, event_json

if TYPE_CHECKING:
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
    """

    def __init__(
        self,
        board: LiveBoard,
        stream: str,
        classes: Sequence[str],
        *,
        score: float = DEFAULT_SCORE,
        clock: WallClock | None = None,
    ) -> None:
        self.name = f"live:{stream}"
        self._board = board
        self._stream = stream
        self._clock = clock or WallClock()
        # the page shows the masks in its pictures; in the feed they would cost every frame, watched or not
        self._encoder = ResultEncoder(classes, score=score, clock=self._clock, has_masks=False)

    def write(self, result: Result, picture: Callable[[], UInt8]) -> None:
        events = []
        if result.events:
            captured = f'{{"captured":"{self._clock.iso(result.frame.captured_ns)}",'
            events = [(captured + event_json(event)[1:]).encode() for event in result.events]
        self._board.publish(self._stream, self._encoder.encode(result), picture, events)

    def close(self) -> None:
        pass
