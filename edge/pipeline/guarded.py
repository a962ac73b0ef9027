"""Trackers, sinks and stages of installed packages as the pipeline runs them: what goes wrong costs one stream.

Each has a guard: a thread of its own, a deadline, counts, and an end after repeated failures.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from edge.errors import PartError, SinkError
from edge.interfaces import StageAnswer
from edge.packages import plugins
from edge.result_json import event_json
from edge.threads.guard import PART_LIMIT_S, Guard, Lent
from edge.types import Event, Label, Tracks

if TYPE_CHECKING:
    from edge.config.schema import StageSettings
    from edge.interfaces import EmbedBoxes, Sink, Stage, Tracker
    from edge.types import Detections, Float64, Result, UInt8

log = logging.getLogger(__name__)
# of a result; only its own stream waits for it
SINK_LIMIT_S = 2.0
# as event.schema.json says
EVENT_KIND = re.compile(r"[a-z][a-z0-9_]{0,63}")


class GuardedTracker:
    """See ``edge.interfaces.Tracker``; a frame for which it gives nothing has no tracks."""

    def __init__(self, stream: str, name: str, opener: Callable[[], Tracker], limit_s: float = PART_LIMIT_S) -> None:
        """Open it.

        Args:
            stream, name: for people.
            opener: makes the tracker, in its own thread.
            limit_s: how long it may take for a frame.

        Raises:
            PartError: it cannot be opened.
        """
        self.guard = Guard(f"{stream}: tracker {name!r}", limit_s, is_shared=True)
        self._tracker = self.guard.open(opener)

    def update(
        self, detections: Detections, time_ns: int, motion: Float64 | None = None, look: EmbedBoxes | None = None
    ) -> Tracks:
        lent = None if look is None else Lent(look)
        follow = partial(self._tracker.update, detections, time_ns, motion, lent)
        try:
            return self.guard.call(lambda: plugins.check_tracks(follow(), len(detections)))
        except PartError:
            return Tracks.empty()
        finally:
            if lent is not None:
                lent.take_back()


class GuardedSink:
    """See ``edge.interfaces.Sink``; every failure is a ``SinkError``, which costs one result, until it is off."""

    def __init__(self, stream: str, spec: str, opener: Callable[[], Sink]) -> None:
        """Open it.

        Raises:
            PartError: it cannot be opened.
        """
        self.guard = Guard(f"{stream}: sink {spec.partition(':')[0]!r}", SINK_LIMIT_S, is_silent=True)
        self._sink = self.guard.open(opener)

    @property
    def name(self) -> str:
        return self.guard.name

    def write(self, result: Result, picture: Callable[[], UInt8]) -> None:
        if self.guard.is_off:
            return
        lent = Lent(picture)
        try:
            self.guard.call(lambda: self._sink.write(result, lent))
        except PartError as error:
            raise SinkError(str(error)) from None
        finally:
            lent.take_back()

    def close(self) -> None:
        try:
            self.guard.close(self._sink.close)
        except PartError as error:
            raise SinkError(str(error)) from None


class GuardedStage:
    """A stage of one stream. Used by its output thread."""

    def __init__(
        self, settings: StageSettings, *, stream: str, classes: Sequence[str], limit_s: float | None = None
    ) -> None:
        """Open it.

        Args:
            settings: which one, and what it is told.
            stream, classes: the stream's name, and the names by class id.
            limit_s: instead of the configured one.

        Raises:
            PartError: it cannot be opened.
        """
        self.guard = Guard(f"{stream}: stage {settings.name!r}", limit_s or settings.limit_ms / 1e3)
        make = partial(plugins.make, "edge.stages", settings.name, settings.options, stream=stream, classes=classes)
        self._stage: Stage = self.guard.open(make)

    def add_to(self, result: Result) -> Result:
        """The result with what the stage adds to it; as it is where there is no answer."""
        try:
            answer = self.guard.call(lambda: _checked(self._stage.update(result), result.frame.stream))
        except PartError:
            return result
        if answer is None:
            return result
        labels = {**result.labels}
        for track, more in answer.labels.items():
            labels[track] = (*labels.get(track, ()), *more)
        return replace(result, events=(*result.events, *answer.events), labels=labels)

    def close(self) -> None:
        """Raises: PartError: it cannot be closed."""
        self.guard.close(self._stage.close)


def open_stages(
    settings: Sequence[StageSettings], *, stream: str, classes: Sequence[str], limit_s: float | None = None
) -> list[GuardedStage]:
    """The stages of a stream, in order; none is open if one cannot be opened.

    Raises:
        PartError: one cannot be opened.
    """
    found: list[GuardedStage] = []
    try:
        for one in settings:
            found.append(GuardedStage(one, stream=stream, classes=classes, limit_s=limit_s))
    except PartError:
        close_all(found)
        raise
    return found


def close_all(stages: Sequence[GuardedStage]) -> None:
    """Close stages that are not needed after all; that one cannot be closed is only said."""
    for stage in stages:
        try:
            stage.close()
        except PartError as error:
            log.warning("%s", error)


def _checked(answer: object, stream: str) -> StageAnswer | None:
    """What a stage answers, as it came; what could not be written or sent is refused here."""
    if answer is None:
        return None
    if not isinstance(answer, StageAnswer):
        raise PartError(f"update: expected a StageAnswer or None, found {type(answer).__name__}")
    for event in answer.events:
        _refuse_unfit(event, stream)
    _refuse_wrong_labels(answer.labels)
    return answer


def _refuse_unfit(event: Event, stream: str) -> None:
    if not isinstance(event, Event) or event.stream != stream:
        found = f"one of {event.stream!r}" if isinstance(event, Event) else type(event).__name__
        raise PartError(f"update: expected events of the stream {stream!r}, found {found}")
    if not EVENT_KIND.fullmatch(event.kind):
        raise PartError(
            f"update: the event kind {event.kind!r}: expected small letters, digits and _, as in door_opened"
        )
    # raises what is no JSON
    event_json(event)


def _refuse_wrong_labels(labels: Mapping[Any, Any]) -> None:
    for track, more in labels.items():
        if not isinstance(track, int) or not all(isinstance(label, Label) for label in more):
            raise PartError(f"update: labels: expected track id → Labels, found {track!r} → {more!r:.60}")
