"""What is done to every picture before anybody sees it: privacy masks, region, rotation, size, and a limit of the rate.

It runs where the decoder runs, so a masked pixel never reaches the pipeline. Shape letters: H W camera pixels, h w
pixels of the prepared picture, P polygons, K corners.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np

from edge.types import UInt8

Corner = tuple[float, float]
# of 8K cameras: a picture that a camera claims to be larger is made smaller, whatever the configuration says
LARGEST_PX = (7680, 4320)
# the mask's edge is painted this wide, so that rounding leaves no pixel of it out
EDGE_PX = 3
_TURNS = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}


@dataclass(frozen=True, slots=True)
class PictureSettings:
    """How pictures are prepared. Masks and region are shares of the camera's own picture, as it comes from the decoder.

    Attributes:
        max_fps: pictures per second that are let through, None for all.
        masks: P polygons of K corners, painted black first: no other setting can uncover them.
        roi: left, top, right, bottom of the part that is kept.
        rotate: degrees clockwise.
        size: width and height in pixels, None for the camera's own.
        limit: width and height that a picture may have at most; a larger one is made smaller, its shape kept.
    """

    max_fps: float | None = None
    masks: tuple[tuple[Corner, ...], ...] = ()
    roi: tuple[float, float, float, float] | None = None
    rotate: Literal[0, 90, 180, 270] = 0
    size: tuple[int, int] | None = None
    limit: tuple[int, int] = LARGEST_PX

    @classmethod
    def from_json(cls, facts: dict[str, Any]) -> PictureSettings:
        """The settings from their JSON form, where tuples are lists."""
        return cls(
            max_fps=facts["max_fps"],
            masks=tuple(tuple((x, y) for x, y in mask) for mask in facts["masks"]),
            roi=None if facts["roi"] is None else tuple(facts["roi"]),
            rotate=facts["rotate"],
            size=None if facts["size"] is None else tuple(facts["size"]),
            limit=tuple(facts["limit"]),
        )


class PicturePreparer:
    """Applies ``PictureSettings``. Used by one thread."""

    def __init__(self, settings: PictureSettings) -> None:
        self._settings = settings
        self._covered: list[np.ndarray[Any, np.dtype[np.int32]]] = []
        self._covered_size = (0, 0)

    def prepare(self, image: UInt8) -> UInt8:
        """(H, W, 3) to (h, w, 3) uint8. The given picture is written to: the masks are painted into it."""
        settings = self._settings
        if settings.masks:
            for polygon in self._polygons(image):
                # one by one: where two overlap, a common call would leave a hole
                cv2.fillPoly(image, [polygon], (0, 0, 0))
                cv2.polylines(image, [polygon], True, (0, 0, 0), EDGE_PX)
        if settings.roi is not None:
            image = _cut(image, settings.roi)
        if settings.rotate:
            image = cv2.rotate(image, _TURNS[settings.rotate])
        size = settings.size or _within(image, settings.limit)
        if size is not None and size != (image.shape[1], image.shape[0]):
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        return image

    def _polygons(self, image: UInt8) -> list[np.ndarray[Any, np.dtype[np.int32]]]:
        """The masks in whole pixels of this picture."""
        size = (image.shape[1], image.shape[0])
        if size != self._covered_size:
            self._covered = [np.rint(np.array(mask) * size).astype(np.int32) for mask in self._settings.masks]
            self._covered_size = size
        return self._covered


class Pace:
    """Lets pictures through at a limited rate, evenly, whatever rate they come at."""

    def __init__(self, max_fps: float) -> None:
        self._period_ns = 1e9 / max_fps
        self._due_ns: float | None = None

    def passes(self, time_ns: int) -> bool:
        """Whether the picture of this time is let through."""
        # a clock that jumps back, or a long silence, starts the rhythm anew
        if (
            self._due_ns is None
            or not -self._period_ns < time_ns - self._due_ns + self._period_ns < 4 * self._period_ns
        ):
            self._due_ns = float(time_ns)
        # half a millisecond of slack: cameras jitter, and a picture that is a hair early must not cost a whole period
        if time_ns < self._due_ns - 5e5:
            return False
        self._due_ns += self._period_ns
        return True


def _cut(image: UInt8, roi: tuple[float, float, float, float]) -> UInt8:
    height, width = image.shape[:2]
    left, right = int(roi[0] * width), max(round(roi[2] * width), int(roi[0] * width) + 1)
    top, bottom = int(roi[1] * height), max(round(roi[3] * height), int(roi[1] * height) + 1)
    return image[top:bottom, left:right]


def _within(image: UInt8, limit: tuple[int, int]) -> tuple[int, int] | None:
    """The size that keeps the picture's shape within the limit, None where it fits as it is."""
    scale = min(limit[0] / image.shape[1], limit[1] / image.shape[0])
    if scale >= 1:
        return None
    return max(1, int(image.shape[1] * scale)), max(1, int(image.shape[0] * scale))
