"""A result as it lies in another picture of the same view, of another size.

Shape letters: N objects, K points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edge.types import Detections, Frame, Result, Shape, Tracks

if TYPE_CHECKING:
    from edge.masks import Masks

# how many times wider and higher the other picture is
Scale = tuple[float, float]


def enlarged(result: Result, frame: Frame, scale: Scale) -> Result:
    """The result with its boxes, points and masks in the pixels of another picture, ``frame``."""
    prediction = result.prediction
    if isinstance(prediction, Detections):
        masks = None if prediction.masks is None else _masks(prediction.masks, frame, scale)
        prediction = replace(prediction, masks=masks, **_placed(prediction, scale))
    tracks = result.tracks
    if tracks is not None:
        tracks = replace(tracks, velocity=tracks.velocity * np.array(scale, np.float32), **_placed(tracks, scale))
    return replace(result, frame=frame, prediction=prediction, tracks=tracks)


def enlarged_shapes(shapes: Sequence[Any], scale: Scale) -> list[Shape]:
    """Lines and zones there."""
    factor = np.array(scale, np.float32)
    return [Shape(one.kind, one.name, (one.points * factor).astype(np.float32), one.text) for one in shapes]


def _placed(things: Detections | Tracks, scale: Scale) -> dict[str, Any]:
    """The boxes (N, 4), key points (N, K, 3) and corners (N, 4, 2)."""
    factor = np.array(scale, np.float32)
    points = None if things.keypoints is None else things.keypoints * np.array([*scale, 1], np.float32)
    corners = None if things.corners is None else things.corners * factor
    return {"xyxy": things.xyxy * np.tile(factor, 2), "keypoints": points, "corners": corners}


def _masks(masks: Masks, frame: Frame, scale: Scale) -> Masks:
    """Their maps are stretched alike in both directions: a small picture that is squeezed has them a little off."""
    size = frame.width, frame.height
    return replace(masks.scaled(scale[0], size), xyxy=masks.xyxy * np.tile(np.array(scale, np.float32), 2))
