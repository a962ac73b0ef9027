"""``edge why`` names the cause: one fault per stage, on a made film and on a real one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from integration.diagnose.films import STREAMING, Fault, Walk, film, synthetic

from edge.diagnose.why import others, why
from edge.diagnose.why_scene import Answer, Question
from edge.trackstore.read import Reader
from edge.types import Detections

NOBODY = Detections.empty()


def gone(walk: Walk, number: int, found: Detections) -> Detections | None:
    """No frame came from shortly before the crossing on."""
    return found if number < walk.at - 12 else None


def unseen(walk: Walk, number: int, found: Detections) -> Detections:
    """Frames come, and the model sees nobody from long before the crossing on."""
    return found if number < 3 else NOBODY


def stays_left(walk: Walk, number: int, found: Detections) -> Detections:
    return walk.found[min(number, walk.at - 8)]


def few(walk: Walk, number: int, found: Detections) -> Detections | None:
    """One frame in 25 came through, so that nothing can be followed."""
    return found if number % 25 == walk.at % 25 else None


def scored(score: float) -> Callable[[Walk, int, Detections], Detections]:
    def change(walk: Walk, number: int, found: Detections) -> Detections:
        return replace(found, score=np.full(len(found), score, np.float32))

    return change


def small(walk: Walk, number: int, found: Detections) -> Detections:
    """The person is far away: a few pixels, half as fast, higher up in the picture, and the model is not sure."""
    feet = np.stack([(found.xyxy[:, 0] + found.xyxy[:, 2]) / 2, found.xyxy[:, 3]], 1)
    line = np.array([walk.x, walk.floor])
    feet = line - np.array([0, 20]) + (feet - line) * np.array([0.5, 36 / walk.height])
    box = np.concatenate([feet - np.array([12, 36]), feet + np.array([12, 0])], 1).astype(np.float32)
    return replace(found, xyxy=box, score=np.full(len(found), 0.45, np.float32))


def every_other(walk: Walk, number: int, found: Detections) -> Detections:
    return found if number % 2 else NOBODY


def near_only(walk: Walk, number: int, found: Detections) -> Detections:
    """Seen only close to the line."""
    x = float(found.xyxy[0, [0, 2]].mean()) if len(found) else 0.0
    return found if abs(x - walk.x) < 0.3 * walk.height else NOBODY


def off(**more: object) -> list[dict[str, object]]:
    """A schedule that is off at the time of the films."""
    return [{"days": ["mon"], "start_at": "03:00", "end_at": "03:01", "time_zone": "UTC", **more}]


def camera(reason: str) -> Fault:
    return Fault(change=gone, stand=replace(STREAMING, state="backing_off", reason=reason))


def ill(name: str) -> Fault:
    return Fault(change=unseen, stand=replace(STREAMING, health=(name,)))


def dropped(cause: str) -> Fault:
    return Fault(change=gone, counts={cause: 10})


def broken(part: str, reason: str) -> Fault:
    return Fault(stand=replace(STREAMING, faults={part: reason}))


FULL = "No space left on device"
ABOVE = {"points_px": [[400, 2], [401, 40]]}
FAULTS: dict[str, tuple[str, Fault]] = {
    "a camera that refuses": ("camera_refused", camera("Connection refused")),
    "a wrong password": ("camera_login", camera("401 Unauthorized")),
    "a dead camera": ("camera_timeout", camera("timed out after 10 s")),
    "a wrong path": ("camera_not_found", camera("404 not found")),
    "a cable that is cut": ("camera_offline", camera("the stream ended")),
    "a source that failed": ("source_failed", Fault(change=gone, stand=replace(STREAMING, state="failed"))),
    "a camera that connects": ("source_connecting", Fault(change=gone, stand=replace(STREAMING, state="connecting"))),
    "a film that is over": ("source_ended", Fault(change=gone, stand=replace(STREAMING, state="ended"))),
    "a camera that is silent": ("camera_silent", Fault(change=gone, counts={"captured": -10})),
    "a limit of the rate": ("drop_max_fps", dropped("drop_max_fps")),
    "the motion gate": ("drop_no_motion", dropped("drop_no_motion")),
    "a full ring": ("drop_ring_full", dropped("drop_ring_full")),
    "a slow model": ("drop_replaced", dropped("drop_replaced")),
    "frames that are too old": ("drop_too_old", dropped("drop_too_old")),
    "a device that is too hot": ("drop_governor", dropped("drop_governor")),
    "a stream that is stopped": ("drop_stopped", dropped("drop_stopped")),
    "an engine that hangs": ("inference_stuck", Fault(change=gone)),
    "few frames of many": ("drop_replaced", Fault(change=few, counts={"drop_replaced": 10})),
    "a time that was removed": ("store_retention", Fault(shift_s=-90_000)),
    "a program that did not run": ("not_running", Fault(shift_s=90_000)),
    "a disk too slow for the store": ("store_lost", Fault(change=gone, lost=9)),
    "a camera that was turned away": ("camera_away", Fault(away=range(10**6))),
    "a frozen picture": ("picture_frozen", ill("frozen")),
    "a dark picture": ("picture_dark", ill("dark")),
    "glare": ("picture_overexposed", ill("overexposed")),
    "a covered lens": ("picture_covered", ill("covered")),
    "a lens out of focus": ("picture_defocused", ill("defocused")),
    "a privacy mask": (
        "masked",
        Fault(settings={"masks": [[[0.3, 0.0], [0.9, 0.0], [0.9, 1.0], [0.3, 1.0]]]}, change=unseen),
    ),
    "rules that fit no frame": ("analytics_fault", Fault(line={"points_px": [[10, 2], [10, 9000]]})),
    "no tracker": ("tracker_off", Fault(settings={"track": {"method": "off"}}, change=unseen)),
    "no rule": ("no_rule", Fault(settings={"analytics": {}})),
    "another rule's name": ("no_such_rule", Fault(part="yard", change=unseen)),
    "a schedule": ("schedule", Fault(line={"schedules": off()})),
    "a class filter": ("class", Fault(line={"classes": ["car"]})),
    "a long settle time": ("settle", Fault(line={"settle_s": 60})),
    "a wide band": ("band", Fault(line={"band_box_share": 1.0}, change=near_only)),
    "a line that is too short": ("ends", Fault(line={"points_px": "short"})),
    "an anchor": ("anchor", Fault(line={"points_px": "low", "anchor": "top-centre"})),
    "a low score": ("score", Fault(change=scored(0.45))),
    "a too small box": ("too_small", Fault(change=small)),
    "sightings too far apart": ("unconfirmed", Fault(change=every_other)),
    "nobody who came": ("not_reached", Fault(change=stays_left)),
    "an empty room": ("nothing_there", Fault(change=lambda walk, number, found: NOBODY)),
    "a zone's schedule": ("schedule", Fault(zone={"schedules": off()})),
    "a zone's class": ("class", Fault(zone={"classes": ["car"]})),
    "a zone's settle time": ("settle", Fault(zone={"settle_s": 60})),
    "a zone elsewhere": ("outside", Fault(zone={"points_px": "above"})),
    "a short stay": ("loiter", Fault(zone={"loiter_s": 30}, kind="zone_loitering", shift_s=4)),
    "a short stop": (
        "stopped",
        Fault(zone={"stopped_s": 30, "stopped_heights_per_s": 5}, kind="object_stopped", shift_s=4),
    ),
    "a walk that is no stop": (
        "moving",
        Fault(zone={"stopped_s": 1.0, "stopped_heights_per_s": "slow"}, kind="object_stopped", shift_s=2),
    ),
    "too few for a crowd": ("crowd", Fault(zone={"crowd_count": 2, "crowd_s": 0.5}, kind="zone_crowded", shift_s=1)),
    "a short crowd": ("crowd_time", Fault(zone={"crowd_count": 1, "crowd_s": 20}, kind="zone_crowded", shift_s=4)),
    "what is not watched": ("not_watched", Fault(zone={}, kind="zone_loitering", shift_s=2)),
    "a full disk of the recording": ("said_but_lost", broken("recording", FULL)),
    "a full disk of the events": ("said_but_lost", broken("events", FULL)),
    "a target that is away": ("said_but_lost", broken("target mqtt", "Connection refused")),
    "nothing at all": ("said", Fault()),
}


@pytest.fixture(scope="module")
def made() -> Walk:
    return synthetic()


def placed(walk: Walk, fault: Fault) -> Fault:
    """The fault with its line where this walk needs it."""
    places: dict[str, Any] = {
        "slow": walk.slow,
        # ends before the feet, as far as its own length
        "short": [[walk.x, 10], [walk.x, walk.floor - 0.2 * walk.height]],
        # at the feet alone: the head passes far above it
        "low": [[walk.x, walk.floor - 0.1 * walk.height], [walk.x, min(walk.size[1], walk.floor + 0.05 * walk.height)]],
        "above": [
            [walk.x, 10],
            [walk.size[0] - 10, 10],
            [walk.size[0] - 10, walk.floor - 0.4 * walk.height],
            [walk.x, walk.floor - 0.4 * walk.height],
        ],
    }
    line = {key: places.get(str(value), value) for key, value in fault.line.items()}
    zone = None if fault.zone is None else {key: places.get(str(value), value) for key, value in fault.zone.items()}
    return replace(fault, line=line, zone=zone)


def answer_of(folder: Path, walk: Walk, fault: Fault) -> tuple[Reader, Question, Answer]:
    reader = film(folder, walk, placed(walk, fault))
    asked = Question("door", walk.at_ns + round(fault.shift_s * 1e9), 3.0, fault.part, fault.kind)
    return reader, asked, why(reader, asked)


@pytest.mark.parametrize("name", FAULTS)
def test_the_cause_is_named_on_a_made_film(name: str, made: Walk, tmp_path: Path) -> None:
    cause, fault = FAULTS[name]
    _, _, answer = answer_of(tmp_path, made, fault)
    assert answer.cause == cause, answer.sentence


def test_what_else_a_setting_would_have_let_through_is_counted_over_the_day(made: Walk, tmp_path: Path) -> None:
    twice = replace(made, found=[*made.found, *[NOBODY] * 40, *made.found])
    reader, asked, answer = answer_of(tmp_path, twice, Fault(line={"classes": ["car"]}))
    assert answer.cause == "class" and answer.setting == "streams.door.analytics.lines.gate.classes"
    assert answer.changed is not None and answer.changed.analytics.lines[0].classes == answer.value == ()
    assert len(others(reader, answer, asked)) == 1, "the same person came once more on that day"
