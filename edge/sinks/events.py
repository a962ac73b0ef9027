"""Sink that hands the events of a stream to the desk, with the picture and the clip that belong to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge.events.schema import ModelFacts
    from edge.events.writer import EventWriter
    from edge.types import Result, UInt8


class EventSink:
    """Reports every result that has events; a picture is drawn for those only.

    Args:
        desk: takes the events.
        stream: name of the stream.
        model: says what sees them now.
        clip_of: gives the path of the clip that a result's events go into, None where there is none.
    """

    def __init__(
        self,
        desk: EventWriter,
        stream: str,
        model: Callable[[], ModelFacts],
        clip_of: Callable[[Result], str | None] = lambda _: None,
    ) -> None:
        self.name = f"events:{stream}"
        self._desk = desk
        self._model = model
        self._clip_of = clip_of

    def write(self, result: Result, picture: Callable[[], UInt8]) -> None:
        if result.events:
            clip = self._clip_of(result)
            links = {} if clip is None else {"clip": clip}
            self._desk.report(result, picture if self._desk.has_snapshots else None, self._model(), links)

    def close(self) -> None:
        pass
