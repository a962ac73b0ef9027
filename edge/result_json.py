"""The JSONL line of one result: one JSON object per frame and stream, its keys always in the same order.

Shape letters: N objects, C classes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import isfinite

import numpy as np

from edge.compiled import built, flat
from edge.masks import Masks, encode_rle, mask_of, outlines_of
from edge.metrics.clock import WallClock
from edge.types import (
    Classification,
    Detections,
    Event,
    Float32,
    Int32,
    Int64,
    Label,
    Result,
    Segmentation,
    Tracks,
)

DEFAULT_SCORE = 0.35
TOP_CLASSES = 5
_OBJECT = '{"track_id":%s,"class":%s,"score":%.3f,"xyxy":[%.1f,%.1f,%.1f,%.1f]%s}'
# in C where it was built; else Python does the same
_compiled = built("_lines")
_COMPACT = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)


class ResultEncoder:
    """Turns the results of one stream into JSONL lines.

    Args:
        classes: names by class id; an id beyond them is written as ``class 7``.
        score: detections that belong to no track are listed from this score on.
        clock: for ``captured`` and ``age_ms``.
        has_masks: whether the masks of objects are written, which takes time; key points and corners always are.
        has_outlines: whether the outlines of their masks are: for who draws them.
    """

    def __init__(
        self,
        classes: Sequence[str],
        *,
        score: float = DEFAULT_SCORE,
        clock: WallClock | None = None,
        has_masks: bool = True,
        has_outlines: bool = False,
    ) -> None:
        self._score = score
        self._has_masks = has_masks
        self._has_outlines = has_outlines
        self._clock = clock or WallClock()
        self._classes = [json.dumps(name) for name in classes]

    def encode(self, result: Result) -> bytes:
        """One line without its line feed: UTF-8 JSON with the keys in the documented order, finite numbers only.

        ``objects`` are the confirmed tracks and then the detections of no track, each in the order it came.
        """
        frame = result.frame
        age_ms = max(self._clock.now_ns() - frame.captured_ns, 0) / 1e6
        return (
            f'{{"stream":{json.dumps(frame.stream)},"epoch":{frame.epoch},"seq":{frame.seq},'
            f'"captured":"{self._clock.iso(frame.captured_ns)}","age_ms":{age_ms:.1f},'
            f'"width":{frame.width},"height":{frame.height},'
            f'{self._prediction(result)},"events":[{_events(result.events)}]}}'
        ).encode()

    def found(self, result: Result) -> str:
        """What was found alone, and the size of the picture that ``xyxy`` is of, as JSON."""
        return f'{{"width":{result.frame.width},"height":{result.frame.height},{self._prediction(result)}}}'

    def _prediction(self, result: Result) -> str:
        prediction = result.prediction
        if isinstance(prediction, Segmentation):
            return f'"shares":{{{self._shares(prediction)}}}'
        if isinstance(prediction, Classification):
            return f'"classes":[{self._top(prediction.score)}]'
        if isinstance(prediction, Detections):
            return f'"objects":[{self._objects(prediction, result.tracks, result.labels)}]'
        # an embedding describes the whole frame; it has no objects
        return '"objects":[]'

    def _objects(self, detections: Detections, tracks: Tracks | None, labels: Mapping[int, Sequence[Label]]) -> str:
        rows: list[str] = []
        free = detections.score >= self._score
        if tracks is not None and len(tracks):
            known = [""] * len(tracks)
            if labels:
                known = [_labels_json(labels.get(track_id, ())) for track_id in tracks.track_id.tolist()]
            self._add_beside(known, detections, tracks.detection, tracks.keypoints, tracks.corners)
            rows = self._rows(tracks.track_id, known, tracks.class_id, tracks.score, tracks.xyxy)
            free[tracks.detection[tracks.detection >= 0]] = False
        if free.any():
            index = np.flatnonzero(free)
            nothing = [""] * len(index)
            points = None if detections.keypoints is None else detections.keypoints[index]
            corners = None if detections.corners is None else detections.corners[index]
            self._add_beside(nothing, detections, index, points, corners)
            score, xyxy = detections.score[index], detections.xyxy[index]
            rows += self._rows(None, nothing, detections.class_id[index], score, xyxy)
        return ",".join(rows)

    def _add_beside(
        self,
        known: list[str],
        detections: Detections,
        index: Int32 | Int64,
        keypoints: Float32 | None,
        corners: Float32 | None,
    ) -> None:
        """Append to each of the N objects, in place, what it has next to its box.

        Args:
            known: what follows in the object of each.
            detections: of the frame.
            index: (N,) the detection of each, -1 where it has none and so no mask.
            keypoints, corners: of the N objects.
        """
        for number, row in enumerate(index.tolist()):
            if keypoints is not None:
                known[number] += f',"keypoints":{_points_json(keypoints[number], "[%.1f,%.1f,%.2f]")}'
            if corners is not None:
                known[number] += f',"corners":{_points_json(corners[number], "[%.1f,%.1f]")}'
            if self._has_masks and detections.masks is not None and row >= 0:
                known[number] += f',"mask":{_mask_json(detections.masks, row)}'
            if self._has_outlines and detections.masks is not None and row >= 0:
                known[number] += f',"outlines":{json.dumps(outlines_of(detections.masks, row), separators=(",", ":"))}'

    def _rows(
        self, track_id: Int64 | None, known: Sequence[str], class_id: Int32, score: Float32, xyxy: Float32
    ) -> list[str]:
        """``known`` is what follows in the object of each; it is empty or begins with a comma."""
        if _compiled is not None and not any(known):
            tracks = None if track_id is None else flat(track_id, np.int64)
            numbers = flat(class_id, np.int32), flat(score, np.float32), flat(xyxy, np.float32)
            text = _compiled.objects(tracks, self._classes, *numbers)
            return [text] if text else []
        ids: list[int | str] = ["null"] * len(score) if track_id is None else track_id.tolist()
        rows = zip(ids, known, class_id.tolist(), score.tolist(), xyxy.tolist(), strict=True)
        return [
            _OBJECT % (track, self._class_json(label), value, x1, y1, x2, y2, more)
            for track, more, label, value, (x1, y1, x2, y2) in rows
            # JSON has no NaN and no infinity: such an object says nothing and is left out
            if isfinite(value + x1 + y1 + x2 + y2)
        ]

    def _class_json(self, class_id: int) -> str:
        if 0 <= class_id < len(self._classes):
            return self._classes[class_id]
        return f'"class {class_id}"'

    def _shares(self, segmentation: Segmentation) -> str:
        """Share of the frame per class that occurs, largest first; the letterbox padding does not count."""
        counts = np.bincount(picture_part(segmentation).ravel(), minlength=1)
        order = np.argsort(-counts, kind="stable")
        total = max(int(counts.sum()), 1)
        return ",".join(f"{self._class_json(int(i))}:{counts[i] / total:.3f}" for i in order if counts[i])

    def _top(self, score: Float32) -> str:
        known = np.where(np.isfinite(score), score, 0.0)
        order = np.argsort(-known, kind="stable")[:TOP_CLASSES]
        return ",".join(f'{{"class":{self._class_json(int(i))},"score":{known[i]:.3f}}}' for i in order)


def _points_json(points: Float32, form: str) -> str:
    """A list of points, each in this form; what is no number is written as 0, a point's score with it."""
    if not np.isfinite(points).all():
        points = np.where(np.isfinite(points).all(axis=1, keepdims=True), points, np.float32(0))
    return "[" + ",".join(form % tuple(point) for point in points.tolist()) + "]"


