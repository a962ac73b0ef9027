"""Batches of models on servers: they are on their way while the inference thread works for other models.

A server that is late, wrong or gone costs no other model its time. Its frames are not lost by that: they are tried
again, by the server or by the model that takes its place, and come out if they are still fresh.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from edge.errors import EngineError

if TYPE_CHECKING:
    from edge.metrics.stages import Stage
    from edge.model import Batch, Model
    from edge.pipeline.stream import Stream
    from edge.types import Frame, Prediction

Answer: TypeAlias = "tuple[list[Prediction], dict[Stage, int]]"
log = logging.getLogger(__name__)
# one is answered while the next one is sent
MAX_UNDER_WAY = 2


@dataclass(frozen=True, slots=True)
class Flight:
    """A batch that an engine works on, while the next one is prepared. ``name`` is the model that was asked for."""

    name: str
    frames: list[Frame]
    streams: Mapping[str, Stream]
    batch: Batch


class Apart:
    """The flights of one model on a server; used by the inference thread alone."""

    def __init__(self, model: Model, wake: Callable[[], object]) -> None:
        """Args: the model; called in another thread when an answer is there."""
        self.model = model
        self._flights: deque[Flight] = deque()
        # of flights that failed, the oldest first
        self._again: list[Frame] = []
        model.tell_answers(wake)

    @property
    def is_away(self) -> bool:
        assert self.model.remote is not None
        return self.model.remote.is_away

    @property
    def is_busy(self) -> bool:
        """Whether batches are under way: nobody else may answer for the model before they have landed."""
        return bool(self._flights)

    @property
    def has_room(self) -> bool:
        """Whether new frames may come: not before those that are tried again are on their way."""
        return len(self._flights) < MAX_UNDER_WAY and not self._again and not (self.is_away and self._flights)

    @property
    def has_answer(self) -> bool:
        return bool(self._flights) and self.model.has_answer

    def begin(self, flight: Flight) -> None:
        """Note a batch that was sent."""
        self._flights.append(flight)

    def take_again(self) -> list[Frame]:
        """Frames that are to be tried again, as many as a batch takes, once nothing older is under way."""
        if self._flights:
            return []
        size = self.model.engine.max_batch
        frames, self._again = self._again[:size], self._again[size:]
        return frames

    def drop(self, streams: Collection[str]) -> list[Frame]:
        """Forget those of these streams that were to be tried again, and give them."""
        dropped = [frame for frame in self._again if frame.stream in streams]
        self._again = [frame for frame in self._again if frame.stream not in streams]
        return dropped

    def streams(self) -> Collection[str]:
        """Those of which frames are under way, or wait to be tried again."""
        frames = [frame for flight in self._flights for frame in flight.frames] + self._again
        return {frame.stream for frame in frames}

    def land(
        self, wait: Callable[[Flight], Answer], give: Callable[[Flight, Answer], object], *, is_last: bool = False
    ) -> None:
        """Have the answers that are there passed on; those of frames behind a failed one are not used.

        Args:
            wait: gives the answer of a flight, and raises EngineError where it failed.
            give: passes it on.
            is_last: wait for all.
        """
        while self.has_answer or (is_last and self._flights):
            flight = self._flights.popleft()
            try:
                answer = wait(flight)
            except EngineError as error:
                log.debug("%s: %s", flight.name, error)
                self._again += flight.frames
                continue
            if self._again:
                # the tracker sees frames in order
                self._again += flight.frames
            else:
                give(flight, answer)


def apart_of(models: Mapping[str, Model], wake: Callable[[], object]) -> dict[str, Apart]:
    """Those of the models that are on servers."""
    return {name: Apart(model, wake) for name, model in models.items() if model.remote is not None}
