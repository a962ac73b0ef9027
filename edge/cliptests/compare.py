"""What a run lacks of what a clip test expects."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from edge.boxes import best_pairs, iou
from edge.cliptests.case import Case, ExpectedEvent, SeenObject, counts_of

MATCH_IOU = 0.5
# two looks at the same moment, where other pictures are left out
SAME_TIME_S = 0.1


@dataclass(frozen=True, slots=True)
class Seen:
    """What a run saw in a clip; ``times_s`` are the moments of which ``objects`` tells."""

    frames: int
    events: tuple[ExpectedEvent, ...]
    objects: tuple[SeenObject, ...]
    times_s: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that is not as expected: one sentence, and the moments of the clip that show it."""

    text: str
    times_s: tuple[float, ...] = ()


def differences(case: Case, seen: Seen) -> list[Difference]:
    """All that is beyond the tolerances of a test."""
    return [*_of_frames(case, seen), *_of_events(case, seen), *_of_counts(case, seen), *_of_objects(case, seen)]


def _of_frames(case: Case, seen: Seen) -> Iterable[Difference]:
    if seen.frames < case.frames * (1 - case.tolerances.lost_frames):
        yield Difference(f"{seen.frames} pictures reached the model, expected {case.frames}")


def _of_events(case: Case, seen: Seen) -> Iterable[Difference]:
    lost, more = unmatched(case.events, seen.events, case.tolerances.time_s)
    if len(lost) > case.tolerances.lost_events:
        yield from (Difference(f"lost: {event.named()}", (event.time_s,)) for event in lost)
    if len(more) > case.tolerances.more_events:
        yield from (Difference(f"not expected: {event.named()}", (event.time_s,)) for event in more)


def unmatched(
    expected: Sequence[ExpectedEvent], seen: Sequence[ExpectedEvent], time_s: float
) -> tuple[list[ExpectedEvent], list[ExpectedEvent]]:
    """Expected events that did not come within so many seconds, and those that came besides; the nearest pair first."""
    pairs = sorted(
        (abs(one.time_s - other.time_s), row, column)
        for row, one in enumerate(expected)
        for column, other in enumerate(seen)
        if (one.kind, one.what) == (other.kind, other.what) and abs(one.time_s - other.time_s) <= time_s
    )
    rows, columns = set[int](), set[int]()
    for _, row, column in pairs:
        if row not in rows and column not in columns:
            rows.add(row)
            columns.add(column)
    lost = [event for row, event in enumerate(expected) if row not in rows]
    return lost, [event for column, event in enumerate(seen) if column not in columns]


def _of_counts(case: Case, seen: Seen) -> Iterable[Difference]:
    """Counts that somebody wrote into the test; those of its events are judged above."""
    found, own = counts_of(seen.events), counts_of(case.events)
    for name, count in case.counts.items():
        less, more = count - found.get(name, 0), found.get(name, 0) - count
        if own.get(name) != count and (less > case.tolerances.lost_events or more > case.tolerances.more_events):
            yield Difference(f"{name}: counted {found.get(name, 0)} times, expected {count}")


def _of_objects(case: Case, seen: Seen) -> Iterable[Difference]:
    if not case.objects:
        return
    expected, found = _by_time(case.objects), _by_time(seen.objects)
    matched, overlap, worst = 0, 0.0, list[tuple[float, float]]()
    for time_s, objects in expected.items():
        pairs = _pairs(objects, found.get(_nearest(time_s, seen.times_s), []))
        matched += len(pairs)
        overlap += sum(pairs)
        worst.append((sum(pairs) / len(objects), time_s))
    share, mean = matched / len(case.objects), overlap / matched if matched else 0.0
    times_s = tuple(time_s for _, time_s in sorted(worst)[:3])
    if share < 1 - case.tolerances.lost_objects:
        least = 1 - case.tolerances.lost_objects
        yield Difference(f"{share:.0%} of the objects are found again, expected at least {least:.0%}", times_s)
    elif mean < case.tolerances.min_overlap:
        least = case.tolerances.min_overlap
        yield Difference(f"boxes overlap by {mean:.2f} with those expected, expected at least {least:.2f}", times_s)


def _pairs(expected: Sequence[SeenObject], found: Sequence[SeenObject]) -> list[float]:
    """The overlaps of objects of the same class."""
    overlap = iou(_boxes(expected), _boxes(found))
    same = np.array([one[1] for one in expected])[:, None] == np.array([one[1] for one in found], dtype=object)[None, :]
    overlap = np.where(same, overlap, 0).astype(np.float32)
    return [float(overlap[pair]) for pair in best_pairs(overlap, MATCH_IOU)]


def _boxes(objects: Sequence[SeenObject]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.array([one[2:] for one in objects], np.float32).reshape(-1, 4)


def _by_time(objects: Iterable[SeenObject]) -> dict[float, list[SeenObject]]:
    found = defaultdict[float, list[SeenObject]](list)
    for one in objects:
        found[one[0]].append(one)
    return found


def _nearest(time_s: float, times_s: Sequence[float]) -> float:
    near = min(times_s, key=lambda other: abs(other - time_s), default=-1.0)
    return near if abs(near - time_s) <= SAME_TIME_S else -1.0
