"""What a watch log says about a stretch of time: how much of it was analysed, what was not and why, what happened.

Times are wall clock nanoseconds; where the clock was set, the rows before and after keep the time that it showed then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from edge.watchlog.chain import Line
from edge.watchlog.seconds import NS_PER_S

# rounding of a wall clock that is not in step with the seconds of the monotonic one
HALF_S_NS = NS_PER_S // 2


@dataclass(slots=True)
class _Walk:
    """Where the reading of a log stands.

    Attributes:
        boot, offset_ns: the monotonic clock, and what makes it wall clock.
        end_s: the second after the last one that was told; None before the first file.
        elapsed_s: seconds that went by since the first line, by no wall clock where that can be known.
        seen_s: ``elapsed_s`` of the last analysed frame.
    """

    boot: str = ""
    offset_ns: int = 0
    end_s: int | None = None
    elapsed_s: float = 0.0
    seen_s: float | None = None
    largest_gap_s: float = 0.0
    stretch_ns: list[tuple[int, int]] = field(default_factory=list)
    states: Counter[str] = field(default_factory=Counter[str])
    drops: Counter[str] = field(default_factory=Counter[str])
    events: Counter[str] = field(default_factory=Counter[str])
    num_frames: int = 0
    skipped_ns: int = 0
    happened: list[dict[str, Any]] = field(default_factory=list)
    facts: list[dict[str, Any]] = field(default_factory=list)
    last_facts: Mapping[str, Any] = field(default_factory=dict)
    # elapsed_s of the window's first and last second with a row, and how far they are from its ends
    begin_s: float | None = None
    finish_s: float = 0.0


def statement_of(lines: Iterable[Line], stream: str, start_ns: int, end_ns: int) -> dict[str, Any]:
    """The statement about ``start_ns`` to ``end_ns``, JSON values.

    ``analysed_share`` is the share of the time with at least one analysed frame in each second and a picture that was
    well; ``largest_gap_s`` the longest time between two analysed frames; ``states`` the seconds of every other kind;
    ``unaccounted_s`` the time of which the log has no row: the program did not run.
    """
    walk = _Walk()
    for line in lines:
        _step(walk, line.value, start_ns, end_ns)
    return _told(walk, stream, start_ns, end_ns)


def _step(walk: _Walk, value: Mapping[str, Any], start_ns: int, end_ns: int) -> None:
    if "file" in value:
        _begin_file(walk, value, start_ns, end_ns)
    elif "clock" in value:
        _set_clock(walk, value["clock"], start_ns, end_ns)
    elif "facts" in value:
        walk.last_facts = value["facts"]
    elif "lost" in value:
        first, until, why = value["lost"]
        _happen(walk, (start_ns, end_ns), f"{until - first} s could not be written ({why})")
        walk.elapsed_s += until - first
        walk.end_s = until
    elif "s" in value:
        _take_second(walk, value, start_ns, end_ns)


def _begin_file(walk: _Walk, header: Mapping[str, Any], start_ns: int, end_ns: int) -> None:
    wall_ns = header["from_s"] * NS_PER_S + header["offset_ns"]
    window = (start_ns, end_ns)
    if walk.end_s is not None and header["after"] != "hour":
        before_ns = walk.end_s * NS_PER_S + walk.offset_ns
        is_same_boot = header["boot"] == walk.boot
        away_s = header["from_s"] - walk.end_s if is_same_boot else max(0.0, (wall_ns - before_ns) / NS_PER_S)
        walk.elapsed_s += away_s
        walk.boot, walk.offset_ns, walk.end_s = header["boot"], header["offset_ns"], header["from_s"]
        _happen(walk, window, _restart_words(header, is_same_boot, away_s), before_ns)
        step_s = round((wall_ns - before_ns) / NS_PER_S - away_s, 3)
        if abs(step_s) > 0.5:
            _happen(walk, window, f"the clock was set {_by(step_s)} while the program did not run", before_ns)
            walk.skipped_ns += _overlap((before_ns, before_ns + round(step_s * NS_PER_S)), window) if step_s > 0 else 0
    walk.boot, walk.offset_ns, walk.end_s = header["boot"], header["offset_ns"], header["from_s"]
    walk.last_facts = header["facts"]


def _restart_words(header: Mapping[str, Any], is_same_boot: bool, away_s: float) -> str:
    how = {
        "stopped": "the program was stopped and started again",
        "removed": "the stream was started again",
        "killed": "the program was killed" if is_same_boot else "the machine lost its power, or was restarted at once",
        "cut": "the program began again, and the end of the log before was gone",
    }.get(str(header["after"]), "the program began again")
    return f"{how}; {away_s:.0f} s were not watched"


def _set_clock(walk: _Walk, clock: Mapping[str, Any], start_ns: int, end_ns: int) -> None:
    by_s, asleep_s = float(clock["by_s"]), float(clock["asleep_s"])
    now_ns = (walk.end_s or 0) * NS_PER_S + walk.offset_ns
    walk.offset_ns = clock["offset_ns"]
    walk.elapsed_s += asleep_s
    if asleep_s:
        _happen(walk, (start_ns, end_ns), f"the machine slept for {asleep_s:.1f} s", now_ns)
    step_s = by_s - asleep_s
    if abs(step_s) >= 0.1:
        _happen(walk, (start_ns, end_ns), f"the clock was set {_by(step_s)}", now_ns)
    if step_s > 0:
        # a time that the clock never showed was not there to be watched
        until_ns = now_ns + round(step_s * NS_PER_S)
        walk.skipped_ns += _overlap((now_ns, until_ns), (start_ns, end_ns))


def _take_second(walk: _Walk, row: Mapping[str, Any], start_ns: int, end_ns: int) -> None:
    wall_ns = row["s"] * NS_PER_S + walk.offset_ns
    walk.end_s = row["s"] + 1
    elapsed_s = walk.elapsed_s
    walk.elapsed_s += 1
    if not start_ns - HALF_S_NS <= wall_ns < end_ns - HALF_S_NS:
        return
    if walk.begin_s is None:
        # what lies between the window's beginning and the first row was not watched either
        walk.begin_s = walk.seen_s = elapsed_s - max(0.0, (wall_ns - start_ns) / NS_PER_S)
    walk.finish_s = elapsed_s + 1 + max(0.0, (end_ns - wall_ns) / NS_PER_S - 1)
    _note_stretch(walk, wall_ns)
    _note_facts(walk)
    walk.states[row["is"]] += 1
    walk.drops.update(row.get("drops", {}))
    walk.events.update(row.get("events", {}))
    walk.num_frames += row.get("n", 0)
    if row["is"] == "analysed" and "at" in row:
        first_ms, last_ms, gap_ms = row["at"]
        assert walk.seen_s is not None
        gap_s = max(elapsed_s + first_ms / 1000 - walk.seen_s, gap_ms / 1000)
        walk.largest_gap_s = max(walk.largest_gap_s, gap_s)
        walk.seen_s = elapsed_s + last_ms / 1000


def _note_stretch(walk: _Walk, wall_ns: int) -> None:
    """Add a second to the stretches of wall clock time that have rows."""
    if walk.stretch_ns and walk.stretch_ns[-1][1] == wall_ns:
        walk.stretch_ns[-1] = (walk.stretch_ns[-1][0], wall_ns + NS_PER_S)
    else:
        walk.stretch_ns.append((wall_ns, wall_ns + NS_PER_S))


def _note_facts(walk: _Walk) -> None:
    facts = dict(walk.last_facts)
    if facts not in walk.facts:
        walk.facts.append(facts)


def _told(walk: _Walk, stream: str, start_ns: int, end_ns: int) -> dict[str, Any]:
    missing_ns = end_ns - start_ns - _union_ns(walk.stretch_ns, start_ns, end_ns) - walk.skipped_ns
    # the seconds at both ends are rounded
    unaccounted_s = max(0.0, missing_ns / NS_PER_S)
    unaccounted_s = 0.0 if unaccounted_s < 1 else round(unaccounted_s, 1)
    total_s = sum(walk.states.values()) + unaccounted_s
    analysed_s = walk.states.pop("analysed", 0)
    if walk.begin_s is None or walk.seen_s is None:
        gap_s = (end_ns - start_ns) / NS_PER_S
    else:
        gap_s = max(walk.largest_gap_s, walk.finish_s - walk.seen_s)
    return {
        "stream": stream,
        "from": iso(start_ns),
        "to": iso(end_ns),
        "seconds": total_s,
        "analysed_s": analysed_s,
        "analysed_share": analysed_s / total_s if total_s else 0.0,
        "largest_gap_s": round(gap_s, 3),
        "frames": walk.num_frames,
        "states": dict(sorted(walk.states.items())),
        "unaccounted_s": unaccounted_s,
        "drops": dict(sorted(walk.drops.items())),
        "events": dict(sorted(walk.events.items())),
        "happened": walk.happened,
        "facts": walk.facts,
    }


def sentence_of(statement: Mapping[str, Any]) -> str:
    """``door, FROM to TO: analysed 99.7 %, largest gap 1.2 s, 3 crossings; not analysed: 8 s dropped (…)``."""
    crossings = sum(count for name, count in statement["events"].items() if name.startswith("line_crossed"))
    share = f"{100 * statement['analysed_share']:.1f}"
    if share == "100.0" and statement["analysed_share"] < 1:
        share = "99.9"
    parts = [
        f"{statement['stream']}, {statement['from']} to {statement['to']}: analysed {share} %, "
        f"largest gap {statement['largest_gap_s']:.1f} s, "
        f"{crossings or 'no'} crossing{'' if crossings == 1 else 's'}"
    ]
    rest = [f"{count} s {word}" for word, count in statement["states"].items()]
    if statement["unaccounted_s"]:
        rest.append(f"{statement['unaccounted_s']:g} s without any record")
    if rest:
        parts.append(f"not analysed: {', '.join(rest)}")
    shares = {facts.get("masked_share", 0.0) for facts in statement["facts"]}
    if any(shares):
        parts.append(f"masked: {100 * max(shares):.0f} % of the picture")
    return "; ".join(parts)


def iso(time_ns: int) -> str:
    """``2026-11-22T10:00:00.000Z``."""
    return datetime.fromtimestamp(time_ns / NS_PER_S, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def _happen(walk: _Walk, window: tuple[int, int], words: str, at_ns: int | None = None) -> None:
    """Note what happened, where it concerns the window: it lies in it, or the time after it does."""
    at_ns = (walk.end_s or 0) * NS_PER_S + walk.offset_ns if at_ns is None else at_ns
    after_ns = (walk.end_s or 0) * NS_PER_S + walk.offset_ns
    first, last = min(at_ns, after_ns), max(at_ns, after_ns)
    if first < window[1] and last >= window[0]:
        walk.happened.append({"at": iso(at_ns), "what": words})


def _by(step_s: float) -> str:
    return f"{'forward' if step_s > 0 else 'back'} by {abs(step_s):.1f} s"


def _overlap(one: tuple[int, int], other: tuple[int, int]) -> int:
    return max(0, min(one[1], other[1]) - max(one[0], other[0]))


def _union_ns(stretches: Sequence[tuple[int, int]], start_ns: int, end_ns: int) -> int:
    """How much of a window the stretches cover together; a time that came twice counts once."""
    total, at = 0, start_ns
    for first, last in sorted(stretches):
        total += max(0, min(last, end_ns) - max(first, at))
        at = max(at, min(last, end_ns))
    return total
