"""What every model's output must be: finite numbers, scores from 0 to 1, classes that have a name."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edge.errors import EngineError
from edge.types import Array, Classification, Detections, Float32, Int32, Prediction, Segmentation


def check_sane(prediction: Prediction, num_classes: int) -> None:
    """Refuse what no model may say.

    Raises:
        EngineError: numbers that are none, scores outside 0..1, classes that do not exist, boxes inside out.
    """
    match prediction:
        case Detections():
            _check_finite("boxes", prediction.xyxy)
            _check_scores(prediction.score)
            _check_classes(prediction.class_id, num_classes)
            if bool((prediction.xyxy[:, 2:] < prediction.xyxy[:, :2]).any()):
                raise EngineError("a box has its right edge left of its left one")
        case Segmentation():
            _check_classes(prediction.class_map.reshape(-1).astype(np.int32), num_classes)
        case Classification():
            _check_scores(prediction.score)
            if len(prediction.score) != num_classes:
                raise EngineError(f"expected {num_classes} scores, found {len(prediction.score)}")
        case _:
            _check_finite("vector", prediction.vector)


def check_outputs(outputs: Mapping[str, Array]) -> None:
    """Refuse raw outputs that are no numbers; a head may leave them out unseen.

    Raises:
        EngineError: NaN or infinity.
    """
    for name, values in outputs.items():
        if values.dtype.kind == "f" and not bool(np.isfinite(values).all()):
            raise EngineError(f"output {name!r} is not finite; was FP16 too narrow for it?")


def _check_finite(name: str, values: Float32) -> None:
    if not bool(np.isfinite(values).all()):
        raise EngineError(f"{name} are not finite")


def _check_scores(score: Float32) -> None:
    _check_finite("scores", score)
    if len(score) and (float(score.min()) < -1e-3 or float(score.max()) > 1 + 1e-3):
        raise EngineError(f"scores go from {score.min():.3g} to {score.max():.3g}, expected 0 to 1")


def _check_classes(class_id: Int32, num_classes: int) -> None:
    if len(class_id) and not 0 <= int(class_id.min()) <= int(class_id.max()) < num_classes:
        raise EngineError(f"class {int(class_id.max())} is not among the {num_classes} of the manifest")
