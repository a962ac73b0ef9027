"""Whether a camera sees: a frozen picture, darkness, glare, a covered or defocused lens, each told once and taken back.

Everything is judged on a grid of sampled pixels, ten times a second at most, so it costs next to nothing.
Shape letters: H W frame pixels, R S rows and columns of samples, Y X rows and columns of tiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge.pictures.planes import Planes
from edge.types import Bool, HealthChange, Int64, UInt8

SAMPLE_ROWS, SAMPLE_COLUMNS = 90, 160
TILE_ROWS, TILE_COLUMNS = 9, 16
PERIOD_NS = 100_000_000
# looks at brightness and sharpness: every fifth sample is enough
SLOW_EVERY = 5
# a clock that the camera paints in lies in the upper or lower quarter and touches few tiles
CLOCK_ROWS = 2
CLOCK_SHARE = 0.10
# so many lively samples end a frozen picture: one key frame, coded again, is none; of a slow camera, as many in a row
LIVELY_SAMPLES = 3
LIVELY_WITHIN_NS = 1_500_000_000
# grey levels of 255, and shares of samples or tiles: where a state begins and where it ends
DARK_LEVEL, DARK_BEGIN, DARK_END = 28, 0.98, 0.95
BRIGHT_LEVEL, BRIGHT_BEGIN, BRIGHT_END = 250, 0.60, 0.50
FLAT_DEVIATION, FLAT_BEGIN, FLAT_END = 6.0, 0.95, 0.85
# detail relative to what this camera had before
BLUR_BEGIN, BLUR_END = 0.5, 0.7
BLUR_LEARN_S, BLUR_MEMORY_S = 5.0, 300.0
BLUR_ROWS, BLUR_STEP_PX = 12, 3


@dataclass(frozen=True, slots=True)
class HealthLimits:
    """What is watched: ``[streams.health]`` for a capture child, which loads no pydantic.

    Attributes:
        frozen_s: so long must a picture repeat itself to count as frozen; 0 watches nothing of it.
        hold_s: so long must darkness, glare, a covered or a defocused lens last to be told, and be gone to be taken
            back; 0 watches none of them.
    """

    frozen_s: float = 20.0
    hold_s: float = 3.0


class HealthMonitor:
    """Watches one camera. Used by one thread."""

    def __init__(self, settings: HealthLimits, ill: Sequence[tuple[str, int]] = ()) -> None:
        """Args: what is watched; what was told of this camera before and not taken back, each since when (ns)."""
        since = dict(ill)
        self._settings = settings
        self._last: UInt8 | None = None
        self._last_ns = 0
        self._num_samples = 0
        self._frozen = _FrozenPicture(settings.frozen_s, since.get("frozen"))
        self._states = {
            # sharpness is learned again: a lens that is still out of focus cannot be told from a soft one
            name: _Lasting(settings.hold_s, since.get(name))
            for name in ("dark", "overexposed", "covered", "defocused")
        }
        self._focus = _Focus()

    def update(self, picture: UInt8 | Planes, now_ns: int) -> list[HealthChange]:
        """Look at a picture.

        Args:
            picture: as it comes from the camera, (H, W, 3) uint8 BGR or planes.
            now_ns: when it came, monotonic.

        Returns:
            What changed; mostly nothing.
        """
        if self._last is not None and 0 <= now_ns - self._last_ns < PERIOD_NS:
            return []
        picture = Planes.of(picture)
        samples = sample(picture)
        if samples is None:
            return []
        changes: list[HealthChange] = []
        if self._settings.frozen_s and self._last is not None and self._last.shape == samples.shape:
            changes += self._told("frozen", self._frozen.update(tiles_that_differ(samples, self._last), now_ns))
        if self._settings.hold_s and self._num_samples % SLOW_EVERY == 0:
            changes += self._look(samples, picture, now_ns)
        self._last, self._last_ns = samples, now_ns
        self._num_samples += 1
        return changes

    def _look(self, samples: UInt8, picture: Planes, now_ns: int) -> list[HealthChange]:
        dark = float(np.count_nonzero(samples < DARK_LEVEL)) / samples.size
        bright = float(np.count_nonzero(samples >= BRIGHT_LEVEL)) / samples.size
        flat = _share_of_flat_tiles(samples)
        is_lit = dark < DARK_END and bright < BRIGHT_END
        ratio = self._focus.update(picture, samples, now_ns) if is_lit and flat < FLAT_END else 1.0
        seen = {
            "dark": (dark >= DARK_BEGIN, dark < DARK_END),
            "overexposed": (bright >= BRIGHT_BEGIN, bright < BRIGHT_END),
            "covered": (flat >= FLAT_BEGIN and is_lit, flat < FLAT_END or not is_lit),
            "defocused": (ratio < BLUR_BEGIN, ratio > BLUR_END),
        }
        changes: list[HealthChange] = []
        for name, (is_begun, is_over) in seen.items():
            changes += self._told(name, self._states[name].update(is_begun, is_over, now_ns))
        return changes

    def _told(self, name: str, change: tuple[bool, float] | None) -> list[HealthChange]:
        if change is None:
            return []
        has_begun, seconds = change
        if has_begun:
            return [HealthChange(f"camera_{name}", {"seconds": round(seconds, 1)})]
        return [HealthChange("camera_recovered", {"from": name, "seconds": round(seconds, 1)})]


class _FrozenPicture:
    """A picture that repeats itself except for a clock that cameras may paint into an upper or lower edge."""

    def __init__(self, frozen_s: float, since_ns: int | None = None) -> None:
        """Args: after how long it counts; since when it is frozen already."""
        self._limit_ns = int(frozen_s * 1e9)
        self._alive_ns: Int64 | None = None
        self._since_ns = since_ns
        self._lively: list[int] = []
        self._num_in_a_row = 0

    def update(self, differs: Bool, now_ns: int) -> tuple[bool, float] | None:
        """Take (Y, X) which tiles differ from the last sample; what changed: whether frozen, for how many seconds."""
        if self._alive_ns is None:
            self._alive_ns = np.full(differs.shape, now_ns, np.int64)
        self._alive_ns[differs] = now_ns
        if self._since_ns is None:
            if not _is_still(now_ns - self._alive_ns < self._limit_ns):
                return None
            self._since_ns = int(np.median(self._alive_ns))
            self._lively = []
            return True, (now_ns - self._since_ns) / 1e9
        self._lively = [time_ns for time_ns in self._lively if now_ns - time_ns < LIVELY_WITHIN_NS]
        is_lively = not _is_still(differs)
        self._num_in_a_row = self._num_in_a_row + 1 if is_lively else 0
        if is_lively:
            self._lively.append(now_ns)
        if max(len(self._lively), self._num_in_a_row) < LIVELY_SAMPLES:
            return None
        seconds = (now_ns - self._since_ns) / 1e9
        self._since_ns = None
        self._alive_ns[:] = now_ns
        return False, seconds


class _Lasting:
    """A condition with hysteresis: told when it has lasted, taken back when it has been gone as long."""

    def __init__(self, hold_s: float, since_ns: int | None = None) -> None:
        """Args: how long it must last; since when it is on already."""
        self._hold_ns = int(hold_s * 1e9)
        self._is_on = since_ns is not None
        self._since_ns = since_ns or 0
        self._turning_ns: int | None = None

    def update(self, is_begun: bool, is_over: bool, now_ns: int) -> tuple[bool, float] | None:
        """What changed: whether it is on, and for how many seconds it was seen or lasted."""
        is_turning = is_over if self._is_on else is_begun
        if not is_turning:
            self._turning_ns = None
            return None
        if self._turning_ns is None:
            self._turning_ns = now_ns
        if now_ns - self._turning_ns < self._hold_ns:
            return None
        since_ns = self._since_ns if self._is_on else self._turning_ns
        self._is_on = not self._is_on
        self._since_ns, self._turning_ns = self._turning_ns, None
        return self._is_on, (now_ns - since_ns) / 1e9


class _Focus:
    """The picture's fine detail, relative to what this camera had over the last minutes."""

    def __init__(self) -> None:
        self._usual: float | None = None
        self._first_ns: int | None = None
        self._last_ns = 0

    def update(self, picture: Planes, samples: UInt8, now_ns: int) -> float:
        """Detail as a share of the usual; 1 while that is being learned."""
        detail = detail_of(picture) / max(float(samples.std()), 1.0)
        if self._usual is None or self._first_ns is None:
            self._usual, self._first_ns, self._last_ns = detail, now_ns, now_ns
            return 1.0
        ratio = detail / max(self._usual, 1e-6)
        is_learning = (now_ns - self._first_ns) / 1e9 < BLUR_LEARN_S
        # a blurred picture must not become the usual one
        if is_learning or ratio > BLUR_END:
            weight = 0.3 if is_learning else min(1.0, (now_ns - self._last_ns) / 1e9 / BLUR_MEMORY_S)
            self._usual += (detail - self._usual) * weight
        self._last_ns = now_ns
        return 1.0 if is_learning else ratio


