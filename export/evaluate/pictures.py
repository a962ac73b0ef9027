"""Pictures of an evaluation: confusion matrix, precision-recall curves, samples with truth next to prediction. H W."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from edge.errors import MissingError
from edge.files import atomic_path
from edge.overlay import Overlay, StreamState, Theme
from edge.packages.installed import add_extra
from edge.types import Classification, Detections, Frame, Letterbox, Prediction, Result, Segmentation, UInt8
from export.data.sample import IGNORE_LABEL, Sample
from export.evaluate.names import match_classes
from export.evaluate.report import Report, share

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# beyond this many classes the numbers in the cells cannot be read
_MAX_NUMBERED = 24
_TILE_WIDTH = 480
_TILE_HEIGHT = 400
_BACKGROUND = 32
_TEXT_HEIGHT = 22


class SampleSheet:
    """Keeps some pictures of an evaluation, evenly spread, and draws them; pass ``add`` as ``on_sample``."""

    def __init__(self, classes: Sequence[str], model_classes: Sequence[str], num_images: int, count: int = 12) -> None:
        match = match_classes(model_classes, classes)
        # both sides speak of one list of classes, so that one thing has one colour
        self._joint = match.to_data.copy()
        self._joint[match.to_data < 0] = len(classes) + np.arange(len(match.only_model))
        names = _padded([*classes, *match.only_model])
        self._truth = Overlay(names, Theme(has_status=False, has_scores=False))
        self._found = Overlay(names, Theme(has_status=False))
        self._num_classes = len(classes)
        self._step = max(1, num_images // count)
        self._count = count
        self._seen = 0
        self._tiles: list[UInt8] = []

    def add(self, sample: Sample, prediction: Prediction) -> None:
        """Take one picture of the evaluation."""
        if self._seen % self._step == 0 and len(self._tiles) < self._count:
            pair = [
                _tile(self._truth, sample.image, truth_of(sample, self._num_classes), f"truth  {sample.image_id}"),
                _tile(self._found, sample.image, self._renamed(prediction), "prediction"),
            ]
            self._tiles.append(np.hstack(pair))
        self._seen += 1

    def _renamed(self, prediction: Prediction) -> Prediction:
        """The prediction in classes of the joint list."""
        if isinstance(prediction, Detections):
            return replace(prediction, class_id=self._joint[np.minimum(prediction.class_id, len(self._joint) - 1)])
        if isinstance(prediction, Segmentation):
            table = np.full(256, IGNORE_LABEL, np.uint8)
            table[: len(self._joint)] = self._joint
            return Segmentation(table[prediction.class_map], prediction.letterbox)
        if isinstance(prediction, Classification):
            score = np.zeros(int(self._joint.max()) + 1, np.float32)
            score[self._joint] = prediction.score
            return Classification(score)
        return prediction

    def write(self, path: Path) -> None:
        """Write the sheet as PNG; nothing if no picture was taken."""
        if self._tiles:
            write_picture(contact_sheet(self._tiles, 2), path)


def _padded(names: Sequence[str]) -> list[str]:
    """The names, and one for the mask value that means unlabelled."""
    return [*names, *(f"class {number}" for number in range(len(names), IGNORE_LABEL)), "unlabelled"]


def truth_of(sample: Sample, num_classes: int) -> Prediction:
    """The labels in the form of a perfect prediction; ignored boxes are left out."""
    height, width = sample.image.shape[:2]
    if sample.mask is not None:
        return Segmentation(sample.mask, Letterbox(1, 1, 0, 0, width, height, width, height))
    if sample.label is not None:
        return Classification(np.eye(num_classes, dtype=np.float32)[sample.label])
    shown = ~sample.ignore
    return Detections(sample.boxes[shown], np.ones(int(shown.sum()), np.float32), sample.labels[shown])


def draw_report(report: Report, folder: Path) -> list[Path]:
    """Write ``confusion.png`` and, for detectors, ``curves.png``.

    Raises:
        MissingError: matplotlib is not installed.
    """
    written = [folder / "confusion.png"]
    _save(_confusion(report), written[0])
    if report.curves:
        written.append(folder / "curves.png")
        _save(_curves(report), written[1])
    return written


def contact_sheet(tiles: Sequence[UInt8], columns: int, min_width: int = 0) -> UInt8:
    """Tiles in rows, each padded to the largest width and height."""
    height = max(tile.shape[0] for tile in tiles)
    width = max(min_width, *(tile.shape[1] for tile in tiles))
    rows = -(-len(tiles) // columns)
    sheet: UInt8 = np.full((rows * height, columns * width, 3), _BACKGROUND, np.uint8)
    for number, tile in enumerate(tiles):
        top, left = number // columns * height, number % columns * width
        sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    return sheet


def write_picture(image: UInt8, path: Path) -> None:
    """Encode by suffix, and write atomically."""
    with atomic_path(path) as temporary:
        cv2.imwrite(str(temporary), image)


def draw_prediction(overlay: Overlay, image: UInt8, prediction: Prediction) -> UInt8:
    """An annotated copy of one picture."""
    frame = Frame("sample", 0, 0, 0, 0, image)
    return overlay.draw(Result(frame, prediction), StreamState(state="ended"))


def _tile(overlay: Overlay, image: UInt8, prediction: Prediction, text: str) -> UInt8:
    # small pictures are enlarged first, so that texts can be read; predictions are moved along by their scale
    scale = min(_TILE_WIDTH / image.shape[1], _TILE_HEIGHT / image.shape[0])
    large = np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
    drawn = draw_prediction(overlay, large, _scaled(prediction, scale, large))
    band = np.full((_TEXT_HEIGHT, drawn.shape[1], 3), _BACKGROUND, np.uint8)
    cv2.putText(band, text, (6, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (230, 230, 230), 1, cv2.LINE_AA)
    tile: UInt8 = np.vstack([band, drawn])
    return contact_sheet([tile], 1, min_width=_TILE_WIDTH)


def _scaled(prediction: Prediction, scale: float, large: UInt8) -> Prediction:
    if isinstance(prediction, Detections):
        return prediction.scaled(scale, (large.shape[1], large.shape[0]))
    if isinstance(prediction, Segmentation):
        box = prediction.letterbox
        moved = Letterbox(
            box.scale_x / scale, box.scale_y / scale, box.pad_x, box.pad_y,
            large.shape[1], large.shape[0], box.model_width, box.model_height,
        )  # fmt: skip
        return Segmentation(prediction.class_map, moved)
    return prediction


def _confusion(report: Report) -> Figure:
    """Rows are the truth; each row sums to 1."""
    counts = report.confusion.astype(np.float64)
    shares = np.nan_to_num(share(counts, counts.sum(axis=1, keepdims=True).repeat(counts.shape[1], axis=1)))
    size = min(24.0, 4 + 0.42 * len(report.classes))
    figure, axis = _axes(size, size)
    picture = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(picture, ax=axis, fraction=0.04, label="share of the true class")
    ticks = range(len(report.classes))
    axis.set_xticks(ticks, report.classes, rotation=90, fontsize=8)
    axis.set_yticks(ticks, report.classes, fontsize=8)
    axis.set_xlabel("predicted")
    axis.set_ylabel("true")
    axis.set_title(f"{report.dataset}, {report.num_images} images", fontsize=10)
    if len(report.classes) <= _MAX_NUMBERED:
        for row, column in zip(*np.nonzero(shares >= 0.005), strict=True):
            ink = "white" if shares[row, column] > 0.5 else "black"
            axis.text(column, row, f"{shares[row, column]:.2f}", ha="center", va="center", fontsize=7, color=ink)
    return figure


def _curves(report: Report) -> Figure:
    """Precision over recall at IoU 0.5, a line per class and a bold mean."""
    figure, axis = _axes(8, 6)
    recall = np.linspace(0, 1, 101)
    for name, precision in report.curves.items():
        label = f"{name} {report.per_class[name]['ap50']:.2f}" if len(report.curves) <= _MAX_NUMBERED else None
        axis.plot(recall, precision, linewidth=1, alpha=0.8, label=label)
    mean = np.mean(list(report.curves.values()), axis=0)
    axis.plot(recall, mean, linewidth=3, color="black", label=f"mean {mean.mean():.3f}")
    axis.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    axis.set_title(f"{report.dataset}, IoU 0.5", fontsize=10)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    try:
        # no pyplot: it keeps figures and looks for a screen
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingError(f"pictures of an evaluation need matplotlib; run: {add_extra('train')}") from None
    figure = Figure(figsize=(width, height))
    return figure, figure.add_subplot()


def _save(figure: Figure, path: Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, bbox_inches="tight")
