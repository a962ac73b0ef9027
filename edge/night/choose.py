"""Which frames are worth a label: those that the model is unsure about, and a fair sample of all.

Every frame has a number that nobody can foresee the order of, made of its camera and time. Of an hour and kind, the
frames with the smallest numbers are kept: a fair draw without replacement that needs no counting, so it goes on where
a restart interrupted it.
"""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from edge.types import Float32, Int32, Result, Tracks

Reason = Literal["random", "low-score", "flicker", "broken", "rare", "disagreement"]
# objects between this and their model's own least score are seen, but not surely
SURE = 0.5
FLICKER_GAPS, FLICKER_S = 2, 3.0
# a track that ends within the picture before this age was hardly one object
BROKEN_S, BROKEN_LEAST_S = 2.0, 0.4
EDGE_SHARE = 0.03
RARE_SHARE, RARE_LEAST = 0.03, 300
# what is worth a label now is worth little again a moment later
SPACING_S = 1.0
NS_PER_S = 1_000_000_000
NS_PER_HOUR = 3600 * NS_PER_S


def ticket(camera: str, wall_ns: int) -> int:
    """The number of a frame, spread evenly over 64 bits; the same frame always has the same."""
    return int.from_bytes(hashlib.blake2b(f"{camera} {wall_ns}".encode(), digest_size=8).digest(), "big")


@dataclass(slots=True)
class _Life:
    """What is remembered of a track. Attributes: ``gaps``: moments at which it was lost from sight."""

    begun_ns: int
    box: Float32
    is_seen: bool = True
    gaps: deque[int] = field(default_factory=lambda: deque(maxlen=FLICKER_GAPS))


class Chooser:
    """Looks at the results of one camera. Used by its output thread; takes some microseconds for a frame."""

    def __init__(self) -> None:
        self._lives: dict[int, _Life] = {}
        self._counts: Counter[int] = Counter()
        self._next_ns = 0

    def reasons(self, result: Result) -> list[Reason]:
        """Why this frame is worth a label; empty where it is not. A fair sample is drawn elsewhere."""
        now_ns, tracks = result.frame.time_ns, result.tracks
        found: list[Reason] = []
        scores = result.detections.score
        # below the least score the tracker looks too, and those are no doubts but guesses
        if scores.size and bool(((scores >= SURE / 2) & (scores < SURE)).any()):
            found.append("low-score")
        if tracks is not None:
            found += self._of_tracks(tracks, now_ns, (result.frame.width, result.frame.height))
        if self._is_rare(result.detections.class_id[scores >= SURE / 2]):
            found.append("rare")
        if not found or now_ns < self._next_ns:
            return []
        self._next_ns = now_ns + round(SPACING_S * NS_PER_S)
        return found

    def _of_tracks(self, tracks: Tracks, now_ns: int, size: tuple[int, int]) -> list[Reason]:
        found: list[Reason] = []
        lives: dict[int, _Life] = {}
        seen = (tracks.detection >= 0).tolist()
        for number, (track_id, is_seen) in enumerate(zip(tracks.track_id.tolist(), seen, strict=True)):
            life = self._lives.pop(track_id, None) or _Life(now_ns, tracks.xyxy[number])
            if life.is_seen and not is_seen:
                life.gaps.append(now_ns)
            life.is_seen, life.box = is_seen, tracks.xyxy[number]
            lives[track_id] = life
            if len(life.gaps) == FLICKER_GAPS and now_ns - life.gaps[0] < FLICKER_S * NS_PER_S:
                life.gaps.clear()
                found.append("flicker")
        ended, self._lives = self._lives, lives
        if any(_is_broken(life, now_ns, size) for life in ended.values()):
            found.append("broken")
        return list(dict.fromkeys(found))

    def _is_rare(self, class_ids: Int32) -> bool:
        """Whether a class is there that hardly ever is."""
        total = sum(self._counts.values())
        kinds = set(class_ids.tolist())
        is_rare = total >= RARE_LEAST and any(self._counts[kind] < RARE_SHARE * total for kind in kinds)
        self._counts.update(class_ids.tolist())
        if total > 100 * RARE_LEAST:
            self._counts = Counter({kind: count // 2 for kind, count in self._counts.items()})
        return is_rare


def _is_broken(life: _Life, now_ns: int, size: tuple[int, int]) -> bool:
    """Whether a track ended early and away from the picture's edge, where nothing goes."""
    age_s = (now_ns - life.begun_ns) / NS_PER_S
    margin = EDGE_SHARE * max(size)
    left, top, right, bottom = life.box.tolist()
    is_inside = left > margin and top > margin and right < size[0] - margin and bottom < size[1] - margin
    return BROKEN_LEAST_S <= age_s < BROKEN_S and is_inside