def sample(picture: Planes) -> UInt8 | None:
    """(R, S) uint8 grey levels on an even grid: luma, or green; R and S are multiples of the tiles. None: too small."""
    grey, levels = picture.brightness
    rows = min(SAMPLE_ROWS, grey.shape[0] // TILE_ROWS * TILE_ROWS)
    columns = min(SAMPLE_COLUMNS, grey.shape[1] // TILE_COLUMNS * TILE_COLUMNS)
    if not rows or not columns:
        return None
    step_y, step_x = grey.shape[0] // rows, grey.shape[1] // columns
    samples = grey[: rows * step_y : step_y, : columns * step_x : step_x]
    return samples.copy() if levels is None else levels[samples]


def tiles_that_differ(samples: UInt8, last: UInt8) -> Bool:
    """(Y, X) bool: tiles in which any sample is not exactly what it was."""
    rows, columns = samples.shape[0] // TILE_ROWS, samples.shape[1] // TILE_COLUMNS
    differs: Bool = (samples != last).reshape(TILE_ROWS, rows, TILE_COLUMNS, columns).any(axis=(1, 3))
    return differs


def detail_of(picture: Planes) -> float:
    """Mean difference of neighbours a few pixels apart, in grey levels, on some rows of the picture."""
    grey, levels = picture.brightness
    rows = np.linspace(0, grey.shape[0] - 1, BLUR_ROWS + 2).astype(int)[1:-1]
    lines = (grey[rows] if levels is None else levels[grey[rows]]).astype(np.int16)
    return float(np.abs(lines[:, BLUR_STEP_PX:] - lines[:, :-BLUR_STEP_PX]).mean())


def _is_still(alive: Bool) -> bool:
    """Whether no tile of (Y, X) lives, except for few in the upper or lower rows."""
    num_alive = int(np.count_nonzero(alive))
    if not num_alive:
        return True
    num_inside = int(np.count_nonzero(alive[CLOCK_ROWS:-CLOCK_ROWS]))
    return not num_inside and num_alive <= CLOCK_SHARE * alive.size


def _share_of_flat_tiles(samples: UInt8) -> float:
    """Share of the tiles without structure beyond noise."""
    rows, columns = samples.shape[0] // TILE_ROWS, samples.shape[1] // TILE_COLUMNS
    tiles = samples.reshape(TILE_ROWS, rows, TILE_COLUMNS, columns)
    return float((tiles.std(axis=(1, 3)) < FLAT_DEVIATION).mean())
