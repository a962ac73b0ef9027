"""How the camera moved between two frames: from the pictures, or, where none are at hand, from the boxes themselves.

Shape letters: H W pixels of a picture, h w of a small grey one, P pairs of track and detection, C corners that are
looked for in the next picture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from edge.types import Bool, Float32, Float64, UInt8

# longer side of the picture that motion is measured in
SMALL_PX = 320
# that tell whether anything may have moved, and grey levels between neighbours from which a pixel shows something
NUM_ROWS = 24
LEAST_TEXTURE = 24
# after so many measurements in vain, one frame in 2 ** MOST_VAIN is measured
MOST_VAIN = 4
# in pixels of the small picture: below it, the noise of the flow is as large as the motion
LEAST_MOTION_PX = 0.3
LEAST_PAIRS = 3
# far apart, so that corners count by the area that they stand for, and many, so that a dark street counts next to a car
CORNER_DISTANCE_PX = 24
LEAST_CORNERS = 12
CORNER_QUALITY = 0.002
FLOW_WINDOW_PX = 9
# corners are followed over so many pictures before new ones are looked for, unless more than this share of them is lost
MOST_FOLLOWED = 4
MOST_LOST = 0.3
AGREEMENT_PX = 1.0
# share of corners that may stand still while the camera moves: a logo, a bonnet; next to a lorry there are more
MOST_AT_REST = 0.2
# boxes that vote on a shift, their sizes alike (difference of logarithms); votes are counted in this share of a box
MOST_VOTERS = 100
LIKE_SIZE = 0.35
VOTE_SHARE = 0.25
FARTHEST_VOTE = 40
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
    shift = _median(error)
    deviation = SIGMA_PER_MAD * _median(np.abs(error - shift)) / np.sqrt(len(error))
    chance, size = SIGNIFICANT_SIGMA * deviation, np.abs(shift)
    share = np.divide(chance, size, out=np.ones(2), where=size > chance)
    certain: Float64 = shift * (1 - share**2)
    return certain


def _median(values: Float64) -> Float64:
    """(2,) of (P, 2): numpy's own takes ten times as long for so few, and it is asked every frame."""
    ordered = np.sort(values, axis=0)
    middle: Float64 = (ordered[(len(values) - 1) // 2] + ordered[len(values) // 2]) / 2
    return middle


def shift_by_vote(expected: Float64, found: Float64) -> Float64:
    """The shift that puts most of the expected boxes on found ones, 0 where they do not agree on one.

    Unlike ``shift_of_pairs`` it needs no pairs: every two boxes of one size vote for the way from one to the other. So
    a camera that turns by more than a box in one frame is still understood.

    Args:
        expected: (T, 4) ``cx cy w h`` of tracks.
        found: (N, 4) ``cx cy w h`` of detections.

    Returns:
        (2,) pixels.
    """
    none = np.zeros(2)
    expected, found = expected[:MOST_VOTERS, None], found[None, :MOST_VOTERS]
    num = min(len(expected), found.shape[1])
    if num < LEAST_PAIRS:
        return none
    way = found[..., :2] - expected[..., :2]
    votes = way / (VOTE_SHARE * np.median(expected[..., 2:].min(axis=2)))
    like = np.abs(np.log(found[..., 2:] / expected[..., 2:])) < LIKE_SIZE
    counts = np.all(like & (np.abs(votes) < FARTHEST_VOTE), axis=2)
    way, place = way[counts], np.rint(votes[counts]).astype(np.int64) + FARTHEST_VOTE
    side = 2 * FARTHEST_VOTE + 1
    board = np.bincount(place[:, 1] * side + place[:, 0], minlength=side * side).reshape(side, side)
    # neighbours count together: no vote falls between two stools
    board = cv2.boxFilter(board.astype(np.float32), -1, (3, 3), normalize=False, borderType=cv2.BORDER_CONSTANT)
    y, x = np.unravel_index(board.argmax(), board.shape)
    if board[y, x] < max(LEAST_PAIRS, num / 2, 2 * board[FARTHEST_VOTE, FARTHEST_VOTE]):
        return none
    shift: Float64 = np.median(way[np.all(np.abs(place - np.array((x, y))) <= 1, axis=1)], axis=0)
    return shift


class CameraMotion:
    """Measures how a camera moves from frame to frame of one stream. Objects are left out of what it looks at.

    A few rows of each picture tell whether most of what can be seen has changed; only then the motion is measured, from
    the second such frame on. Where that finds nothing (noise, flicker, a cut), it rests for longer and longer.
    """

    def __init__(self, *, is_always: bool = False) -> None:
        """Args: measure every frame, without asking first whether anything moves."""
        self._is_always = is_always
        self._rows: UInt8 | None = None
        # only while the camera moves: size of the frame, small picture and its boxes
        self._previous: tuple[tuple[int, ...], UInt8, Float32] | None = None
        # corners of the small picture, and how many more pictures they serve for
        self._corners: Float32 | None = None
        self._num_left = 0
        self._is_moving = False
        self._num_vain = self._num_rest = 0

    def update(self, image: UInt8, xyxy: Float32) -> Float64 | None:
        """Take the next frame.

        Args:
            image: (H, W) uint8 luma, or (H, W, 3) uint8 BGR.
            xyxy: (N, 4) boxes of the objects found in it, which may move by themselves.

        Returns:
            (2, 3) affine from the last frame's pixels to this one's; None for the first frame, after a change of size
            or a cut, and where the camera stands still as far as can be seen, so that the boxes may tell.
        """
        previous, self._previous = self._previous, None
        corners, self._corners = self._corners, None
        if not self._may_move(image):
            return None
        scale = SMALL_PX / max(image.shape[:2])
        small = shrunk(image, scale)
        self._previous = image.shape, small, xyxy * np.float32(scale)
        if previous is None or previous[0] != image.shape:
            return None
        affine = self._followed(previous[1], small, previous[2], corners)
        self._note(is_moving=affine is not None)
        if affine is None:
            return None
        affine[:, 2] /= scale
        return affine

    def _followed(self, before: UInt8, now: UInt8, xyxy: Float32, corners: Float32 | None) -> Float64 | None:
        """The motion between two small pictures by the corners that are known of the first, or by new ones."""
        if corners is None or self._num_left == 0:
            corners, self._num_left = corners_of(before), MOST_FOLLOWED
        corners = outside(corners, xyxy)
        affine, moved = follow(before, now, corners)
        if affine is None or len(moved) < (1 - MOST_LOST) * len(corners):
            self._num_left = 0
            return affine
        self._corners = moved
        self._num_left -= 1
        return affine

    def _note(self, *, is_moving: bool) -> None:
        self._is_moving = is_moving
        self._num_vain = 0 if is_moving else min(self._num_vain + 1, MOST_VAIN)
        self._num_rest = 0 if is_moving else 2**self._num_vain

    def _may_move(self, image: UInt8) -> bool:
        before, self._rows = self._rows, some_rows(image)
        self._num_rest = max(0, self._num_rest - 1)
        if self._is_always or self._is_moving:
            return True
        return (
            self._num_rest == 0
            and before is not None
            and before.shape == self._rows.shape
            and has_changed(before, self._rows)
        )


def some_rows(image: UInt8) -> UInt8:
    """(R, W) grey rows, spread over (H, W) luma or (H, W, 3) BGR."""
    return _grey(np.ascontiguousarray(_every(image, max(1, image.shape[0] // NUM_ROWS))))


def has_changed(before: UInt8, rows: UInt8) -> bool:
    """Whether most of what (R, W) rows show is not where it was: the camera may have moved.

    A pixel shows something where it differs from its neighbour, and has moved where it changed by a quarter of that
    difference. Objects and noise change fewer, as long as they fill less than half of the view.
    """
    distance = max(1, rows.shape[1] // SMALL_PX)
    if rows.shape[1] <= distance:
        return False
    texture = cv2.absdiff(rows[:, distance:], rows[:, :-distance])
    change = cv2.absdiff(rows[:, :-distance], before[:, :-distance])
    shows = texture >= LEAST_TEXTURE
    return bool(2 * np.count_nonzero(shows & (change > texture >> 2)) > np.count_nonzero(shows))


def shrunk(image: UInt8, scale: float) -> UInt8:
    """(h, w) uint8 grey picture of (H, W) luma or (H, W, 3) BGR."""
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    # one row of several: the mean of all would take longer than everything that is done with it
    few = _every(image, max(1, image.shape[0] // size[1]))
    return _grey(np.asarray(cv2.resize(few, size, interpolation=cv2.INTER_LINEAR)))


def _every(image: UInt8, step: int) -> UInt8:
    return image[step // 2 :: step]


def _grey(image: UInt8) -> UInt8:
    return image if image.ndim == 2 else np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))


def estimate(previous_grey: UInt8, grey: UInt8, xyxy: Float32 | None = None) -> Float64:
    """The camera's motion by sparse optical flow (Lucas-Kanade on corners, RANSAC on what they say).

    Args:
        previous_grey, grey: (h, w) of the same size; 320 x 180 is enough.
        xyxy: (N, 4) boxes of the previous picture's things that move by themselves; None where nothing is known.

    Returns:
        (2, 3) affine (turn, zoom, shift) from the previous picture's pixels to this one's; the identity where the
        pictures show too little, do not belong together, or stand still as far as can be seen.
        Scale the last column by the ratio of the sizes to use it on a larger frame.
    """
    affine, _ = follow(previous_grey, grey, corners_of(previous_grey, xyxy))
    return np.eye(2, 3) if affine is None else affine


def follow(previous_grey: UInt8, grey: UInt8, corners: Float32) -> tuple[Float64 | None, Float32]:
    """As ``estimate`` for (C, 2) corners of the previous picture; None where it gives the identity.

    Returns:
        The affine, and where the corners are in the new picture, those left out that are not found any more.
    """
    if len(corners) < LEAST_CORNERS:
        return None, corners[:0]
    window = (FLOW_WINDOW_PX, FLOW_WINDOW_PX)
    moved, found, _ = cv2.calcOpticalFlowPyrLK(
        previous_grey, grey, corners, np.empty_like(corners), winSize=window, criteria=(3, 10, 0.03)
    )
    kept = found[:, 0] == 1
    if np.count_nonzero(kept) < LEAST_CORNERS:
        return None, corners[:0]
    if not kept.all():
        corners, moved = corners[kept], moved[kept]
    # the same seed for every call: the same pictures give the same motion
    cv2.setRNGSeed(0)
    affine, _ = cv2.estimateAffinePartial2D(corners, moved, method=cv2.RANSAC, ransacReprojThreshold=AGREEMENT_PX)
    if affine is None or not is_believed(affine, corners, moved):
        return None, corners[:0]
    return np.asarray(affine, np.float64), np.asarray(moved, np.float32)


def corners_of(grey: UInt8, xyxy: Float32 | None = None) -> Float32:
    """(C, 2) corners spread over the (h, w) picture, those inside of the (N, 4) boxes left out."""
    size = max(1, grey.shape[1] // 2), max(1, grey.shape[0] // 2)
    half = cv2.resize(grey, size, interpolation=cv2.INTER_LINEAR)
    found = cv2.goodFeaturesToTrack(half, 0, CORNER_QUALITY, CORNER_DISTANCE_PX / 2)
    if found is None:
        return np.empty((0, 2), np.float32)
    # a pixel of the half picture lies between two of the whole one
    corners: Float32 = 2 * found[:, 0] + np.float32(0.5)
    return corners if xyxy is None else outside(corners, xyxy)


def outside(corners: Float32, xyxy: Float32) -> Float32:
    """Those of (C, 2) corners that lie in none of the (N, 4) boxes."""
    if len(xyxy) == 0:
        return corners
    x, y = corners[:, 0, None], corners[:, 1, None]
    inside: Bool = (x >= xyxy[:, 0]) & (x < xyxy[:, 2]) & (y >= xyxy[:, 1]) & (y < xyxy[:, 3])
    return corners[~inside.any(axis=1)]


def is_believed(affine: Float64, corners: Float32, moved: Float32) -> bool:
    """Whether the corners say together that the camera moved: most agree, and few of them stand where they were.

    A camera moves everything. What passes a still camera, large as it may be, leaves corners next to it where they
    were; after a cut, or in noise, no motion is shared by most.
    """
    motion = corners @ affine[:, :2].T + affine[:, 2] - corners
    if np.abs(motion).max() < LEAST_MOTION_PX:
        return False
    flow = moved - corners
    to_motion, to_rest = np.abs(flow - motion).max(axis=1), np.abs(flow).max(axis=1)
    num_agree = np.count_nonzero(to_motion < AGREEMENT_PX)
    num_rest = np.count_nonzero((to_rest < to_motion) & (to_rest < AGREEMENT_PX))
    return bool(2 * num_agree > len(corners) and num_rest <= MOST_AT_REST * len(corners))
