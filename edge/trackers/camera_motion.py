"""How the camera moved between two frames: from the pictures, or, where none are at hand, from the boxes themselves.

Shape letters: H W pixels of a small grey picture, P pairs of track and detection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from edge.types import Float32, Float64, UInt8

SMALL_PX = 320
# in pixels of the small picture: below it, the noise of the flow is as large as the motion
LEAST_MOTION_PX = 0.15
LEAST_PAIRS = 3
# of a normal distribution: standard deviation per median absolute deviation
SIGMA_PER_MAD = 1.4826
SIGNIFICANT_SIGMA = 2.0


def shift_of_pairs(error: Float64) -> Float64:
    """The shift that all pairs share, 0 where it could be chance.

    The median resists the objects that really moved. It is shrunk by how certain it is (a positive-part James-Stein
    factor), so that a still camera gives 0 and few boxes move nothing.

    Args:
        error: (P, 2) pixels from where a track was expected to where its box was found.

    Returns:
        (2,) pixels.
    """
    if len(error) < LEAST_PAIRS:
        return np.zeros(2)
    shift = np.median(error, axis=0)
    deviation = SIGMA_PER_MAD * np.median(np.abs(error - shift), axis=0) / np.sqrt(len(error))
    chance, size = SIGNIFICANT_SIGMA * deviation, np.abs(shift)
    share = np.divide(chance, size, out=np.ones(2), where=size > chance)
    certain: Float64 = shift * (1 - share**2)
    return certain


class CameraMotion:
    """Measures how a camera moves from frame to frame of one stream. Objects are left out of what it looks at."""

    def __init__(self) -> None:
        self._previous: tuple[UInt8, UInt8] | None = None

    def update(self, image: UInt8, xyxy: Float32) -> Float64 | None:
        """Take the next frame.

        Args:
            image: (H, W, 3) uint8 BGR.
            xyxy: (N, 4) boxes of the objects found in it, which may move by themselves.

        Returns:
            (2, 3) affine from the last frame's pixels to this one's; None for the first frame, after a change of size,
            and where the camera stands still as far as can be seen, so that the boxes may tell.
        """
        scale = SMALL_PX / max(image.shape[:2])
        size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
        grey = np.asarray(cv2.cvtColor(cv2.resize(image, size, interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2GRAY))
        previous, self._previous = self._previous, (grey, ground_of(xyxy * np.float32(scale), grey.shape))
        if previous is None or previous[0].shape != grey.shape:
            return None
        affine = estimate(previous[0], grey, previous[1])
        corners = np.array([[0, 0], [size[0], 0], [0, size[1]], size], np.float64)
        if np.abs(corners @ affine[:, :2].T + affine[:, 2] - corners).max() < LEAST_MOTION_PX:
            return None
        affine[:, 2] /= scale
        return affine


def ground_of(xyxy: Float32, shape: tuple[int, ...]) -> UInt8:
    """(H, W) uint8: 255 where no object is, 0 inside of the (N, 4) boxes, given in pixels of this picture."""
    ground = np.full(shape[:2], 255, np.uint8)
    limit = [shape[1], shape[0]] * 2
    for x1, y1, x2, y2 in np.clip(np.nan_to_num(xyxy), 0, limit).round().astype(int).tolist():
        ground[y1:y2, x1:x2] = 0
    return ground


def estimate(previous_grey: UInt8, grey: UInt8, ground: UInt8 | None = None) -> Float64:
    """The camera's motion by sparse optical flow (Lucas-Kanade on corners, RANSAC on what they say).

    Args:
        previous_grey, grey: (H, W) of the same size; 320 x 180 is enough.
        ground: (H, W), 0 where the previous picture shows things that move by themselves; None where nothing is known.

    Returns:
        (2, 3) affine (turn, zoom, shift) from the previous picture's pixels to this one's; the identity where the
        pictures show too little. Scale the last column by the ratio of the sizes to use it on a larger frame.
    """
    corners = cv2.goodFeaturesToTrack(previous_grey, maxCorners=200, qualityLevel=0.01, minDistance=7, mask=ground)
    identity = np.eye(2, 3)
    if corners is None or len(corners) < 2 * LEAST_PAIRS:
        return identity
    moved, found, _ = cv2.calcOpticalFlowPyrLK(previous_grey, grey, corners, np.empty_like(corners))
    kept = found[:, 0] == 1
    if int(kept.sum()) < 2 * LEAST_PAIRS:
        return identity
    # the same seed for every call: the same pictures give the same motion
    cv2.setRNGSeed(0)
    affine, _ = cv2.estimateAffinePartial2D(corners[kept], moved[kept], method=cv2.RANSAC, ransacReprojThreshold=1.5)
    return identity if affine is None else np.asarray(affine, np.float64)
