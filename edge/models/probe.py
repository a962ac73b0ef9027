"""The proof of a reading: pictures and noise through the model, and whether what comes out can be what it is taken for.

Never whether it is good: untrained networks pass. What cannot be: scores outside 0..1, boxes inside out or far outside
the picture, shares taken for pixels, classes that do not exist, probabilities that do not sum to 1, a model whose
outputs two readings explain alike.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np

from edge.addresses.printable import first_line
from edge.errors import EngineError, ManifestError
from edge.interfaces import Engine, Head
from edge.models.checks import check_outputs
from edge.models.manifest import Manifest, content_hash
from edge.models.preprocess import Preprocessor
from edge.types import Array, Classification, Detections, Float32, Letterbox, Prediction, Segmentation, UInt8

log = logging.getLogger(__name__)
# a change of what is checked makes old proofs worthless
VERSION = 3
STREET = Path(__file__).with_name("probe-street.jpg")
LEAST_SCORE = 0.01
TOLERANCE = 2e-3
UNCOUNTED = "the file does not say how many classes it has; name them: edge inspect MODEL --classes FILE --write"
LEAST_EMBEDDING = 8
LEAST_BOXES = 20
# heads of which --columns may say that a box is no x1 y1 x2 y2
CORNERED = ("end2end", "yolonas", "triple")
# of what a picture gets alone: ranges of INT8 that are found at run time depend on what else is in the batch
MAX_CHANGE = 0.1
# what an untrained network may do whose exporter says what it is: sides of any length and sign
LOOSE_REACH_PIXELS, LOOSE_INSIDE_OUT = 100_000, 0.95
# where only the outputs tell: boxes as far as coarse cells let them, hardly any inside out
STRICT_REACH_PIXELS, STRICT_INSIDE_OUT = 1024, 0.05
# what heads raise when outputs have other shapes than they read
MISFITS = (ValueError, IndexError, KeyError, TypeError, StopIteration, OverflowError, EngineError)

OpenHead: TypeAlias = Callable[[Manifest], Head]


@dataclass(frozen=True, slots=True)
class _Witness(Letterbox):
    """A picture as large as the input that remembers every box before it is cut at the edges."""

    seen: list[Float32] = field(default_factory=list)

    def to_frame(self, xyxy: Float32) -> Float32:
        self.seen.append(np.array(xyxy, np.float32))
        # not super(): a dataclass with slots is made again
        return Letterbox.to_frame(self, xyxy)


def probe_pictures() -> list[UInt8]:
    """Three uint8 BGR pictures: the built-in street with people and cars, noise, a gradient."""
    height, width = 180, 320
    street = cv2.imread(str(STREET))
    noise = np.random.default_rng(11).integers(0, 256, (height, width, 3), np.uint8)
    ramp = np.linspace(0, 255, width, dtype=np.uint8)[None, :, None]
    gradient = np.ascontiguousarray(np.broadcast_to(ramp, (height, width, 3)))
    return [np.asarray(street, np.uint8), noise, gradient]


def proof_of(manifest: Manifest) -> str:
    """What a proof speaks of: the file, and everything that decides how it is read."""
    parts = manifest.model_dump(
        mode="json",
        include={
            *("sha256", "task", "head", "input", "classes", "needs_nms", "has_background", "output", "extra_inputs"),
            *("kpt_shape", "max_batch"),
        },
    )
    return content_hash([VERSION, parts])


def is_proved(manifest: Manifest) -> bool:
    """Whether this very reading of this very file was proved before."""
    return bool(manifest.sha256) and manifest.proof == proof_of(manifest)


def prove(
    readings: Sequence[Manifest],
    flags: Sequence[str],
    engine: Engine,
    where: str,
    open_head: OpenHead,
    *,
    is_certain: bool,
) -> Manifest:
    """The one reading that can be true.

    Args:
        readings: the possible ones, the likeliest first.
        flags: of ``edge inspect``, that choose each of them.
        engine: the loaded model.
        where: file name for messages.
        open_head: makes the head of a manifest.
        is_certain: the file itself says what it is, so that odd boxes are no sign of a wrong reading.

    Raises:
        ManifestError: none can be, or more than one.
        EngineError: the model fails, or gives numbers that are none.
    """
    doubts = [doubt_of(reading, engine, open_head, is_certain=is_certain) for reading in readings]
    true = [number for number, doubt in enumerate(doubts) if doubt is None]
    if len(true) == 1:
        return _with_batch(readings[true[0]], engine, where, open_head)
    if not true:
        reasons = [f"head {one.head!r}: {doubt}" for one, doubt in zip(readings, doubts, strict=True)]
        told = "; ".join(dict.fromkeys(reasons))
        # some say themselves what helps
        helps = "" if "edge inspect" in told else f"; run: edge inspect {where}"
        raise ManifestError(f"{where}: its outputs are not what they were taken for ({told}){helps}")
    choices = " or ".join(dict.fromkeys(flags[number] for number in true))
    raise ManifestError(
        f"{where}: its outputs can be read in {len(true)} ways and nothing tells which is right; run: edge inspect "
        f"{where} --write with {choices}"
    )


def _with_batch(manifest: Manifest, engine: Engine, where: str, open_head: OpenHead) -> Manifest:
    """The manifest; of one picture at a time where the file leaves the batch open but is made for one."""
    if engine.is_fixed_batch or engine.max_batch == 1 or _takes_two(manifest, engine, open_head):
        return manifest
    told = "batch: the file leaves it open, but what it gives for a second picture is wrong; one goes in at a time"
    log.warning("%s: %s", where, told)
    return manifest.model_copy(update={"max_batch": 1, "decided": (*(manifest.decided or ()), told)})


def _takes_two(manifest: Manifest, engine: Engine, open_head: OpenHead) -> bool:
    """Whether the second picture of a batch gets what it gets alone."""
    pictures = probe_pictures()[:2]
    preprocessor = Preprocessor(manifest.input, 2)
    spec = manifest.input
    box = Letterbox(1, 1, 0, 0, spec.width, spec.height, spec.width, spec.height)
    alone = {name: np.array(values) for name, values in engine.infer(preprocessor.images(pictures[1:])[0]).items()}
    try:
        both = {name: np.array(values) for name, values in engine.infer(preprocessor.images(pictures)[0]).items()}
        with np.errstate(all="ignore"):
            found = open_head(manifest).decode(both, [box, box])[1]
            expected = open_head(manifest).decode(alone, [box])[0]
    except MISFITS:
        return False
    if isinstance(found, Detections) and isinstance(expected, Detections) and len(expected) and not len(found):
        return False
    return all(_is_alike(values[0], both[name]) for name, values in alone.items() if values.ndim and len(values) == 1)


def _is_alike(one: Array, both: Array) -> bool:
    """Whether the second row of two has about the numbers of the one, in whatever order."""
    if both.shape != (2, *one.shape):
        return False
    wanted, found = (np.sort(values.astype(np.float64), axis=None) for values in (one, both[1]))
    return float(np.abs(wanted - found).sum()) <= MAX_CHANGE * max(float(np.abs(wanted).sum()), 1e-6)


def doubt_of(manifest: Manifest, engine: Engine, open_head: OpenHead, *, is_certain: bool = False) -> str | None:
    """Why this reading cannot be true, None where nothing speaks against it."""
    low = manifest.thresholds.model_copy(update={"track_score": LEAST_SCORE})
    tried = manifest.model_copy(update={"thresholds": low, "needs_nms": False})
    preprocessor = Preprocessor(manifest.input, engine.max_batch)
    pad_to = engine.max_batch if engine.is_fixed_batch else 0
    boxes: list[Float32] = []
    for picture in probe_pictures():
        tensor, _ = preprocessor.images([picture], pad_to=pad_to)
        outputs = {name: np.array(values) for name, values in engine.infer(tensor).items()}
        check_outputs(outputs)
        doubt = _doubt_of_one(tried, outputs, open_head, boxes)
        if doubt:
            return doubt
    return _doubt_of_boxes(np.concatenate(boxes), manifest, is_certain=is_certain) if boxes else None


def _doubt_of_one(
    manifest: Manifest, outputs: Mapping[str, Array], open_head: OpenHead, boxes: list[Float32]
) -> str | None:
    spec = manifest.input
    witness = _Witness(1, 1, 0, 0, spec.width, spec.height, spec.width, spec.height)
    try:
        head = open_head(manifest)
        doubt = _doubt_of_raw(manifest, head, outputs)
        if doubt:
            return doubt
        # what is wrong shows in the numbers, not in warnings about them
        with np.errstate(all="ignore"):
            predictions = head.decode(outputs, [witness])
    except MISFITS as error:
        return f"the outputs {_shapes(outputs)} do not fit it ({type(error).__name__}: {first_line(error)})"
    boxes += witness.seen
    return _doubt_of_prediction(predictions[0], manifest)


def _doubt_of_raw(manifest: Manifest, head: Head, outputs: Mapping[str, Array]) -> str | None:
    main = _main(manifest, outputs)
    if manifest.head in ("classify", "embedding") and max(main.shape[1:], default=1) != prod(main.shape[1:]):
        return f"its output {_shapes({'of': main})} is no row of numbers"
    if manifest.head == "embedding" and prod(main.shape[1:]) < LEAST_EMBEDDING:
        return f"{prod(main.shape[1:])} numbers are too few for an embedding"
    if manifest.head == "fastestdet" and main.ndim == 4 and float(main[:, 1:5].min()) >= 0:
        return "no box number is below zero, as half of FastestDet's are"
    counted = _num_classes(manifest, outputs)
    if counted is not None and counted != len(manifest.classes):
        return f"the manifest names {len(manifest.classes)} classes, the output has room for {counted}"
    if manifest.head == "semantic" and manifest.reading.activation is None and _are_measures(main):
        return (
            "its numbers are no whole class numbers; if they are probabilities: edge inspect MODEL --head semantic "
            "--activation none --write, if logits: --activation sigmoid"
        )
    if manifest.head in ("yolov8", "yolov5") and not manifest.reading.columns and _are_corners(manifest, main):
        return (
            "of every box the third and fourth number are above the first two, as corners are, not a centre and a "
            "size; if this is right: edge inspect MODEL --columns 'x1 y1 x2 y2' --write"
        )
    scores = getattr(head, "scores", None)
    if scores is not None:
        doubt = _doubt_of_scores(scores(outputs), manifest)
        if doubt:
            return doubt
    labels = getattr(head, "labels", None)
    return _doubt_of_labels(labels(outputs), scores(outputs), manifest) if labels is not None and scores else None


def _are_measures(main: Array) -> bool:
    """Whether one number for each cell, (N, h, w) or with an axis of one, is no number of a class."""
    is_one = main.ndim == 3 or 1 in (main.shape[1], main.shape[-1])
    return is_one and main.dtype.kind == "f" and (float(main.min()) < 0 or bool((main != np.rint(main)).any()))


def _are_corners(manifest: Manifest, main: Array) -> bool:
    """Whether no box of (N, M, A), or rows (N, A, M), can be a centre and a size: at the far edges they are smaller."""
    is_upright = manifest.head == "yolov8" and main.shape[1] < main.shape[2]
    boxes = main[0].T if is_upright else main[0]
    return len(boxes) >= LEAST_BOXES and bool((boxes[:, 2:4] > boxes[:, :2]).all())


def _doubt_of_scores(scores: Float32, manifest: Manifest) -> str | None:
    if not manifest.classes and manifest.head in ("triple", "end2end"):
        return UNCOUNTED
    if not scores.size:
        return "there is no score" if not manifest.classes else None
    least, most = float(scores.min()), float(scores.max())
    # lists are padded with zeros, and some with -1
    floor = -1.0 if manifest.head in ("triple", "end2end") else 0.0
    if not (least >= floor - TOLERANCE and most <= 1 + TOLERANCE):
        return f"scores go from {least:.3g} to {most:.3g}, expected 0 to 1"
    if manifest.head == "ssd" and manifest.has_background and len(manifest.classes) > 1:
        total = scores.sum(-1)
        if float(total.max()) > 1 + 10 * TOLERANCE:
            return f"probabilities of one box sum to {float(total.max()):.3g}"
    if manifest.head == "yolonas" and scores.shape[-1] > 1 and bool((np.abs(scores.sum(-1) - 1) < TOLERANCE).all()):
        return "the scores of each box sum to 1, as a softmax's with a background do"
    return None


def _doubt_of_labels(labels: Array, scores: Float32, manifest: Manifest) -> str | None:
    """Class numbers are whole and among the classes, where there is an object."""
    real = labels.astype(np.float64)[np.broadcast_to(scores >= LEAST_SCORE, labels.shape)]
    if not real.size:
        return None
    if float(np.abs(real - np.rint(real)).max()) > TOLERANCE:
        return f"class numbers like {float(real[np.abs(real - np.rint(real)).argmax()]):.3g}, expected whole ones"
    first = manifest.reading.first_class
    if real.min() < first or real.max() >= first + len(manifest.classes):
        last = first + len(manifest.classes) - 1
        return f"classes from {int(real.min())} to {int(real.max())}, expected {first} to {last}"
    return None


def _doubt_of_prediction(prediction: Prediction, manifest: Manifest) -> str | None:
    match prediction:
        case Detections():
            if len(prediction) and not bool(np.isfinite(prediction.score).all()):
                return "scores are not finite"
            if len(prediction) and int(prediction.class_id.max()) >= len(manifest.classes):
                return f"a class {int(prediction.class_id.max())} where {len(manifest.classes)} are named"
        case Segmentation():
            height, width = prediction.class_map.shape
            if int(prediction.class_map.max()) >= len(manifest.classes):
                return f"a class {int(prediction.class_map.max())} where {len(manifest.classes)} are named"
            if not _covers(height, width, manifest):
                return f"a map of {width}x{height} cells does not cover {manifest.input.width}x{manifest.input.height}"
        case Classification():
            least, most = float(prediction.score.min()), float(prediction.score.max())
            if not (least >= -TOLERANCE and most <= 1 + TOLERANCE):
                return f"scores go from {least:.3g} to {most:.3g}, expected 0 to 1"
        case _:
            return None if bool(np.isfinite(prediction.vector).all()) else "the vector is not finite"
    return None


def _covers(height: int, width: int, manifest: Manifest) -> bool:
    down, across = manifest.input.height / height, manifest.input.width / width
    return down >= 1 and across >= 1 and abs(down / across - 1) < 0.1


def _doubt_of_boxes(boxes: Float32, manifest: Manifest, *, is_certain: bool) -> str | None:
    """Of boxes ``x1 y1 x2 y2`` in model pixels, not cut at the edges."""
    if not len(boxes):
        return None
    if not bool(np.isfinite(boxes).all()):
        return "boxes are not finite"
    reach = 2 * max(manifest.input.width, manifest.input.height)
    reach += LOOSE_REACH_PIXELS if is_certain else STRICT_REACH_PIXELS
    far = float(np.abs(boxes).max())
    if far > reach:
        size = f"{manifest.input.width}x{manifest.input.height}"
        return f"boxes reach {far:.3g} pixels from the corner of a picture of {size}"
    real = boxes[np.abs(boxes).max(1) > 0]
    if not len(real):
        return None
    inside_out = float(((real[:, 2] < real[:, 0]) | (real[:, 3] < real[:, 1])).mean())
    if inside_out > (LOOSE_INSIDE_OUT if is_certain else STRICT_INSIDE_OUT):
        helps = "; if they are no corners: edge inspect MODEL --columns 'cx cy w h …' --write"
        return f"{inside_out:.0%} of the boxes are inside out{helps if manifest.head in CORNERED else ''}"
    if float(np.abs(real).max()) < 2:
        return "boxes are shares of the picture, not pixels; if this is right: edge inspect MODEL --unit share --write"
    return None


def _num_classes(manifest: Manifest, outputs: Mapping[str, Array]) -> int | None:
    """How many classes the outputs have room for in this reading; None where they do not tell."""
    shape = tuple(int(size) for size in _main(manifest, outputs).shape)
    match manifest.head:
        case "yolov8":
            extra = _num_extra(manifest, outputs)
            rows = 4 + len(manifest.classes) + extra
            return None if len(shape) == 3 and rows in shape[1:] else max(0, (shape[1] if len(shape) > 1 else 4) - 4)
        case "yolov5" | "yolox":
            return shape[-1] - 5
        case "nanodet" | "nanodetplus" | "picodet" if len(outputs) == 1:
            return shape[-1] - 32
        case "fastestdet":
            return shape[1] - 5
        case "classify":
            return prod(shape[1:]) - manifest.has_background
        case "semantic" if len(shape) == 4 and 1 not in (shape[1], shape[3]):
            return None if len(manifest.classes) in (shape[1], shape[3]) else shape[1]
        case "end2end":
            return None if shape[-1] >= len((manifest.reading.columns or "x1 y1 x2 y2 score class").split()) else 0
        case _:
            return _num_paired(manifest, outputs)


def _num_paired(manifest: Manifest, outputs: Mapping[str, Array]) -> int | None:
    if manifest.head not in ("detr", "ssd", "yolonas"):
        return None
    boxes = next((values for values in outputs.values() if values.ndim == 3 and values.shape[-1] == 4), None)
    named = manifest.reading.names.get("scores", "scores")
    values = outputs[named] if named in outputs else next((one for one in outputs.values() if one is not boxes), None)
    if boxes is None or values is None or values.ndim != 3:
        return 0
    is_turned = values.shape[1] != boxes.shape[1] and values.shape[2] == boxes.shape[1]
    background = manifest.has_background or manifest.reading.background is not None
    return int(values.shape[1 if is_turned else 2]) - background


def _num_extra(manifest: Manifest, outputs: Mapping[str, Array]) -> int:
    """Numbers behind the classes: key points, or coefficients of as many mask prototypes as another output has."""
    if manifest.kpt_shape:
        return manifest.kpt_shape[0] * manifest.kpt_shape[1]
    return next((values.shape[1] for values in outputs.values() if values.ndim == 4), 0)


def _main(manifest: Manifest, outputs: Mapping[str, Array]) -> Array:
    name = manifest.reading.names.get("main", "main")
    return outputs[name] if name in outputs else next(iter(outputs.values()))


def _shapes(outputs: Mapping[str, Array]) -> str:
    texts = [f"{name} {'x'.join(str(size) for size in values.shape)}" for name, values in outputs.items()]
    return ", ".join(itertools.islice(texts, 8))
