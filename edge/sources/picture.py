"""What is done to every picture before anybody sees it: privacy masks, region, rotation, size, and a limit of the rate.

It runs where the decoder runs, so a masked pixel never reaches the pipeline. Shape letters: H W camera pixels, h w
pixels of the prepared picture, P polygons, K corners.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np

from edge.pictures.planes import NEUTRAL, PlaneForm, Planes
from edge.types import Bool, UInt8

Corner = tuple[float, float]
# of 8K cameras: a picture that a camera claims to be larger is made smaller, whatever the configuration says
LARGEST_PX = (7680, 4320)
# the mask's edge is painted this wide, so that rounding leaves no pixel of it out
EDGE_PX = 3


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
        self._covers: tuple[_Cover, ...] = ()
        self._form: PlaneForm | None = None

    def prepare(self, picture: Planes) -> Planes:
        """Another picture, or the same; masks are painted into the given one where its memory may be written to."""
        settings = self._settings
        if settings.masks:
            picture = picture.writable()
            for cover in self._covers_of(picture.form):
                cover.paint(picture)
        if settings.roi is not None:
            picture = picture.cut(*_whole_pixels(picture.size, settings.roi))
        if settings.rotate:
            picture = picture.rotated(settings.rotate)
        size = settings.size or _within(picture.size, settings.limit)
        return picture if size is None or size == picture.size else picture.resized(*size)

    def _covers_of(self, form: PlaneForm) -> tuple[_Cover, ...]:
        """What the masks cover of pictures like this one."""
        if form != self._form:
            self._covers = tuple(_Cover(mask, form) for mask in self._settings.masks)
            self._form = form
        return self._covers


class _Cover:
    """What one mask covers: the same pixels of BGR, of luma, and every chroma sample that stands for one of them."""

    def __init__(self, mask: tuple[Corner, ...], form: PlaneForm) -> None:
        width, height = form.width, form.height
        polygon = np.rint(np.array(mask) * (width, height)).astype(np.int32)
        whole = np.zeros((height + height % 2, width + width % 2), np.uint8)
        inside = whole[:height, :width]
        cv2.fillPoly(inside, [polygon], 1)
        cv2.polylines(inside, [polygon], True, 1, EDGE_PX)
        chroma = whole.reshape(whole.shape[0] // 2, 2, whole.shape[1] // 2, 2).max(axis=(1, 3))
        self._parts = [_part(inside), *[_part(chroma)] * (len(form.shapes) - 1)]
        self._values = [form.colour.black if form.format != "bgr" else 0, NEUTRAL, NEUTRAL]

    def paint(self, picture: Planes) -> None:
        """Make it black."""
        for array, (place, covered), value in zip(picture.arrays, self._parts, self._values, strict=False):
            part = array[place]
            np.copyto(part, value, where=covered if part.ndim == 2 else covered[..., None], casting="unsafe")


def _part(covered: UInt8) -> tuple[tuple[slice, slice], Bool]:
    """Where in a plane something is covered, and which samples there."""
    x, y, width, height = cv2.boundingRect(covered)
    place = slice(y, y + height), slice(x, x + width)
    return place, covered[place].astype(np.bool_)


class Pace:
    """Lets pictures through at a limited rate, evenly, whatever rate they come at."""

    def __init__(self, max_fps: float) -> None:
        self._period_ns = 1e9 / max_fps
        self._due_ns: float | None = None

    def passes(self, time_ns: int) -> bool:
        """Whether the picture of this time is let through."""
        # a clock that jumps back, or a long silence, starts the rhythm again
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


def _whole_pixels(size: tuple[int, int], roi: tuple[float, float, float, float]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a region."""
    width, height = size
    left, right = int(roi[0] * width), max(round(roi[2] * width), int(roi[0] * width) + 1)
    top, bottom = int(roi[1] * height), max(round(roi[3] * height), int(roi[1] * height) + 1)
    return left, top, min(right, width), min(bottom, height)


def _within(size: tuple[int, int], limit: tuple[int, int]) -> tuple[int, int] | None:
    """The size that keeps the picture's shape within the limit, None where it fits as it is."""
    scale = min(limit[0] / size[0], limit[1] / size[1])
    if scale >= 1:
        return None
    return max(1, int(size[0] * scale)), max(1, int(size[1] * scale))
