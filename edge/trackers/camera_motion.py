"""How the camera moved between two frames: from the pictures, or, where none are at hand, from the boxes themselves.

Shape letters: H W pixels of a small grey picture, P pairs of track and detection.
"""

from __future__ import annotations

import numpy as np

from edge.types import Float64, UInt8

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
    squared = np.maximum(shift**2, np.finfo(np.float64).tiny)
    certain: Float64 = shift * np.maximum(0, 1 - (SIGNIFICANT_SIGMA * deviation) ** 2 / squared)
    return certain


def estimate(previous_grey: UInt8, grey: UInt8) -> Float64:
    """The camera's motion by sparse optical flow (Lucas-Kanade on corners, RANSAC on what they say).

    Args:
        previous_grey, grey: (H, W) of the same size; 320 x 180 is enough.

    Returns:
        (2, 3) affine (turn, zoom, shift) from the previous picture's pixels to this one's; the identity where the
        pictures show too little. Scale the last column by the ratio of the sizes to use it on a larger frame.
    """
    import cv2

    corners = cv2.goodFeaturesToTrack(previous_grey, maxCorners=200, qualityLevel=0.01, minDistance=7)
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
