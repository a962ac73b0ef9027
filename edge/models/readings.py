"""What the outputs of a graph may mean: the possible readings, the likeliest first, each with its reason.

Evidence, strongest first: the exporter's own words, names of outputs, operators at the end of the graph, shapes. What
is left in doubt is decided by the probe (``edge.models.probe``), or refused. N batch, A anchors, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from edge.errors import ManifestError
from edge.interfaces import TensorInfo
from edge.models.exporter import Companion, Exported
from edge.models.manifest import HeadName, OutputSpec
from edge.models.onnx_graph import GraphFacts, Part

NANODET_BINS = 32
# feature maps that families use, in model pixels
STRIDE_SETS = ((8, 16, 32), (8, 16, 32, 64), (4, 8, 16, 32), (4, 8, 16, 32, 64), (8, 16, 32, 64, 128), (16, 32))
YOLO_STRIDES = STRIDE_SETS[0]
MAX_LISTED = 1000
# Ultralytics' task → head of the raw outputs, head of the listed objects
TASK_HEADS: dict[str, tuple[HeadName, HeadName]] = {
    "detect": ("yolov8", "end2end"),
    "segment": ("yolov8-seg", "end2end-seg"),
    "pose": ("yolov8-pose", "end2end-pose"),
    "obb": ("yolov8-obb", "end2end-obb"),
}
NO_POINTS = "; its boxes are read, its key points are not"
SCORE_WORDS = ("logit", "prob", "class", "score")
EMBEDDING_SIZES = (64, 96, 128, 192, 256, 384, 512, 640, 768, 1024, 1280, 1536, 2048)
Shape = tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """One way to read the outputs.

    Attributes:
        head: the head.
        because: the evidence, a sentence.
        num_classes: how many the outputs have room for, None where they do not tell.
        family: how such models were trained, a key of ``edge.models.habits``.
        output: what the head must know.
        is_certain: nothing else comes into question.
        needs_nms: overlapping boxes of one object come out.
        has_background: of a classifier or SSD, the first class means none.
        kpt_shape: of models with key points.
        keypoints: their names, where the file has them.
        flags: of ``edge inspect``, that choose this reading.
    """

    head: HeadName
    because: str
    num_classes: int | None
    family: str
    output: OutputSpec | None = None
    is_certain: bool = True
    needs_nms: bool = True
    has_background: bool = False
    kpt_shape: tuple[int, int] | None = None
    keypoints: tuple[str, ...] | None = None
    flags: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is known before the model runs. Attributes: ``size`` is width and height of the input."""

    name: str
    graph: GraphFacts
    size: tuple[int, int]
    layout: str
    exported: Exported | None
    companion: Companion
    hint: str

    @property
    def outputs(self) -> Sequence[TensorInfo]:
        return self.graph.outputs

    def parts(self, tensor: TensorInfo, width: int | None) -> tuple[Part, ...]:
        return self.graph.ends[tensor.name].parts(width)


def possible_readings(evidence: Evidence) -> list[Reading]:
    """The readings that come into question, the likeliest first; none where nothing fits.

    Raises:
        ManifestError: what the model is, is known, and it is nothing that can be run.
    """
    if evidence.exported is not None:
        return [_ultralytics(evidence, evidence.exported)]
    for recognise in (_by_names, _maps, _strides, _pairs, _masks, _single):
        found = recognise(evidence)
        if found:
            return found
    return []


