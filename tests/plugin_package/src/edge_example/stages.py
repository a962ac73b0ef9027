"""Stages: one that says which pictures are bright, one with moods, and some that cannot be opened."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from edge.interfaces import StageAnswer
from edge.types import Event, Label, Result


class BrightStage:
    """Adds ``picture_bright`` where the mean is above ``levels``, and a label for each track."""

    def __init__(self, options: Mapping[str, Any], *, stream: str, classes: Sequence[str]) -> None:
        self._levels = options["levels"]
        self._word = options.get("word", "bright")

    def update(self, result: Result) -> StageAnswer | None:
        mean = float(result.frame.image.mean())
        if mean <= self._levels:
            return None
        event = Event("picture_bright", result.frame.stream, result.frame.time_ns, data={"mean": round(mean, 1)})
        tracks = [] if result.tracks is None else result.tracks.track_id.tolist()
        return StageAnswer((event,), {track: (Label(self._word, 1.0),) for track in tracks})

    def close(self) -> None:
        pass


class MoodyStage:
    """Does what ``mood`` says: raise, hang, slow, or an answer that is none."""

    def __init__(self, options: Mapping[str, Any], *, stream: str, classes: Sequence[str]) -> None:
        self._mood, self._stream = options["mood"], stream
        self._count = 0
        if self._mood == "refuse":
            raise ValueError("mood: expected a better one")

    def update(self, result: Result) -> Any:
        self._count += 1
        match self._mood:
            case "raise":
                raise KeyError("mood")
            case "raise sometimes" if self._count % 3 == 0:
                raise KeyError("mood")
            case "hang":
                time.sleep(3600)
            case "slow once" if self._count == 2:
                time.sleep(0.3)
            case "another stream":
                return StageAnswer((Event("told", "window", result.frame.time_ns),))
            case "no JSON":
                return StageAnswer((Event("told", self._stream, result.frame.time_ns, data={"what": object()}),))
            case "wrong kind":
                return StageAnswer((Event("Told You", self._stream, result.frame.time_ns),))
            case "wrong labels":
                return StageAnswer(labels={1: ("bright",)})  # type: ignore[dict-item]
            case "no answer":
                return ["told"]
        return None

    def close(self) -> None:
        pass


def no_arguments() -> MoodyStage:
    return MoodyStage({"mood": "raise"}, stream="", classes=())


def make_nothing(options: Mapping[str, Any], *, stream: str, classes: Sequence[str]) -> object:
    return object()
