"""One round of questions: drawn, kept in a folder while they are answered, and what the answers come to.

``cards.json``, ``NNN.jpg`` and ``answers.jsonl`` are the round; ``results.jsonl`` has one line per finished round.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import cv2

from edge.accuracy.cards import Answer, Card
from edge.accuracy.estimate import NOTHING, Outcome, domain, shares_of
from edge.errors import DataError
from edge.files import parse_json, read_regular, write_atomic
from edge.types import UInt8

# of all streams, in the state folder
FOLDER = "accuracy"
CARDS, ANSWERS, RESULTS = "cards.json", "answers.jsonl", "results.jsonl"
JPEG_QUALITY = 88


@dataclass(frozen=True, slots=True)
class Round:
    """What was drawn.

    Attributes:
        stream: whose.
        cards: pictures first, then the strips of each line.
        sizes: what is judged (``objects``, or a line's name) → units of each stratum in the population.
        facts: model, teacher, hours of footage.
    """

    stream: str
    cards: tuple[Card, ...]
    sizes: Mapping[str, Sequence[int]]
    facts: Mapping[str, Any]


class Session:
    """A round in its folder. Used by one thread at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def begin(self, drawn: Round, pictures: Sequence[UInt8]) -> None:
        """Keep a new round, in place of one that was not finished. Raises: OSError: the folder cannot be written."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for old in (*self.folder.glob("*.jpg"), self.folder / ANSWERS, self.folder / CARDS):
            old.unlink(missing_ok=True)
        for card, picture in zip(drawn.cards, pictures, strict=True):
            image = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
            write_atomic(self.folder / f"{card.number:03d}.jpg", image.tobytes(), mode=0o600)
        write_atomic(self.folder / CARDS, json.dumps(asdict(drawn)), mode=0o600)

    def round(self) -> Round:
        """The round. Raises: DataError: there is none, or it is damaged."""
        try:
            facts = parse_json(read_regular(self.folder / CARDS))
            cards = tuple(Card.from_json(one) for one in facts["cards"])
            return Round(facts["stream"], cards, facts["sizes"], facts["facts"])
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise DataError(f"{self.folder / CARDS}: no round of questions ({error})") from None

    def answers(self) -> dict[int, Answer]:
        """Card → its last answer."""
        try:
            lines = read_regular(self.folder / ANSWERS).splitlines()
        except FileNotFoundError:
            return {}
        # a line that a kill cut off is asked again
        found = []
        for line in lines:
            try:
                found.append(Answer.from_json(parse_json(line)))
            except ValueError:
                continue
        return {answer.number: answer for answer in found}

    def answer(self, answer: Answer) -> None:
        """Keep an answer; a later one for the same card replaces it."""
        with (self.folder / ANSWERS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(answer)) + "\n")

    def unanswered(self) -> list[int]:
        """The cards without an answer."""
        given = self.answers()
        return [card.number for card in self.round().cards if card.number not in given]

    def finish(self) -> dict[str, Any]:
        """The result, kept next to those before. Raises: DataError: cards are unanswered."""
        missing = self.unanswered()
        if missing:
            raise DataError(f"{len(missing)} pictures are not confirmed yet; run the command again to go on")
        result = result_of(self.round(), self.answers(), last_result(self.folder))
        with (self.folder / RESULTS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(result) + "\n")
        (self.folder / CARDS).unlink()
        return result


def last_result(folder: Path) -> dict[str, Any] | None:
    """The newest result of a stream, None before the first."""
    try:
        lines = read_regular(folder / RESULTS).splitlines()
        return dict(parse_json(lines[-1])) if lines else None
    except (OSError, ValueError, TypeError):
        return None


def result_of(drawn: Round, answers: Mapping[int, Answer], before: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a round comes to, JSON values: shares of objects and of each line, by hour, and the change since before."""
    result: dict[str, Any] = {"stream": drawn.stream, "at": round(time.time()), **drawn.facts, "lines": {}}
    for name, sizes in drawn.sizes.items():
        cards = [card for card in drawn.cards if (card.line or "objects") == name]
        outcomes = [card.outcome(answers[card.number]) for card in cards]
        told = _told(cards, outcomes, sizes)
        if name == "objects":
            result["objects"] = {**told, "by_hour": _by_hour(cards, outcomes, sizes)}
        else:
            result["lines"][name] = told
    result["drift"] = _drift(result, before)
    return result


def _told(cards: Sequence[Card], outcomes: Sequence[Outcome], sizes: Sequence[int]) -> dict[str, Any]:
    recall, precision = shares_of(outcomes, [card.stratum for card in cards], sizes)
    return {"recall": recall.as_dict(), "precision": precision.as_dict(), "looked_at": len(cards)}


def _by_hour(cards: Sequence[Card], outcomes: Sequence[Outcome], sizes: Sequence[int]) -> dict[str, Any]:
    """Recall of each hour of the day (local time) of which pictures were looked at; few pictures, wide intervals."""
    strata = [card.stratum for card in cards]
    hours = [datetime.fromtimestamp(card.time_ns / 1e9).astimezone().hour for card in cards]
    found = {hour: domain(outcomes, strata, sizes, [one == hour for one in hours]) for hour in sorted(set(hours))}
    return {f"{hour:02d}": share.as_dict() for hour, share in found.items() if share != NOTHING}


def _drift(result: Mapping[str, Any], before: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """How recall and precision changed, and whether that is more than chance."""
    if before is None or "objects" not in before or "objects" not in result:
        return None
    found: dict[str, Any] = {"since": before["at"]}
    for name in ("recall", "precision"):
        now, then = result["objects"][name], before["objects"][name]
        if now["value"] is not None and then["value"] is not None:
            error = (_half(now) ** 2 + _half(then) ** 2) ** 0.5
            change = now["value"] - then["value"]
            found[name] = {"change": round(change, 4), "is_real": abs(change) > error}
    return found


def _half(share: Mapping[str, float]) -> float:
    return (share["high"] - share["low"]) / 2


def sentences_of(result: Mapping[str, Any]) -> list[str]:
    """``door: recall 0.93 (0.88 to 0.96), …``, a line for objects, for each line, for the worst hour, for drift."""
    lines = [f"{result['stream']}: objects: {_words(result['objects'])}"]
    lines += [f"  line {name}: {_words(told)}" for name, told in result["lines"].items()]
    hours = {hour: share for hour, share in result["objects"]["by_hour"].items() if share["value"] is not None}
    if len(hours) > 1:
        worst = min(hours, key=lambda hour: hours[hour]["high"])
        lines.append(f"  least in the hour from {worst}:00: recall {_share(hours[worst])}")
    drift = result.get("drift")
    if drift is not None:
        day = datetime.fromtimestamp(drift["since"]).astimezone().strftime("%Y-%m-%d %H:%M")
        words = [
            f"{name} {drift[name]['change']:+.2f} ({'a change' if drift[name]['is_real'] else 'within chance'})"
            for name in ("recall", "precision")
            if name in drift
        ]
        lines.append(f"  since {day}: {', '.join(words)}")
    return lines


def _words(told: Mapping[str, Any]) -> str:
    return (
        f"recall {_share(told['recall'])}, precision {_share(told['precision'])}, "
        f"by {told['looked_at']} that were looked at"
    )


def _share(share: Mapping[str, Any]) -> str:
    if share["value"] is None:
        return "unknown (nothing was there)"
    return f"{share['value']:.2f} ({share['low']:.2f} to {share['high']:.2f})"
