"""What a tracker takes of a frame: the usable detections, and the pairs of track and detection that meet.

Shape letters: N detections, P pairs. Boxes are float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edge.trackers.motion import to_centre

if TYPE_CHECKING:
    from edge.types import Detections, Float64, Int32, Int64


@dataclass(frozen=True, slots=True)
class Seen:
    """The usable detections of a frame: boxes as corners and as centre and size, and their places in the input."""

    box: Float64
    centre: Float64
    score: Float64
    class_id: Int32
    index: Int64


@dataclass(frozen=True, slots=True)
class Pairs:
    """(P,) pairs of track and detection that meet, and their overlap."""

    row: Int64
    col: Int64
    overlap: Float64


def usable(detections: Detections, least_score: float, most: int) -> Seen:
    """The detections that are finite, of some size and good enough; of too many those with the best scores."""
    box, score = detections.xyxy, detections.score
    good = (box[:, 2:] > box[:, :2]).all(axis=1) & np.isfinite(box).all(axis=1) & (score >= least_score)
    index = good.nonzero()[0]
    if len(index) > most:
        best = np.argsort(-score[index], kind="stable")[:most]
        index = np.sort(index[best])
    corners = box[index].astype(np.float64)
    return Seen(corners, to_centre(corners), score[index].astype(np.float64), detections.class_id[index], index)
