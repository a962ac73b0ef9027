"""How loud sound is, and what is made of it only while somebody wants it."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest

from edge.sources.sound import LEAST_DBFS, LevelMeter, dbfs_of


def sine(amplitude: float, seconds: float = 1.0, rate: int = 8000) -> list[Any]:
    """Frames of 20 ms of a sine of 440 Hz."""
    samples = amplitude * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)
    frames = []
    for start in range(0, len(samples), rate // 50):
        piece = (samples[start : start + rate // 50] * 32767).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(piece, format="s16", layout="mono")
        frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
        frames.append(frame)
    return frames


@pytest.mark.parametrize(("amplitude", "expected"), [(1.0, -3.01), (0.5, -9.03), (0.1, -23.01), (0.01, -43.01)])
def test_a_sine_has_the_level_of_its_amplitude(amplitude: float, expected: float) -> None:
    levels = list(LevelMeter(0.5).take(sine(amplitude)))
    assert len(levels) == 2
    assert levels == pytest.approx([expected, expected], abs=0.1)


def test_silence_has_a_least_level() -> None:
    assert list(LevelMeter(0.5).take(sine(0.0, 0.5))) == [LEAST_DBFS]
    assert dbfs_of(0.0) == LEAST_DBFS
    assert math.isclose(dbfs_of(1.0), 0.0)