def num_cells(size: tuple[int, int], strides: tuple[int, ...]) -> int:
    """Anchors of feature maps with these strides."""
    return sum(-(-size[0] // stride) * -(-size[1] // stride) for stride in strides)


def strides_of(num: int | None, size: tuple[int, int]) -> tuple[int, ...]:
    """The feature maps that have this many cells; empty where none have."""
    return next((strides for strides in STRIDE_SETS if num and num_cells(size, strides) == num), ())


# --- Ultralytics: the file says what it is


def _ultralytics(evidence: Evidence, exported: Exported) -> Reading:
    source = f"Ultralytics {exported.version}".strip() + f" says task {exported.task}"
    num, main = len(exported.names), evidence.outputs[0]
    if exported.task == "classify":
        return Reading("classify", source, num, "ultralytics-classify", OutputSpec(activation="none"))
    if exported.task not in TASK_HEADS:
        raise ManifestError(
            f"{evidence.name}: {source}, which no head reads; {', '.join(TASK_HEADS)}, classify can be read"
        )
    if len(main.shape) != 3:
        raise ManifestError(f"{evidence.name}: {source}, but its first output is {shape_text(main)}, expected 3 axes")
    if exported.head == "RTDETRDecoder" or "rtdetr" in exported.head.lower():
        return _ultralytics_detr(source, num, main)
    extra = _num_beside(evidence, exported)
    raw, listed = TASK_HEADS[exported.task]
    # older versions do not say that they have put NMS in
    has_few_rows = main.shape[2] == 6 + extra and main.shape[1] is not None and main.shape[1] <= MAX_LISTED
    if (exported.is_listed and _fits(main.shape[2], 6 + extra)) or has_few_rows:
        because = f"{source}, objects listed in the graph"
        found = Reading(listed, because, num, "yolov8", needs_nms=False, kpt_shape=exported.kpt_shape)
        return replace(found, keypoints=exported.kpt_names or None)
    if _fits(main.shape[1], 4 + num + extra):
        found = Reading(raw, source, num, "yolov8", kpt_shape=exported.kpt_shape)
        return replace(found, keypoints=exported.kpt_names or None)
    raise ManifestError(
        f"{evidence.name}: {source} with {num} class names, but its output is {shape_text(main)}, expected "
        f"{4 + num + extra} rows or {6 + extra} columns; export it again"
    )


def _num_beside(evidence: Evidence, exported: Exported) -> int:
    """Numbers that stand beside the box and the classes of an object."""
    match exported.task:
        case "pose" if exported.kpt_shape:
            return exported.kpt_shape[0] * exported.kpt_shape[1]
        case "segment":
            maps = next((tensor for tensor in evidence.outputs if len(tensor.shape) == 4), None)
            return (maps.shape[1] if maps is not None else None) or 32
        case "obb":
            return 1
    return 0


def _ultralytics_detr(source: str, num: int, main: TensorInfo) -> Reading:
    because = f"{source} by RT-DETR"
    if _fits(main.shape[2], 6) and num != 2:
        reading = OutputSpec(columns="cx cy w h score class", unit="share")
        return Reading("end2end", because, num, "ultralytics-detr", reading, needs_nms=False)
    reading = OutputSpec(unit="share")
    return Reading("yolov8", because, num, "ultralytics-detr", reading, needs_nms=False)


def _fits(size: int | None, wanted: int) -> bool:
    return size is None or size == wanted


# --- outputs whose names tell


def _by_names(evidence: Evidence) -> list[Reading]:
    names = {tensor.name.lower(): tensor.name for tensor in evidence.outputs}
    shapes = {tensor.name: tensor.shape for tensor in evidence.outputs}
    if "dets" in names and "labels" in names:
        return [_rf_detr(names, shapes)]
    if {"boxes", "scores", "labels"} <= set(names):
        return [_own_or_listed(evidence, names, shapes)]
    tensorflow = {"detection_boxes", "detection_scores", "detection_classes"} <= set(names)
    if tensorflow:
        return [_tensorflow(names, shapes)]
    return _nms_plugin(evidence, names)


def _rf_detr(names: dict[str, str], shapes: dict[str, Shape]) -> Reading:
    roles = {"boxes": names["dets"], "scores": names["labels"]}
    roles |= {"masks": names["masks"]} if "masks" in names else {}
    reading = OutputSpec(names=roles, activation="sigmoid")
    rest = NO_POINTS if "keypoints" in names else ""
    because = f"outputs dets and labels are RF-DETR's{rest}"
    return Reading("detr", because, shapes[names["labels"]][-1], "rf-detr", reading, needs_nms=False)


def _own_or_listed(evidence: Evidence, names: dict[str, str], shapes: dict[str, Shape]) -> Reading:
    roles = {role: names[role] for role in ("boxes", "scores", "labels")}
    width = evidence.graph.ends[names["scores"]].class_width
    if len(evidence.graph.inputs) > 1:
        because = "labels, boxes, scores and a second input for the size are the official RT-DETR's, D-FINE's, DEIM's"
        return Reading("triple", because, width, "detr", OutputSpec(names=roles), needs_nms=False)
    if len(shapes[names["boxes"]]) == 2:
        because = "outputs boxes, scores, labels without a batch are torchvision's, class 0 the background"
        return Reading("triple", because, None, "torchvision", OutputSpec(names=roles, first_class=1), needs_nms=False)
    return Reading("edgenet", "outputs boxes, scores, labels", width, "edgenet", needs_nms=False)


def _tensorflow(names: dict[str, str], shapes: dict[str, Shape]) -> Reading:
    roles = {role: names[f"detection_{word}"] for role, word in _TF_ROLES.items()}
    count = {"count": names["num_detections"]} if "num_detections" in names else {}
    reading = OutputSpec(names=roles | count, columns="y1 x1 y2 x2", unit="share", first_class=1)
    raw = names.get("raw_detection_scores")
    num = (shapes[raw][-1] or 1) - 1 if raw else None
    return Reading(
        "triple", "outputs are TensorFlow's object detection API's", num, "tensorflow", reading, needs_nms=False
    )


_TF_ROLES = {"boxes": "boxes", "scores": "scores", "labels": "classes"}


def _nms_plugin(evidence: Evidence, names: dict[str, str]) -> list[Reading]:
    count = next((name for key, name in names.items() if key.startswith("num_det")), None)
    roles = {
        role: next((name for key, name in names.items() if part in key and not key.startswith("num")), None)
        for role, part in (("boxes", "box"), ("scores", "score"), ("labels", "class"))
    }
    roles["labels"] = roles["labels"] or next((name for key, name in names.items() if "label" in key), None)
    if count is None or None in roles.values():
        return []
    chosen = {role: name for role, name in roles.items() if name is not None}
    num = evidence.graph.ends[chosen["scores"]].class_width
    reading = OutputSpec(names=chosen | {"count": count})
    because = f"outputs {count}, {', '.join(chosen.values())} are those of an NMS in the graph (EfficientNMS)"
    return [Reading("triple", because, num, "yolov8", reading, needs_nms=False)]


# --- several outputs


def _maps(evidence: Evidence) -> list[Reading]:
    """CenterNet: a heat map per class and two maps of two numbers."""
    tensors = [tensor for tensor in evidence.outputs if len(tensor.shape) == 4]
    if len(tensors) != 3 or len(evidence.outputs) != 3 or len({tensor.shape[2:] for tensor in tensors}) != 1:
        return []
    two = [tensor for tensor in tensors if tensor.shape[1] == 2]
    heat = [tensor for tensor in tensors if tensor not in two]
    offset = [tensor for tensor in two if tensor.name.lower().startswith(("reg", "off"))]
    if len(two) != 2 or len(heat) != 1 or len(offset) != 1:
        return []
    size = next(tensor for tensor in two if tensor is not offset[0])
    is_ready = evidence.graph.ends[heat[0].name].operator in ("Sigmoid", "Clip")
    reading = OutputSpec(
        names={"scores": heat[0].name, "boxes": size.name, "offsets": offset[0].name},
        activation="none" if is_ready else "sigmoid",
    )
    because = f"a heat map {shape_text(heat[0])} beside sizes and offsets is CenterNet's"
    return [Reading("centernet", because, heat[0].shape[1], "centernet", reading, needs_nms=False)]


def _strides(evidence: Evidence) -> list[Reading]:
    """One class and one distance output per stride: NanoDet-m (three), PicoDet (four)."""
    tensors = evidence.outputs
    is_named = all("stride" in tensor.name for tensor in tensors)
    if (
        any(len(tensor.shape) != 3 for tensor in tensors)
        or len(tensors) % 2
        or not (is_named or len(tensors) in (6, 8))
    ):
        return []
    anchors = sorted({tensor.shape[1] or 0 for tensor in tensors}, reverse=True)
    widths = sorted({tensor.shape[2] or 0 for tensor in tensors})
    strides = strides_of(sum(anchors), evidence.size)
    is_paired = len(anchors) * 2 == len(tensors) and len(strides) == len(anchors)
    if not is_paired and not is_named:
        return []
    num = next((width for width in widths if width != NANODET_BINS), NANODET_BINS)
    head: HeadName = "picodet" if len(tensors) == 8 else "nanodet"
    reading = OutputSpec(strides=strides) if is_paired else None
    return [Reading(head, f"a class and a distance output for each of {len(tensors) // 2} strides", num, head, reading)]


def _pairs(evidence: Evidence) -> list[Reading]:
    """Boxes in one output, values in the other."""
    tensors = [tensor for tensor in evidence.outputs if len(tensor.shape) == 3]
    if len(tensors) != 2 or len(evidence.outputs) != 2:
        return []
    boxes = next((tensor for tensor in tensors if tensor.shape[-1] == 4 and "box" in tensor.name.lower()), None)
    boxes = boxes or next((tensor for tensor in tensors if tensor.shape[-1] == 4), None)
    if boxes is None:
        return []
    values = next(tensor for tensor in tensors if tensor is not boxes)
    if any("logit" in tensor.name or tensor.name.startswith("pred_") for tensor in tensors):
        return _transformer(evidence, values)
    anchors, width = boxes.shape[1], values.shape[2]
    if values.shape[1] != anchors and values.shape[2] == anchors:
        spec = OutputSpec(names={"boxes": boxes.name, "scores": values.name})
        because = f"boxes {shape_text(boxes)} and scores {shape_text(values)}, classes first, are PP-YOLOE's"
        return [Reading("yolonas", because, values.shape[1], "ppyoloe", spec, flags="--head yolonas")]
    return _ssd_or_yolonas(evidence, boxes, values, width)


def _ssd_or_yolonas(evidence: Evidence, boxes: TensorInfo, values: TensorInfo, width: int | None) -> list[Reading]:
    spec = OutputSpec(names={"boxes": boxes.name, "scores": values.name})
    end = evidence.graph.ends[values.name].operator
    plain = Reading(
        "yolonas", "boxes beside one sigmoid score per class", width, "yolonas", spec, end == "Sigmoid",
        flags="--head yolonas",
    )  # fmt: skip
    behind = Reading(
        "ssd", "boxes beside softmax scores, the first the background", (width or 1) - 1, "ssd", None, end == "Softmax",
        has_background=True, flags="--head ssd",
    )  # fmt: skip
    if plain.is_certain or behind.is_certain:
        return [plain if plain.is_certain else behind]
    return [plain, behind] if strides_of(boxes.shape[1], evidence.size) else [behind, plain]


def _transformer(evidence: Evidence, values: TensorInfo) -> list[Reading]:
    width, kind = values.shape[-1], evidence.companion.model_type
    sigmoid = Reading(
        "detr", "boxes and logits, a sigmoid for each class (RT-DETR, D-FINE)", width, "detr", None, True,
        needs_nms=False, flags="--head detr --activation sigmoid",
    )  # fmt: skip
    softmax = Reading(
        "detr", "boxes and logits, a softmax with no-object last (DETR, YOLOS)", (width or 1) - 1, "detr-softmax",
        OutputSpec(activation="softmax", background="last"), True, needs_nms=False,
        flags="--head detr --activation softmax",
    )  # fmt: skip
    if kind:
        return [softmax if kind in ("detr", "yolos", "table-transformer") else sigmoid]
    # deformable attention samples at points; DETR and YOLOS look everywhere, with 100 queries
    if "GridSample" in evidence.graph.operators or values.shape[1] == 300:
        return [sigmoid]
    if values.shape[1] == 100 and width == 92:
        return [softmax]
    return [_doubtful(softmax), _doubtful(sigmoid)]


def _masks(evidence: Evidence) -> list[Reading]:
    """YOLO with prototypes of masks and no word about it; torchvision's segmenters with a second output."""
    if len(evidence.outputs) != 2:
        return []
    main, second = sorted(evidence.outputs, key=lambda tensor: len(tensor.shape))
    names = [tensor.name.lower() for tensor in evidence.outputs]
    if names == ["out", "aux"]:
        return _segmenter(evidence, evidence.outputs[0])
    if (len(main.shape), len(second.shape)) != (3, 4) or second.shape[1] is None:
        return []
    parts = evidence.parts(main, main.shape[1])
    because = "boxes, classes and mask coefficients beside prototypes"
    if len(parts) == 3 and parts[0].width == 4 and parts[2].width == second.shape[1]:
        return [Reading("yolov8-seg", because, parts[1].width, "yolov8")]
    if main.shape[2] == 6 + second.shape[1]:
        return [Reading("end2end-seg", because, None, "yolov8", needs_nms=False)]
    return []


# --- one output


def _single(evidence: Evidence) -> list[Reading]:
    if len(evidence.outputs) != 1:
        return _paddle(evidence)
    tensor = evidence.outputs[0]
    match len(tensor.shape):
        case 2:
            return _listed_flat(evidence, tensor) or _vector(evidence, tensor)
        case 3 if "int" in tensor.dtype:
            return _segmenter(evidence, tensor)
        case 3:
            return _rows(evidence, tensor) or _float_map(evidence, tensor)
        case 4:
            return _grid(evidence, tensor)
    return []


def _paddle(evidence: Evidence) -> list[Reading]:
    """PaddleDetection with its NMS: rows of all frames, and how many each frame has."""
    rows = [tensor for tensor in evidence.outputs if len(tensor.shape) == 2 and tensor.shape[1] == 6]
    counts = [tensor for tensor in evidence.outputs if len(tensor.shape) == 1 and "int" in tensor.dtype]
    if len(evidence.outputs) != 2 or len(rows) != 1 or len(counts) != 1:
        return []
    spec = OutputSpec(names={"main": rows[0].name}, columns="class score x1 y1 x2 y2")
    num = evidence.graph.ends[rows[0].name].class_width
    return [Reading("end2end", "rows and a count are PaddleDetection's NMS", num, "ppyoloe", spec, needs_nms=False)]


def _listed_flat(evidence: Evidence, tensor: TensorInfo) -> list[Reading]:
    is_listed = "NonMaxSuppression" in evidence.graph.operators
    batch = evidence.graph.inputs[0].shape[0]
    if tensor.shape[1] == 7 and (is_listed or (batch == 1 and tensor.shape[0] not in (1, None))):
        spec = OutputSpec(columns="batch x1 y1 x2 y2 class score")
        num = evidence.graph.ends[tensor.name].class_width
        return [Reading("end2end", "rows of 7 after an NMS are YOLOv7's", num, "yolov8", spec, needs_nms=False)]
    if batch is not None and tensor.shape[0] not in (batch, None):
        raise ManifestError(
            f"{evidence.name}: its output {tensor.name} {shape_text(tensor)} has not one row for each picture, and is "
            "no list of objects that is known"
        )
    return []


def _vector(evidence: Evidence, tensor: TensorInfo) -> list[Reading]:
    """A classifier or an embedding."""
    name, width = tensor.name.lower(), tensor.shape[1]
    end = evidence.graph.ends[tensor.name].operator
    classify = _classifier(evidence, tensor, width)
    embedding = Reading("embedding", f"a vector of {width}", None, "embedding", flags="--head embedding")
    if end in ("Softmax", "Sigmoid") or evidence.companion.names or "class" in evidence.hint:
        return classify
    if "embed" in evidence.hint or end in ("LpNormalization",) or any(word in name for word in ("embed", "feat")):
        return [embedding]
    if any(word in name for word in SCORE_WORDS) or width not in EMBEDDING_SIZES:
        return classify
    return [_doubtful(classify[0]), _doubtful(embedding)]


def _classifier(evidence: Evidence, tensor: TensorInfo, width: int | None) -> list[Reading]:
    end = evidence.graph.ends[tensor.name].operator
    if end == "Sigmoid":
        because = f"{width} numbers after a sigmoid: each class by itself"
        return [Reading("classify", because, width, "classify", OutputSpec(activation="none"))]
    if width == 1:
        spec = OutputSpec(activation="sigmoid")
        return [Reading("classify", "one number: the logit of one class", 1, "classify", spec)]
    # a vector that neither an operator nor a name calls scores may be an embedding to who says so
    is_certain = end == "Softmax" or any(word in tensor.name.lower() for word in SCORE_WORDS)
    because = f"{width} numbers for a picture"
    return [Reading("classify", because, width, "classify", None, is_certain, flags="--head classify")]


def _rows(evidence: Evidence, tensor: TensorInfo) -> list[Reading]:
    """Detectors with one output (N, A, M) or (N, M, A)."""
    _, second, third = tensor.shape
    size, parts = evidence.size, evidence.parts
    strides, across = strides_of(second, size), strides_of(third, size)
    listed = "NonMaxSuppression" in evidence.graph.operators or "TopK" in evidence.graph.operators
    if third == 6 and not strides and (listed or (second or 0) <= MAX_LISTED) and not across:
        num = evidence.graph.ends[tensor.name].class_width
        return [Reading("end2end", "rows of 6: corners, score, class", num, "yolov8", None, listed, needs_nms=False)]
    if second is not None and any(second == 3 * num_cells(size, chosen) for chosen in STRIDE_SETS):
        return [Reading("yolov5", "three anchors in each cell, decoded", (third or 5) - 5, "yolov5")]
    if across or (third is None and second is not None and len(parts(tensor, second)) > 1):
        return _columns(evidence, tensor, second)
    if strides and third is not None:
        return _anchor_rows(evidence, tensor, strides, third)
    return []


def _columns(evidence: Evidence, tensor: TensorInfo, width: int | None) -> list[Reading]:
    """(N, 4 + C + …, A): YOLOv8 and what came after it."""
    parts = evidence.parts(tensor, width)
    if len(parts) == 3 and parts[0].width == 4 and parts[2].operator != "Sigmoid":
        return [_beside(evidence, parts[1].width or 0, parts[2].width or 0)]
    is_certain = len(parts) == 2 and parts[0].width == 4
    because = f"{shape_text(tensor)}: boxes and {(width or 4) - 4} class scores for each anchor"
    return [Reading("yolov8", because, (width or 4) - 4, "yolov8", None, is_certain)]


def _beside(evidence: Evidence, num: int, width: int) -> Reading:
    """YOLOv8 with more numbers behind the classes, and no word about what they are."""
    if width == 1:
        return Reading("yolov8-obb", f"boxes, {num} classes and an angle", num, "yolov8")
    if width == 51:
        because = f"boxes, {num} classes and 51 numbers, the 17 key points of COCO's people"
        return Reading("yolov8-pose", because, num, "yolov8", kpt_shape=(17, 3))
    if width % 3 and width % 2:
        raise ManifestError(f"{evidence.name}: boxes, {num} classes and {width} numbers more, which no head reads")
    # whichever it is, it tells the probe how many numbers there are
    shape = (width // 3, 3) if width % 3 == 0 else (width // 2, 2)
    because = f"boxes, {num} classes and {width} numbers more; only its boxes are read"
    return Reading("yolov8", because, num, "yolov8", kpt_shape=shape)


def _anchor_rows(evidence: Evidence, tensor: TensorInfo, strides: tuple[int, ...], width: int) -> list[Reading]:
    """(N, A, M): YOLOX raw or decoded, YOLOv6, NanoDet, or YOLOv8 turned."""
    parts = evidence.parts(tensor, width)
    widths = [part.width or 0 for part in parts]
    operators = [part.operator for part in parts]
    spec = OutputSpec(strides=strides) if strides != YOLO_STRIDES else None
    raw = Reading("yolox", "a row for each cell: raw offsets, objectness, classes", width - 5, "yolox", spec,
                  flags="--head yolox")  # fmt: skip
    ready = Reading("yolov5", "a row for each cell: decoded box, objectness, classes", width - 5,
                    _decoded_family(evidence), None, flags="--head yolov5")  # fmt: skip
    turned = Reading("yolov8", "a row for each cell: decoded box and classes", width - 4, "yolov8", None,
                     flags="--head yolov8")  # fmt: skip
    nanodet = _nanodet(strides, width)
    if len(widths) == 2 and widths[1] == NANODET_BINS and nanodet:
        return [nanodet]
    if widths[:1] == [4] and len(widths) == 2 and operators[1] == "Sigmoid":
        return [turned]
    if len(widths) == 3 and widths[1] == 1 and operators[1] in ("", "ConstantOfShape", "Constant"):
        # YOLOv6 writes ones for the objectness that it does not have
        return [replace(ready, family="yolov5", because="a decoded box, an objectness of 1 and classes are YOLOv6's")]
    if len(widths) == 3 and widths[:2] == [4, 1] and operators[0] == "Conv" and operators[1] == "Sigmoid":
        return [raw]
    if "Exp" in evidence.graph.operators:
        return [_doubtful(ready), *([_doubtful(nanodet)] if nanodet else []), _doubtful(raw)]
    doubtful = [nanodet] if nanodet and (width in (112, 52) or len(strides) == 4) else []
    others = [raw, ready, turned, *([nanodet] if nanodet and not doubtful else [])]
    return [_doubtful(reading) for reading in (*doubtful, *others)]


def _nanodet(strides: tuple[int, ...], width: int) -> Reading | None:
    if width <= NANODET_BINS or strides not in ((8, 16, 32), (8, 16, 32, 64)):
        return None
    head: HeadName = "nanodet" if len(strides) == 3 else "nanodetplus"
    because = f"a row for each cell of {len(strides)} strides: classes, then {NANODET_BINS} bins of the four sides"
    return Reading(head, because, width - NANODET_BINS, head, None, flags=f"--head {head}")


def _decoded_family(evidence: Evidence) -> str:
    return "yolox" if "Exp" in evidence.graph.operators else "yolov5"


def _float_map(evidence: Evidence, tensor: TensorInfo) -> list[Reading]:
    """(N, h, w) of whole numbers kept as floats."""
    if evidence.graph.ends[tensor.name].operator == "ArgMax" and _is_grid(tensor.shape[1:], evidence.size):
        return _segmenter(evidence, tensor)
    return []


def _grid(evidence: Evidence, tensor: TensorInfo) -> list[Reading]:
    """Segmenters, FastestDet, classifiers with a map of one cell; what is larger than the picture is none of them."""
    _, channels, height, width = tensor.shape
    if (height, width) == (1, 1) and (channels or 0) > 1:
        return _classifier(evidence, tensor, channels)
    parts = evidence.parts(tensor, channels)
    if [part.width for part in parts[:2]] == [1, 4] and len(parts) == 3 and parts[2].operator == "Softmax":
        because = f"objectness, box and {parts[2].width} classes in each cell are FastestDet's"
        return [Reading("fastestdet", because, parts[2].width, "fastestdet")]
    return _segmenter(evidence, tensor)


def _segmenter(evidence: Evidence, tensor: TensorInfo) -> list[Reading]:
    end = evidence.graph.ends[tensor.name].operator
    names = {"main": tensor.name} if len(evidence.outputs) > 1 else {}
    if len(tensor.shape) == 3 or (end == "ArgMax" and 1 in tensor.shape[1:]):
        spec = OutputSpec(names=names) if names else None
        width = evidence.graph.ends[tensor.name].class_width if end == "ArgMax" else None
        return [Reading("semantic", f"a class for each cell of {shape_text(tensor)}", width, "semantic", spec)]
    axis = _class_axis(evidence, tensor)
    if axis is None:
        return []
    if tensor.shape[axis] != 1:
        because = f"{tensor.shape[axis]} scores for each cell of {shape_text(tensor)}"
        spec = OutputSpec(names=names) if names else None
        return [
            Reading("semantic", because, tensor.shape[axis], "semantic", spec, end in ("Resize", "Softmax", "Conv"))
        ]
    if end == "Sigmoid":
        spec = OutputSpec(names=names, activation="none")
        return [Reading("semantic", "a probability for each cell: two classes", 2, "semantic", spec)]
    raise ManifestError(
        f"{evidence.name}: one number for each cell of {shape_text(tensor)} may be a logit (run: edge inspect "
        f"{evidence.name} --head semantic --activation sigmoid) or a depth, which no head reads"
    )


def _class_axis(evidence: Evidence, tensor: TensorInfo) -> int | None:
    """1 or 3; None where neither leaves a grid of the picture's shape."""
    fits = [
        axis
        for axis, grid in ((1, tensor.shape[2:]), (3, tensor.shape[1:3]))
        if _is_grid(grid, evidence.size) or None in grid
    ]
    preferred = 1 if evidence.layout == "nchw" else 3
    return preferred if preferred in fits else fits[0] if fits else None


def _is_grid(grid: Sequence[Any], size: tuple[int, int]) -> bool:
    """Whether (h, w) cells cover a picture of this width and height, each a square."""
    if None in grid or not all(grid):
        return False
    down, across = size[1] / grid[0], size[0] / grid[1]
    return bool(down >= 1 and across >= 1 and abs(down / across - 1) < 0.1 and min(grid) > 1)


def _doubtful(reading: Reading) -> Reading:
    return replace(reading, is_certain=False)


def shape_text(tensor: TensorInfo) -> str:
    """``1x84x8400``."""
    return "x".join("?" if size is None else str(size) for size in tensor.shape)
