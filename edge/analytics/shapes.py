"""What analytics asks the overlay to draw. K corners."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edge.types import Float32


@dataclass(frozen=True, slots=True)
class Shape:
    """A line or zone and its counts.

    Attributes:
        kind: ``line`` (open, K = 2, drawn with its direction) or ``zone`` (closed).
        points: (K, 2) float32 frame pixels.
        text: the counts, short enough for a label.
    """

    kind: Literal["line", "zone"]
    name: str
    points: Float32
    text: str
