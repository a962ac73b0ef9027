"""The review sheet of a teacher: what it labelled, the least certain pictures first. H W picture pixels."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from edge.overlay import Overlay, Theme
from edge.types import Detections, UInt8
from export.data.sample import Dataset, Sample
from export.evaluate.pictures import contact_sheet, draw_prediction, write_picture

_COLUMNS, _ROWS = 4, 5
_TILE_SIZE = (480, 300)
_BAND_HEIGHT = 20
_DOUBTFUL = (170, 170, 170)


def write_sheets(dataset: Dataset, folder: Path, max_pages: int = 10) -> list[Path]:
    """Write ``review-01.png`` …: labels in colour with their scores, ignored boxes thin and grey.

    Args:
        dataset: the labels that were made; their weights are the teacher's scores.
        folder: where the pages go; pages of an earlier run are replaced.
        max_pages: the most certain pictures beyond them are left out.
    """
    for old in folder.glob("review-*.png"):
        old.unlink()
    overlay = Overlay(dataset.classes, Theme(has_status=False, score=0.0))
    certainties = [_certainty(dataset, index) for index in range(len(dataset))]
    order = np.argsort(np.array(certainties), kind="stable")[: max_pages * _COLUMNS * _ROWS]
    written: list[Path] = []
    for start in range(0, len(order), _COLUMNS * _ROWS):
        page = order[start : start + _COLUMNS * _ROWS]
        tiles = [_tile(overlay, dataset[int(index)]) for index in page]
        written.append(folder / f"review-{len(written) + 1:02d}.png")
        write_picture(contact_sheet(tiles, _COLUMNS), written[-1])
    return written


def _certainty(dataset: Dataset, index: int) -> float:
    """The lowest score of a label; pictures without labels come last."""
    sample = dataset[index]
    return min(sample.weight[~sample.ignore].tolist(), default=2.0)


def _tile(overlay: Overlay, sample: Sample) -> UInt8:
    height, width = sample.image.shape[:2]
    scale = min(_TILE_SIZE[0] / width, (_TILE_SIZE[1] - _BAND_HEIGHT) / height)
    small = np.asarray(cv2.resize(sample.image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
    boxes = sample.boxes * np.float32(scale)
    for box in np.rint(boxes[sample.ignore]).astype(int).tolist():
        cv2.rectangle(small, box[:2], box[2:], _DOUBTFUL, 1)
    sure = ~sample.ignore
    drawn = draw_prediction(overlay, small, Detections(boxes[sure], sample.weight[sure], sample.labels[sure]))
    tile: UInt8 = np.full((_TILE_SIZE[1], _TILE_SIZE[0], 3), 32, np.uint8)
    tile[_BAND_HEIGHT : _BAND_HEIGHT + drawn.shape[0], : drawn.shape[1]] = drawn
    cv2.putText(tile, sample.image_id, (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (230, 230, 230), 1, cv2.LINE_AA)
    return tile
