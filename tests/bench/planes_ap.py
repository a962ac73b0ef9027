"""Whether a model sees in planes of luma and chroma what it sees in BGR: average precision of both, on one data set.

    python tests/bench/planes_ap.py MODEL.onnx DATA [--matrix bt709] [--scale 3]

Every picture is made so many times larger, as cameras give more pixels than models take, and then 4:2:0 planes. The
model sees these, and their BGR as FFmpeg makes it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import av
import cv2
import numpy as np

from edge.model import open_model
from edge.pictures.frames import MATRICES, planes_of
from edge.pictures.planes import Matrix, Planes
from edge.types import Detections, Prediction, UInt8
from export.data.open_data import open_dataset
from export.evaluate.evaluate import EVAL_SCORE, evaluate

NAMES: dict[Matrix, str] = {"bt601": "ITU601", "bt709": "ITU709", "bt2020": "BT2020"}
NUMBERS = {matrix: number for number, matrix in MATRICES.items() if number != 2}


def as_planes(image: UInt8, matrix: Matrix) -> Planes:
    """4:2:0 planes in limited range of an (H, W, 3) BGR picture; an odd side is repeated by a pixel."""
    even = cv2.copyMakeBorder(image, 0, image.shape[0] % 2, 0, image.shape[1] % 2, cv2.BORDER_REPLICATE)
    frame = av.VideoFrame.from_ndarray(even, format="bgr24").reformat(format="yuv420p", dst_colorspace=NAMES[matrix])
    frame.colorspace = NUMBERS[matrix]
    return planes_of(frame).cut(0, 0, image.shape[1], image.shape[0])


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data")
    parser.add_argument("--matrix", choices=sorted(NAMES), default="bt709")
    parser.add_argument("--scale", type=int, default=3)
    chosen = parser.parse_args()
    dataset = open_dataset(chosen.data)
    model = open_model(chosen.model, engine="ort", score=EVAL_SCORE, max_batch=8)

    def seen(images: Sequence[UInt8], is_bgr: bool) -> list[Prediction]:
        large = [
            cv2.resize(image, None, fx=chosen.scale, fy=chosen.scale, interpolation=cv2.INTER_CUBIC) for image in images
        ]
        planes = [as_planes(np.asarray(image, np.uint8), chosen.matrix) for image in large]
        found = model.predict([one.bgr if is_bgr else one for one in planes])
        sizes = [(image.shape[1], image.shape[0]) for image in images]
        pairs = zip(found, sizes, strict=True)
        return [one.scaled(1 / chosen.scale, size) if isinstance(one, Detections) else one for one, size in pairs]

    print("| the model sees | mAP | AP50 |\n|---|---|---|")
    for name, is_bgr in (("planes", False), ("their BGR", True)):
        report = evaluate(partial(seen, is_bgr=is_bgr), dataset, classes=model.manifest.classes)
        print(f"| {name} | {report.metrics['map']:.4f} | {report.metrics['map50']:.4f} |", flush=True)
    model.close()


if __name__ == "__main__":
    main()
