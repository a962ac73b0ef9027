"""Sink that shows a stream on the live page: results always, pictures only while somebody watches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from edge.metrics.clock import WallClock
from edge.overlay import Theme
from edge.overlay.marks import Marks
from edge.result_json import DEFAULT_SCORE, ResultEncoder, event_json
from edge.server.published import Plain

if TYPE_CHECKING:
    from edge.overlay.overlay import Shape
    from edge.server.board import LiveBoard
    from edge.types import Result, UInt8


class LargePictures(Protocol):
    """What is told of the results by whose boxes it draws."""

    @property
    def is_showing(self) -> bool:
        """Whether its pictures take the place of the frames' own in video."""

    def note(self, result: Result, shown_ns: int) -> None:
        """A result was shown at this time."""


class LiveSink:
    """Publishes one stream on a board.

    Args:
        board: knows the stream already.
        stream: its name.
        classes: names by class id.
        score: detections that belong to no track are reported from this score on.
        clock: turns capture times into UTC; None measures one now.
        shapes: gives the zones and lines.
        large: shows other pictures of the same camera as video.
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
        large: LargePictures | None = None,
    ) -> None:
        self.name = f"live:{stream}"
        self._board = board
        self._stream = stream
        self._large = large
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
        captured_ns, large = result.frame.captured_ns, self._large
        has_video = large is None or not large.is_showing
        shown_ns = self._board.publish(
            self._stream, line, picture, events, plain, captured_ns=captured_ns, has_video=has_video
        )
        if large is not None:
            large.note(result, shown_ns)

    def close(self) -> None:
        pass
