"""Pictures of a training: curves, the first batch as the network sees it, and sample predictions. h w pixels."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from edge.files import atomic_path, write_atomic
from edge.masks import mask_of
from edge.overlay.shapes import draw_figure, tint_mask
from edge.types import Classification, Detections, Float32, Int32, Prediction, Segmentation, UInt8
from export.data.loader import BatchSamples
from export.data.sample import IGNORE_LABEL
from export.training.logs import Row

THUMB_WIDTH = 384
MAX_TILES = 12
SHOWN_SCORE = 0.35


def draw_curves(history: Sequence[Row], path: Path) -> None:
    """Losses, learning rate and metrics over epochs, one small plot each."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    names = [name for name in dict.fromkeys(name for row in history for name in row) if name not in {"epoch"}]
    columns = 4
    figure, axes = plt.subplots(-(-len(names) // columns), columns, figsize=(14, 2.6 * -(-len(names) // columns)))
    for axis in np.ravel(axes)[len(names) :]:
        axis.axis("off")
    for axis, name in zip(np.ravel(axes), names, strict=False):
        points = [(row["epoch"], row[name]) for row in history if name in row]
        axis.plot(*zip(*points, strict=True), marker="." if len(points) < 30 else None)
        axis.set_title(name, fontsize=9)
        axis.grid(alpha=0.3)
    figure.tight_layout()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=90)
    plt.close(figure)


def draw_batch(batch: BatchSamples, classes: Sequence[str], path: Path) -> None:
    """The batch with its labels, after augmentation: the quickest way to see what is wrong with data."""
    tiles = []
    for row, image in enumerate(batch.images[:MAX_TILES]):
        # a copy: the batch is trained on afterwards
        tile = image.copy()
        if batch.masks is not None:
            tile = _paint_classes(tile, batch.masks[row])
        elif batch.label is not None:
            tile = _with_text(_thumb(tile), _label_text(batch, row, classes))
        else:
            texts = [
                classes[label] + (" ignored" if skip else "")
                for label, skip in zip(batch.labels[row], batch.ignore[row], strict=True)
            ]
            tile = _draw_boxes(_with_instances(tile, batch, row), batch.boxes[row], batch.labels[row], texts)
        tiles.append(_thumb(tile))
    _write(_sheet(tiles), path)


def _with_instances(tile: UInt8, batch: BatchSamples, row: int) -> UInt8:
    """Masks, and seen key points with a dot; what a mirror image calls left is left."""
    height, width = tile.shape[:2]
    for number, label in enumerate(batch.labels[row].tolist()):
        if batch.owner is not None:
            mine = (batch.owner[row] == number).view(np.uint8)
            tint_mask(tile, mine, (0, 0, width, height), _colour(label))
        if batch.points is not None:
            points = batch.points[row][number] - np.array([0, 0, 1], np.float32)
            draw_figure(tile, points, (), _colour(label), 1)
    return tile


def _label_text(batch: BatchSamples, row: int, classes: Sequence[str]) -> str:
    """The class of a picture, or of the two that it is mixed of with the first one's share."""
    assert batch.label is not None
    name = classes[int(batch.label[row])]
    if batch.second_label is None or batch.label_share is None or batch.label_share[row] == 1:
        return name
    return f"{name} {batch.label_share[row]:.2f} + {classes[int(batch.second_label[row])]}"


def draw_predictions(
    images: Sequence[UInt8], predictions: Sequence[Prediction], classes: Sequence[str], path: Path
) -> None:
    """What the network says about some pictures."""
    tiles = [
        _thumb(_drawn(_thumb(image), image, prediction, classes))
        for image, prediction in zip(images[:MAX_TILES], predictions, strict=False)
    ]
    _write(_sheet(tiles), path)


def _drawn(tile: UInt8, image: UInt8, prediction: Prediction, classes: Sequence[str]) -> UInt8:
    if isinstance(prediction, Detections):
        shown = prediction[prediction.score >= SHOWN_SCORE]
        texts = [f"{classes[label]} {score:.2f}" for label, score in zip(shown.class_id, shown.score, strict=True)]
        scale = np.float32(tile.shape[1] / image.shape[1])
        beside = shown.scaled(float(scale), (tile.shape[1], tile.shape[0]))
        for number, label in enumerate(shown.class_id.tolist()):
            if beside.masks is not None:
                tint_mask(tile, *mask_of(beside.masks, number), _colour(label))
            if beside.keypoints is not None:
                draw_figure(tile, beside.keypoints[number], (), _colour(label), 1)
        return _draw_boxes(tile, shown.xyxy * scale, shown.class_id, texts)
    if isinstance(prediction, Segmentation):
        return _paint_classes(tile, _grid_to_frame(prediction, tile.shape[1], tile.shape[0]))
    if isinstance(prediction, Classification):
        best = int(prediction.score.argmax())
        return _with_text(tile, f"{classes[best]} {prediction.score[best]:.2f}")
    return tile


def _grid_to_frame(prediction: Segmentation, width: int, height: int) -> UInt8:
    """The class map without the letterbox's padding, at this size."""
    box = prediction.letterbox
    left, top = round(box.pad_x), round(box.pad_y)
    right = left + max(1, round(box.frame_width * box.scale_x))
    bottom = top + max(1, round(box.frame_height * box.scale_y))
    part = np.ascontiguousarray(prediction.class_map[top:bottom, left:right])
    grown: UInt8 = cv2.resize(part, (width, height), interpolation=cv2.INTER_NEAREST).astype(np.uint8)
    return grown


def _colour(class_id: int) -> tuple[int, int, int]:
    """BGR; neighbouring ids look different (golden-ratio hues)."""
    red, green, blue = colorsys.hsv_to_rgb((class_id * 0.618) % 1, 0.75, 1.0)
    return int(blue * 255), int(green * 255), int(red * 255)


def _draw_boxes(tile: UInt8, boxes: Float32, labels: Int32, texts: Sequence[str]) -> UInt8:
    for box, label, text in zip(boxes, labels, texts, strict=True):
        x1, y1, x2, y2 = (round(float(value)) for value in box)
        cv2.rectangle(tile, (x1, y1), (x2, y2), _colour(int(label)), 1)
        cv2.putText(
            tile, text, (x1, max(8, y1 - 2)), cv2.FONT_HERSHEY_SIMPLEX, 0.32, _colour(int(label)), 1, cv2.LINE_AA
        )
    return tile


def _paint_classes(tile: UInt8, mask: UInt8) -> UInt8:
    palette = np.array([_colour(class_id) for class_id in range(256)], np.uint8)
    mixed: UInt8 = cv2.addWeighted(tile, 0.5, palette[mask], 0.5, 0).astype(np.uint8)
    mixed[mask == IGNORE_LABEL] = tile[mask == IGNORE_LABEL]
    return mixed


def _with_text(tile: UInt8, text: str) -> UInt8:
    cv2.putText(tile, text, (4, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 2, cv2.LINE_AA)
    cv2.putText(tile, text, (4, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return tile


def _thumb(image: UInt8) -> UInt8:
    if image.shape[1] == THUMB_WIDTH:
        same: UInt8 = image.copy()
        return same
    height = max(1, round(image.shape[0] * THUMB_WIDTH / image.shape[1]))
    small: UInt8 = cv2.resize(image, (THUMB_WIDTH, height), interpolation=cv2.INTER_AREA).astype(np.uint8)
    return small


def _sheet(tiles: Sequence[UInt8]) -> UInt8:
    """Tiles in rows of three."""
    height = max(tile.shape[0] for tile in tiles)
    rows = -(-len(tiles) // 3)
    sheet = np.zeros((rows * height, 3 * THUMB_WIDTH, 3), np.uint8)
    for number, tile in enumerate(tiles):
        top, left = number // 3 * height, number % 3 * THUMB_WIDTH
        sheet[top : top + tile.shape[0], left : left + THUMB_WIDTH] = tile
    return sheet


def _write(sheet: UInt8, path: Path) -> None:
    done, data = cv2.imencode(path.suffix, sheet)
    assert done
    write_atomic(path, data.tobytes())
