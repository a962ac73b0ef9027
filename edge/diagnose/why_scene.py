"""What is asked of a moment, what there is to say, and what is kept around it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from edge.config.schema import StreamSettings
from edge.trackstore.times import iso

if TYPE_CHECKING:
    from edge.trackers.settings import TrackerSettings
    from edge.trackstore.block import Block
    from edge.trackstore.evaluate import Found
    from edge.trackstore.parts import Head

NS_PER_S = 1_000_000_000
# without a frame for so long there was none
GAP_S = 1.0
Stored = list[tuple["Head", "Block"]]


@dataclass(frozen=True, slots=True)
class Question:
    """What somebody asks.

    Attributes:
        stream: its name. at_ns: wall clock. within_s: so far from it the event may be.
        part: name of the line or zone; empty for any. kind: of the event; empty for any.
    """

    stream: str
    at_ns: int
    within_s: float = 3.0
    part: str = ""
    kind: str = ""

    def fits(self, one: Found) -> bool:
        """Whether an event is one that is asked for."""
        is_near = abs(one.wall_ns - self.at_ns) <= self.within_s * NS_PER_S
        return is_near and self.part in ("", one.part) and self.kind in ("", one.event.kind)


@dataclass(frozen=True, slots=True)
class Answer:
    """What there is to say.

    Attributes:
        cause: short, the same for the same cause: ``settle``, ``drop_no_motion``, ``said``, …
        sentence: for people.
        setting: the key of the file that would have let it through; empty where there is none.
        value: for it. changed: the stream's settings with it; None without.
        facts: what was seen. events: those that were said, or would have been.
    """

    cause: str
    sentence: str
    setting: str = ""
    value: Any = None
    changed: StreamSettings | None = None
    tracker: TrackerSettings | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    events: tuple[Found, ...] = ()


class Scene:
    """What is kept around the moment."""

    def __init__(self, asked: Question, stored: Stored, span: tuple[int, int]) -> None:
        self.asked, self.stored, self.span = asked, stored, span
        self.with_frames = [(head, block) for head, block in stored if len(block.time_ns)]
        self.head = self.with_frames[-1][0] if self.with_frames else stored[-1][0] if stored else None
        self.settings = None if self.head is None else StreamSettings.model_validate(self.head.config)
        walls = [wall(block) for _, block in self.with_frames]
        times = np.concatenate(walls) if walls else np.zeros(0, np.int64)
        self.frame_ns = times[(times >= span[0]) & (times <= span[1])]
        self.counts: Counter[str] = Counter()
        self.stands: list[Mapping[str, Any]] = []
        # the loudest level of each second, and what became of it
        self.heard: list[Mapping[str, Any]] = []
        self._note_moments()

    @property
    def name(self) -> str:
        return f"{self.asked.stream}, {iso(self.asked.at_ns)}"

    @property
    def has_frame(self) -> bool:
        """Whether a frame was analysed within a second of the moment."""
        near = np.abs(self.frame_ns - self.asked.at_ns)
        return bool(len(near) and near.min() <= GAP_S * NS_PER_S)

    @property
    def num_lost(self) -> int:
        """Frames that could not be kept, as the blocks of the window and the next one tell."""
        late = [block for _, block in self.stored if any(end >= self.span[0] for end in _ends(block))]
        return sum(int(block.notes["lost"]) for block in late)

    def _note_moments(self) -> None:
        """What was dropped in the window, and how things stood in it and when it began."""
        last: dict[str, Any] = {}
        is_inside = False
        for _, block in self.stored:
            offset_ns = int(block.notes["wall_offset_ns"])
            for moment in block.notes["moments"]:
                at_ns = int(moment["ns"]) + offset_ns
                stand = {**last, **{key: value for key, value in moment.items() if key not in ("ns", "counts", "loud")}}
                # a moment tells of the second before it
                if self.span[0] <= at_ns <= self.span[1] + NS_PER_S:
                    if not is_inside and last:
                        self.stands.append(last)
                    is_inside = True
                    self.counts.update(moment.get("counts", {}))
                    self.heard += [moment["loud"]] if "loud" in moment else []
                    self.stands.append(stand)
                last = stand
        if not is_inside and last:
            self.stands.append(last)

    def fault(self, name: str) -> str:
        """Why a part could not work in the window; empty where it could."""
        return next((text for stand in self.stands if (text := stand.get("faults", {}).get(name))), "")

    def seen(self) -> Iterator[tuple[Head, Block]]:
        yield from self.with_frames


def wall(block: Block) -> Any:
    """(N,) nanoseconds of the wall clock at which each frame was captured."""
    return block.captured_ns + int(block.notes["wall_offset_ns"])


def _ends(block: Block) -> list[int]:
    """The wall clock at its last frame and moment."""
    offset_ns = int(block.notes["wall_offset_ns"])
    return [
        int(at) + offset_ns for at in (*block.captured_ns[-1:], *(one["ns"] for one in block.notes["moments"][-1:]))
    ]