def _mask_json(masks: Masks, row: int) -> str:
    """A mask as COCO's compressed RLE: height and width of the frame, and the runs."""
    mask, place = mask_of(masks, row)
    # of the characters that it is written with, JSON gives one a meaning
    counts = encode_rle(mask, place, masks.size).replace("\\", "\\\\")
    return f'{{"size":[{masks.size[1]},{masks.size[0]}],"counts":"{counts}"}}'


def _labels_json(labels: Sequence[Label]) -> str:
    """``,"labels":[…]``; nothing where the second stage says nothing."""
    known = ",".join(f'{{"class":{json.dumps(label.name)},"score":{label.score:.3f}}}' for label in labels)
    return f',"labels":[{known}]' if known else ""


def picture_part(segmentation: Segmentation) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """(h, w) uint8: the class map without the letterbox padding; at least one cell."""
    letterbox = segmentation.letterbox
    rows, columns = segmentation.class_map.shape
    cell_x, cell_y = columns / letterbox.model_width, rows / letterbox.model_height
    left = min(round(letterbox.pad_x * cell_x), columns - 1)
    top = min(round(letterbox.pad_y * cell_y), rows - 1)
    right = round((letterbox.pad_x + letterbox.frame_width * letterbox.scale_x) * cell_x)
    bottom = round((letterbox.pad_y + letterbox.frame_height * letterbox.scale_y) * cell_y)
    part: np.ndarray[tuple[int, int], np.dtype[np.uint8]]
    part = segmentation.class_map[top : max(bottom, top + 1), left : max(right, left + 1)]
    return part


def event_json(event: Event) -> str:
    """One event as JSON: kind, time, track and its further facts."""
    facts = {"kind": event.kind, "time_ns": event.time_ns, "track_id": event.track_id, "data": dict(event.data)}
    return _COMPACT.encode(facts)


def _events(events: Sequence[Event]) -> str:
    return ",".join(event_json(event) for event in events)
