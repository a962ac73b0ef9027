"""Constant-velocity Kalman filters for the boxes of all tracks at once.

Shape letters: T tracks. A box is ``cx cy w h`` in pixels, so each of its four numbers has a filter of its own with two
states (value, speed) and predict and update are plain arithmetic: no matrix is inverted.
The state is one (5, T, 4) float64 array: value, speed per second, and the variances value, value-speed, speed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from edge.types import Bool, Float64

VALUE, SPEED, VAR, COV, SPEED_VAR = range(5)
LEAST_SIZE_PX = 1.0


def to_centre(xyxy: Float64) -> Float64:
    """(T, 4) ``x1 y1 x2 y2`` → ``cx cy w h``."""
    size = xyxy[:, 2:] - xyxy[:, :2]
    return np.concatenate((xyxy[:, :2] + size / 2, size), axis=1)


def to_corners(box: Float64, growth: float = 0.0) -> Float64:
    """(T, 4) ``cx cy w h`` → ``x1 y1 x2 y2``, grown on each side by a share of the size."""
    half = box[:, 2:] * (0.5 + growth)
    return np.concatenate((box[:, :2] - half, box[:, :2] + half), axis=1)


def start(box: Float64, start_speed: float, measurement_noise: float) -> Float64:
    """States of (T, 4) boxes seen for the first time, their speed unknown."""
    scale = _scale(box)
    state = np.zeros((5, *box.shape))
    state[VALUE] = box
    state[VAR] = (2 * measurement_noise * scale) ** 2
    state[SPEED_VAR] = (start_speed * scale) ** 2
    return state


def predict(state: Float64, dt_s: float | Float64, position_noise: float, speed_noise: float) -> None:
    """Move all states on by ``dt_s`` (one number or (T, 1)), in place.

    Noise grows with time, not with steps, and in proportion to the box: width for cx and w, height for cy and h.
    """
    value, speed, var, cov, speed_var = state
    growth = _scale(value)
    growth *= growth
    growth *= dt_s
    drift = dt_s * speed_var
    value += dt_s * speed
    spread = 2 * cov
    spread += drift
    spread *= dt_s
    spread += position_noise**2 * growth
    var += spread
    cov += drift
    growth *= speed_noise**2
    speed_var += growth
    size = value[:, 2:]
    np.maximum(size, LEAST_SIZE_PX, out=size)


def hold_size(state: Float64, which: Bool) -> None:
    """Stop growing or shrinking the boxes of (T,) tracks, in place: a lost track would become a dot or a wall."""
    state[SPEED, which, 2:] = 0


def update(state: Float64, box: Float64, measurement_noise: float | Float64) -> Float64:
    """States after seeing (T, 4) boxes, whose noise is one number or (T, 1)."""
    value, speed, var, cov, speed_var = state
    total = _scale(value)
    total *= measurement_noise
    total *= total
    total += var
    gain, speed_gain = var / total, cov / total
    residual = box - value
    rest = 1 - gain
    out = np.empty_like(state)
    out[VALUE] = value + gain * residual
    out[SPEED] = speed + speed_gain * residual
    out[VAR] = rest * var
    out[COV] = rest * cov
    out[SPEED_VAR] = speed_var - speed_gain * cov
    return out


def replay(
    state: Float64, last: Float64, box: Float64, gap_s: Float64, steps: int, noise: tuple[float, float, float]
) -> Float64:
    """States just before ``box``, as if it had been watched on a straight way from ``last`` to there.

    The observation-centric re-update of OC-SORT (https://arxiv.org/abs/2203.14360): what was predicted while the
    object was hidden is replaced by what must have happened.

    Args:
        state: (5, T, 4) as it was after ``last`` was seen.
        last, box: (T, 4) ``cx cy w h`` before and after the gap.
        gap_s: (T,) length of the gap.
        steps: points on the way; the last of them is ``box`` itself and left to the caller.
        noise: of position, speed and measurement.
    """
    state = state.copy()
    dt_s = gap_s[:, None] / steps
    for step in range(1, steps + 1):
        predict(state, dt_s, noise[0], noise[1])
        if step < steps:
            state = update(state, last + (box - last) * (step / steps), noise[2])
    return state


def warp(state: Float64, affine: Float64) -> None:
    """Carry all states from the last frame's pixels to this one's, in place; ``affine`` is (2, 3)."""
    linear = affine[:, :2]
    zoom = float(np.sqrt(abs(np.linalg.det(linear))))
    state[VALUE, :, :2] = state[VALUE, :, :2] @ linear.T + affine[:, 2]
    state[SPEED, :, :2] = state[SPEED, :, :2] @ linear.T
    state[:VAR, :, 2:] *= zoom
    state[VAR:] *= zoom**2


def _scale(box: Float64) -> Float64:
    """(T, 4) sizes that the noise of each number is a share of."""
    return np.concatenate((box[:, 2:], box[:, 2:]), axis=1)
