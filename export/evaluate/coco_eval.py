"""COCO's own evaluation, run quietly on rows that were never in a file."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any, Literal

from edge.errors import MissingError
from edge.packages.installed import add_extra
from edge.types import Float32, Float64

Row = dict[str, Any]


def run_coco(
    kind: Literal["bbox", "segm", "keypoints"],
    truth: Sequence[Row],
    found: Sequence[Row],
    images: Sequence[Row],
    judged: Sequence[int],
    sigmas: Float64 | None = None,
) -> Any:
    """A finished ``COCOeval``.

    Args:
        kind: what overlaps are measured of.
        truth: annotations.
        found: detections, with their areas.
        images: those that were judged.
        judged: category ids.
        sigmas: (K,) how far apart people set each key point; COCO's own if None.

    Raises:
        MissingError: pycocotools is not installed.
    """
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError:
        raise MissingError(f"judging a detector needs pycocotools; run: {add_extra('train')}") from None
    categories = [{"id": label} for label in judged]
    # it prints, which is silenced
    with contextlib.redirect_stdout(io.StringIO()):
        expected, actual = COCO(), COCO()
        expected.dataset = {"images": images, "categories": categories, "annotations": truth}
        expected.createIndex()
        rows = [{**row, "id": number, "iscrowd": 0} for number, row in enumerate(found, start=1)]
        actual.dataset = {"images": images, "categories": categories, "annotations": rows}
        actual.createIndex()
        judge = COCOeval(expected, actual, kind)
        if sigmas is not None:
            judge.params.kpt_oks_sigmas = sigmas
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return judge


def xywh(box: Float32) -> list[float]:
    """A box as COCO writes it."""
    x1, y1, x2, y2 = (float(value) for value in box)
    return [x1, y1, x2 - x1, y2 - y1]


def known(value: float) -> float:
    """COCOeval writes -1 where there was nothing to measure."""
    return float(value) if value > -1 else float("nan")
