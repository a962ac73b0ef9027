"""What a person is asked: pictures with boxes to confirm, and strips of a line with crossings to count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edge.accuracy.estimate import Outcome

if TYPE_CHECKING:
    from edge.types import Detections

# a box below the stream's score is a doubt from this share of it on
DOUBT_SHARE = 0.5
MAX_MISSED = 99


@dataclass(frozen=True, slots=True)
class Box:
    """One box of a card. ``seen``: the detector says so; else the teacher, or the detector with a low score."""

    name: str
    xyxy: tuple[float, ...]
    score: float
    seen: bool


@dataclass(frozen=True, slots=True)
class Card:
    """One question. ``boxes`` of a picture, ``line`` and ``counted`` of a strip.

    Attributes:
        number: its place; ``NNN.jpg`` is its picture.
        time_ns: wall clock.
        stratum: it was drawn from.
    """

    number: int
    time_ns: int
    stratum: int
    boxes: tuple[Box, ...] = ()
    line: str = ""
    counted: int = 0

    @classmethod
    def from_json(cls, facts: dict[str, Any]) -> Card:
        """Raises: KeyError, TypeError: it is none."""
        boxes = tuple(Box(one["name"], tuple(one["xyxy"]), one["score"], one["seen"]) for one in facts["boxes"])
        return cls(**{**facts, "boxes": boxes})

    def outcome(self, answer: Answer) -> Outcome:
        """What the answer of a person makes of it."""
        if self.line:
            right = min(self.counted, answer.crossed)
            return Outcome(right, self.counted - right, answer.crossed - right)
        wrong = set(answer.wrong)
        true = sum(box.seen and number not in wrong for number, box in enumerate(self.boxes))
        false = sum(box.seen and number in wrong for number, box in enumerate(self.boxes))
        found = sum(not box.seen and number not in wrong for number, box in enumerate(self.boxes))
        return Outcome(true, false, found + answer.missed)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a person says of a card.

    Attributes:
        wrong: numbers of the boxes with nothing of that class in them.
        missed: objects without any box.
        crossed: who crossed the line in a strip.
    """

    number: int
    wrong: tuple[int, ...] = ()
    missed: int = 0
    crossed: int = 0

    @classmethod
    def from_json(cls, facts: Any) -> Answer:
        """Raises: ValueError: it is none."""
        match facts:
            case {"number": int(number), "wrong": list(wrong), "missed": int(missed), "crossed": int(crossed)} if (
                len(facts) == 4
                and len(wrong) <= 1000
                and all(isinstance(one, int) and one >= 0 for one in wrong)
                and all(0 <= one <= MAX_MISSED for one in (missed, crossed))
            ):
                return cls(number, tuple(wrong), missed, crossed)
        raise ValueError("expected number, wrong, missed and crossed")


def boxes_of(own: Detections, teacher: Detections | None, score: float, classes: Sequence[str]) -> tuple[Box, ...]:
    """The boxes of a picture: what the detector says, and what else may be there.

    Args:
        own: all that the detector has candidates for.
        teacher: what a better model sees, with the detector's class numbers; None where there is none.
        score: from which on the detector says that it sees something.
        classes: names by class number.
    """
    from edge.pipeline.swap.agreement import matched

    said = own[own.score >= score]
    if teacher is None:
        rest = own[(own.score < score) & (own.score >= score * DOUBT_SHARE)]
    else:
        known = {column for _, column in matched(said, teacher)}
        rest = teacher[np.array([number not in known for number in range(len(teacher))], bool)]
    return (*_boxes(said, True, classes), *_boxes(rest, False, classes))


def doubts_of(boxes: Sequence[Box], teacher_disagrees: int, score: float) -> int:
    """On how many objects of a picture the detector is unsure, or the teacher of another opinion."""
    unsure = sum(box.seen and box.score < score * 1.2 for box in boxes)
    return sum(not box.seen for box in boxes) + max(unsure, teacher_disagrees)


def _boxes(found: Detections, seen: bool, classes: Sequence[str]) -> list[Box]:
    return [
        Box(
            classes[number] if number < len(classes) else f"class {number}",
            tuple(round(value, 1) for value in box),
            round(score, 3),
            seen,
        )
        for box, score, number in zip(found.xyxy.tolist(), found.score.tolist(), found.class_id.tolist(), strict=True)
    ]
