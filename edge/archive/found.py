"""What a model found in a part of a video, as it lies on the disk until the whole video is followed."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge.types import Detections, Int64

# of a picture whose time the file does not say
NO_TIME = int(np.iinfo(np.int64).min)


@dataclass(frozen=True, slots=True)
class Found:
    """What the model found in the pictures of a part: F pictures, N objects of all together, in order.

    Attributes:
        pts: (F,) int64 ticks; ``NO_TIME`` where the file does not say.
        size: (F, 2) int64 width and height of the prepared picture.
        count: (F,) int64 objects of each.
        objects: the N objects.
    """

    pts: Int64
    size: Int64
    count: Int64
    objects: Detections

    def frames(self) -> Iterator[tuple[int | None, int, int, Detections]]:
        """Ticks, width, height and objects of each picture."""
        ends = np.cumsum(self.count).tolist()
        rows = zip(self.pts.tolist(), self.size.tolist(), ends, self.count.tolist(), strict=True)
        for pts, (width, height), end, count in rows:
            yield None if pts == NO_TIME else pts, width, height, self.objects[end - count : end]

    def to_bytes(self) -> bytes:
        """A NumPy archive without pickles: it may lie in a folder that others can write."""
        found = self.objects
        arrays: dict[str, Any] = {"xyxy": found.xyxy, "score": found.score, "class_id": found.class_id}
        more = {"keypoints": found.keypoints, "corners": found.corners}
        arrays |= {name: values for name, values in more.items() if values is not None}
        file = io.BytesIO()
        np.savez(file, pts=self.pts, size=self.size, count=self.count, **arrays)
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes, classes: tuple[str, ...]) -> Found:
        """The inverse of ``to_bytes``. Raises: ValueError, KeyError, OSError: it is damaged."""
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            named = dict(arrays)
        pts, size, count = named.pop("pts"), named.pop("size"), named.pop("count")
        return cls(pts, size, count, Detections(**named, classes=classes))
