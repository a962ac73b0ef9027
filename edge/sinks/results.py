"""Results handed to a function of a Python program, each with its picture where somebody asks for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from edge.overlay import Overlay, StreamState, Theme

if TYPE_CHECKING:
    from edge.types import Result, Shape, UInt8


class ResultSink:
    """See ``edge.interfaces.Sink``. What the function raises ends the stream."""

    def __init__(
        self,
        on_result: Callable[[Result], object],
        classes: Sequence[str],
        *,
        score: float,
        shapes: Callable[[], Sequence[Shape]],
    ) -> None:
        """Args: the function; names by class id; least score drawn; gives lines and zones with their counts of now."""
        self._on_result = on_result
        self._shapes = shapes
        # of its own: the program draws when it likes, in whichever thread it runs
        self._overlay = Overlay(classes, Theme(score=score, has_status=False))

    @property
    def name(self) -> str:
        return "results"

    def write(self, result: Result, picture: Callable[[], UInt8]) -> None:
        self._on_result(replace(result, draw=partial(self._draw, result, self._shapes())))

    def close(self) -> None:
        """Nothing is open."""

    def _draw(self, result: Result, shapes: Sequence[Shape]) -> UInt8:
        self._overlay.shapes = shapes
        return self._overlay.draw(result, StreamState("live"))
