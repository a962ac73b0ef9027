"""Masks, key points and oriented boxes of the YOLOv8 family and its successors, raw or chosen in the graph.

N batch, A anchors, C classes, M candidates of a frame, P prototypes, K key points of D numbers, E more of a box.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, floor

import numpy as np

from edge.boxes import bounds, corners_of, nms_oriented, nms_per_class
from edge.errors import EngineError
from edge.heads.candidates import best_class, corners, keypoints_of
from edge.masks import Masks, Prototypes
from edge.models.manifest import Manifest
from edge.types import Array, Detections, Float32, Int32, Int64, Letterbox, Prediction

# rounding of half precision
MAX_SCORE = 1.002


@dataclass(frozen=True, slots=True)
class Found:
    """Candidates in model pixels.

    Attributes:
        box: (M, 4) ``x1 y1 x2 y2``, or ``cx cy w h`` where oriented.
        score, class_id: (M,).
        more: (M, E) the numbers next to the box.
    """

    box: Float32
    score: Float32
    class_id: Int32
    more: Float32

    def __getitem__(self, index: Int64 | Array) -> Found:
        return Found(self.box[index], self.score[index], self.class_id[index], self.more[index])


class InstanceHead:
    """Reads ``(N, 4 + C + E, A)``, or rows ``(N, M, 6 + E)`` where NMS or top-K is in the graph.

    ``E`` is P mask coefficients, with the prototypes (N, P, h, w) in another output; or K x D numbers of key points;
    or both, in this order; or an angle in radians. A raw box is ``cx cy w h``; a row ``x1 y1 x2 y2 score class``,
    oriented ``cx cy w h``.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        family, *kinds = manifest.head.split("-")
        self._is_listed = family == "end2end"
        self._has_masks, self._has_points, self._is_oriented = (kind in kinds for kind in ("seg", "pose", "obb"))

    def decode(self, outputs: Mapping[str, Array], letterboxes: Sequence[Letterbox]) -> list[Prediction]:
        raw, maps = self._split(outputs)
        return [
            self._decode_one(raw[row], None if maps is None else maps[row], box) for row, box in enumerate(letterboxes)
        ]

    def scores(self, outputs: Mapping[str, Array]) -> Float32:
        """(N, C, A) of the raw form, (N, M) of the rows."""
        raw, _ = self._split(outputs)
        chosen = raw[..., 4] if self._is_listed else raw[:, 4 : 4 + len(self._manifest.classes)]
        return chosen.astype(np.float32, copy=False)

    def _split(self, outputs: Mapping[str, Array]) -> tuple[Array, Array | None]:
        """The output with the boxes, candidates last unless they are rows; and the prototypes."""
        maps = next((value for value in outputs.values() if value.ndim == 4), None) if self._has_masks else None
        raw = next((value for value in outputs.values() if value.ndim == 3), np.empty((0, 0, 0)))
        more = (0 if maps is None else maps.shape[1]) + self._num_points() + self._is_oriented
        wanted = more + (6 if self._is_listed else 4 + len(self._manifest.classes))
        at = 2 if self._is_listed else 1
        if not self._is_listed and raw.shape[2] == wanted != raw.shape[1]:
            raw = raw.transpose(0, 2, 1)
        if raw.shape[at] != wanted or (self._has_masks and maps is None):
            shapes = ", ".join(f"{name} {'x'.join(map(str, value.shape))}" for name, value in outputs.items())
            raise EngineError(
                f"{self._manifest.name}: head {self._manifest.head!r} expects {wanted} numbers for each candidate"
                f"{' and a map per mask coefficient' if self._has_masks else ''}, found {shapes}; "
                "run: edge inspect MODEL"
            )
        return raw, maps

    def _num_points(self) -> int:
        shape = self._manifest.kpt_shape
        return shape[0] * shape[1] if shape and self._has_points else 0

    def _decode_one(self, raw: Array, maps: Array | None, box: Letterbox) -> Detections:
        found = self._listed(raw) if self._is_listed else self._raw(raw)
        if len(found.score) == 0:
            return replace(Detections.empty(), classes=self._manifest.classes)
        if not float(found.score.max()) <= MAX_SCORE:
            raise EngineError(
                f"{self._manifest.name}: a score of {found.score.max():.4g}, expected at most 1; head "
                f"{self._manifest.head!r} reads this model wrongly; run: edge inspect MODEL"
            )
        if self._manifest.needs_nms:
            found = found[self._best(found)]
        placed = self._placed(replace(found, score=np.minimum(found.score, np.float32(1))), maps, box)
        real = (placed.xyxy[:, 2] > placed.xyxy[:, 0]) & (placed.xyxy[:, 3] > placed.xyxy[:, 1])
        if placed.corners is not None:
            real &= np.isfinite(placed.corners).all(axis=(1, 2))
        return placed if real.all() else placed[real]

    def _raw(self, raw: Array) -> Found:
        first = 4 + len(self._manifest.classes)
        anchor, class_id, score = best_class(raw[4:first].T, self._manifest.thresholds.track_score)
        box = raw[:4, anchor].T.astype(np.float32)
        more = raw[first:, anchor].T.astype(np.float32)
        return Found(box if self._is_oriented else corners(box), score, class_id, more)

    def _listed(self, rows: Array) -> Found:
        rows = rows[rows[:, 4] >= self._manifest.thresholds.track_score].astype(np.float32)
        return Found(rows[:, :4], rows[:, 4], np.rint(rows[:, 5]).astype(np.int32), rows[:, 6:])

    def _best(self, found: Found) -> Int64:
        limit = self._manifest.thresholds.iou
        if self._is_oriented:
            return nms_oriented(found.box, found.more[:, 0], found.score, found.class_id, limit)
        return nms_per_class(found.box, found.score, found.class_id, limit)

    def _placed(self, found: Found, maps: Array | None, box: Letterbox) -> Detections:
        """The candidates in frame pixels, with what their kind has next to the box."""
        classes = self._manifest.classes
        if self._is_oriented:
            turned = box.points_to_frame(corners_of(found.box, found.more[:, 0]))
            limit = np.array([box.frame_width, box.frame_height] * 2, np.float32)
            xyxy = np.clip(bounds(turned), 0, limit)
            return Detections(xyxy, found.score, found.class_id, corners=turned, classes=classes)
        upright = Detections(box.to_frame(found.box), found.score, found.class_id, classes=classes)
        num_coefficients = 0 if maps is None else len(maps)
        if maps is not None:
            upright = replace(upright, masks=_masks(maps, found.more[:, :num_coefficients], upright.xyxy, box))
        if self._has_points:
            assert self._manifest.kpt_shape is not None
            given = found.more[:, num_coefficients:].reshape(len(found.more), *self._manifest.kpt_shape)
            upright = replace(upright, keypoints=keypoints_of(given, box))
        return upright


def _masks(maps: Array, coefficients: Float32, xyxy: Float32, box: Letterbox) -> Masks:
    """The masks of one frame.

    The engine may overwrite its (P, h, w) maps, so their part that shows the frame is copied. What lies in the padding
    says nothing of the frame's edge.
    """
    _, rows, columns = maps.shape
    across, down = columns / box.model_width, rows / box.model_height
    scale = box.scale_x * across, box.scale_y * down
    left, right = _cells(box.pad_x * across, box.frame_width * scale[0], columns)
    top, bottom = _cells(box.pad_y * down, box.frame_height * scale[1], rows)
    shift = box.pad_x * across - left, box.pad_y * down - top
    own = Prototypes(np.array(maps[:, top:bottom, left:right], np.float32), scale, shift)
    return Masks((own,), np.zeros(len(xyxy), np.int32), coefficients, xyxy, (box.frame_width, box.frame_height))


def _cells(begin: float, length: float, count: int) -> tuple[int, int]:
    """First cell, and the one after the last, that a span touches; at least one."""
    first = min(max(floor(begin + 1e-6), 0), count - 1)
    return first, min(max(ceil(begin + length - 1e-6), first + 1), count)
