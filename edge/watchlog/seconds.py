"""From what the pipeline counts to one row per second, without a gap: every second since the start has its row.

A second is one of ``time.monotonic()``. A frame belongs to the second in which it was captured, whenever it was
analysed; drops and states to the second in which they were seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from edge.types import Event

NS_PER_S: Final = 1_000_000_000
NS_PER_MS: Final = 1_000_000
# drops that were asked for: the gate saw nothing move, the rate is limited, analysis is switched off
WANTED_DROPS: Final = ("drop_max_fps", "drop_no_motion", "drop_switched_off")
# frames and events of this many seconds wait at most, whatever a clock or a camera does
MAX_OPEN = 4096


class Analysed(NamedTuple):
    """A frame that the model and all that follows it have seen, for the watch log.

    Attributes:
        captured_ns: when it was captured, ``time.monotonic_ns()``.
        model: SHA-256 of the model file.
        events: what happened in it.
    """

    captured_ns: int
    model: str
    events: tuple[Event, ...]


@dataclass(slots=True)
class _Second:
    first_ms: int = -1
    last_ms: int = -1
    gap_ms: int = 0
    count: int = 0
    events: Counter[str] = field(default_factory=Counter[str])
    drops: Counter[str] = field(default_factory=Counter[str])
    state: str = ""
    health: tuple[str, ...] = ()


class Seconds:
    """The seconds of one stream that are not closed yet. Used by one thread."""

    def __init__(self, first: int) -> None:
        """Args: the first second that gets a row."""
        self.next = first
        self._open: dict[int, _Second] = {}

    def note_frame(self, frame: Analysed) -> None:
        """Take an analysed frame; one that comes after its second was closed counts in the oldest open one."""
        second, rest_ns = divmod(frame.captured_ns, NS_PER_S)
        is_late = second < self.next
        row = self._row(self.next if is_late else second)
        row.count += 1
        row.events.update(_named(frame.events))
        if is_late:
            return
        at_ms = rest_ns // NS_PER_MS
        if row.last_ms >= 0:
            row.gap_ms = max(row.gap_ms, at_ms - row.last_ms)
        row.first_ms = at_ms if row.first_ms < 0 else row.first_ms
        row.last_ms = max(row.last_ms, at_ms)

    def note_state(self, second: int, state: str, health: Iterable[str], drops: Mapping[str, int]) -> None:
        """Say how the stream stood in a second, and what was dropped then."""
        row = self._row(max(second, self.next))
        row.state, row.health = state, tuple(health)
        row.drops.update({cause: count for cause, count in drops.items() if count})

    def close(self, until: int) -> Iterator[dict[str, Any]]:
        """The rows of all seconds before this one, in order."""
        while self.next < until:
            row = self._open.pop(self.next, None) or _Second()
            yield _told(self.next, row)
            self.next += 1

    def _row(self, second: int) -> _Second:
        second = min(second, self.next + MAX_OPEN)
        return self._open.setdefault(second, _Second())


def _named(events: Iterable[Event]) -> Iterator[str]:
    """``line_crossed:gate:in``, ``zone_entered:yard``, ``zone_entered`` where it has no name."""
    for event in events:
        parts = (event.data.get("line") or event.data.get("zone"), event.data.get("direction"))
        yield ":".join((event.kind, *(str(part) for part in parts if part)))


def _told(second: int, row: _Second) -> dict[str, Any]:
    told: dict[str, Any] = {"s": second, "is": _word(row)}
    if row.count:
        told["n"] = row.count
    if row.first_ms >= 0:
        told["at"] = [row.first_ms, row.last_ms, row.gap_ms]
    if row.drops:
        told["drops"] = dict(row.drops)
    if row.events:
        told["events"] = dict(row.events)
    return told


def _word(row: _Second) -> str:
    """One word for a second, the worst first: what is wrong with the picture outweighs that it was analysed."""
    if row.health:
        return row.health[0]
    if row.count:
        return "analysed"
    match row.state:
        case "":
            # nobody looked: the program itself stood still
            return "halted"
        case "connecting" | "backing_off" | "failed":
            return "offline"
        case "ended":
            return "ended"
    if not row.drops:
        return "silent"
    return "skipped" if all(cause in WANTED_DROPS for cause in row.drops) else "dropped"
