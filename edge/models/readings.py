"""What the outputs of a graph may mean: the possible readings, the likeliest first, each with its reason.

Evidence, strongest first: the exporter's own words, names of outputs, operators at the end of the graph, shapes. What
is left in doubt is decided by the probe (``edge.models.probe``), or refused. N batch, A anchors, C classes.
"""

from __future__ import annotations

from dataclasses import replace

from edge.errors import ManifestError
from edge.interfaces import TensorInfo
from edge.models.evidence import (
    STRIDE_SETS,
    Evidence,
    InDoubtError,
    Reading,
    doubtful,
    num_cells,
    shape_text,
    shapes_text,
    strides_of,
)
from edge.models.exporter import Exported
from edge.models.manifest import HeadName, OutputSpec
from edge.models.named_readings import (
    NO_MASKS,
    by_names,
    detection_out,
    detections_of_seven,
    paddle_rows,
    rows_of_seven,
)
from edge.models.whole_readings import embedding_beside, first_of_alike, float_map, grid, segmenter, vector

NANODET_BINS = 32
YOLO_STRIDES = STRIDE_SETS[0]
MAX_LISTED = 1000
# Ultralytics' task → head of the raw outputs, head of the listed objects
TASK_HEADS: dict[str, tuple[HeadName, HeadName]] = {
    "detect": ("yolov8", "end2end"),
    "segment": ("yolov8-seg", "end2end-seg"),
    "pose": ("yolov8-pose", "end2end-pose"),
    "obb": ("yolov8-obb", "end2end-obb"),
}
# DETRs that were trained on pictures with ImageNet's mean and std
IMAGENET_DETRS = ("conditional_detr", "deformable_detr", "dab-detr", "deta")


def possible_readings(evidence: Evidence) -> list[Reading]:
    """The readings that come into question, the likeliest first; none where nothing fits.

    Raises:
        ManifestError: what the model is, is known, and it is nothing that can be run.
    """
    if evidence.exported is not None:
        return _ultralytics(evidence, evidence.exported)
    for recognise in (
        by_names,
        _maps,
        _strides,
        _pairs,
        _masks,
        first_of_alike,
        paddle_rows,
        embedding_beside,
        _single,
    ):
        found = recognise(evidence)
        if found:
            return found
    return []


# --- Ultralytics: the file says what it is


def _ultralytics(evidence: Evidence, exported: Exported) -> list[Reading]:
    source = f"Ultralytics {exported.version}".strip() + f" says task {exported.task}"
    num, main = len(exported.names), evidence.outputs[0]
    if exported.task == "classify":
        return [Reading("classify", source, num, "ultralytics-classify", OutputSpec(activation="none"))]
    if exported.task == "semantic" and len(main.shape) in (3, 4):
        return [Reading("semantic", source, max(2, num), "yolov8")]
    if exported.task not in TASK_HEADS:
        raise ManifestError(
            f"{evidence.name}: {source}, which no head reads; {', '.join(TASK_HEADS)}, semantic, classify can be read"
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
        return [replace(found, keypoints=exported.kpt_names or None)]
    if _fits(main.shape[1], 4 + num + extra):
        found = Reading(raw, source, num, "yolov8", kpt_shape=exported.kpt_shape)
        return [replace(found, keypoints=exported.kpt_names or None)]
    raise ManifestError(
        f"{evidence.name}: {source} with {num} class names, but its output is {shape_text(main)}, expected "
        f"{4 + num + extra} rows or {6 + extra} columns; export it again"
    )


def _num_beside(evidence: Evidence, exported: Exported) -> int:
    """Numbers that stand next to the box and the classes of an object."""
    match exported.task:
        case "pose" if exported.kpt_shape:
            return exported.kpt_shape[0] * exported.kpt_shape[1]
        case "segment":
            maps = next((tensor for tensor in evidence.outputs if len(tensor.shape) == 4), None)
            return (maps.shape[1] if maps is not None else None) or 32
        case "obb":
            return 1
    return 0


def _ultralytics_detr(source: str, num: int, main: TensorInfo) -> list[Reading]:
    """Rows of 6; of older versions, a box and a score for each class."""
    because = f"{source} by RT-DETR"
    columns = "cx cy w h score class"
    listed = Reading(
        "end2end", because, num, "ultralytics-detr", OutputSpec(columns=columns, unit="share"), needs_nms=False,
        flags="--head end2end",
    )  # fmt: skip
    scores = Reading(
        "yolov8", because, num, "ultralytics-detr", OutputSpec(unit="share"), needs_nms=False, flags="--head yolov8"
    )
    if num == 2:
        # rows of 6 are either
        return [doubtful(listed), doubtful(scores)]
    return [listed if _fits(main.shape[2], 6) else scores]


def _fits(size: int | None, wanted: int) -> bool:
    return size is None or size == wanted


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
    because = f"a heat map {shape_text(heat[0])} next to sizes and offsets is CenterNet's"
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
    by_name = {tensor.name: tensor for tensor in tensors}
    if {"logits", "pred_boxes"} == set(by_name):
        return _transformer(evidence, by_name["logits"])
    boxes = next((tensor for tensor in tensors if tensor.shape[-1] == 4 and "box" in tensor.name.lower()), None)
    four = [tensor for tensor in tensors if tensor.shape[-1] == 4]
    # with four classes both are four wide: scores end in a sigmoid or softmax, and boxes in neither
    ended = [tensor for tensor in four if evidence.graph.ends[tensor.name].operator not in ("Sigmoid", "Softmax")]
    boxes = boxes or next(iter(ended or four), None)
    if boxes is None:
        return []
    values = next(tensor for tensor in tensors if tensor is not boxes)
    ends = [evidence.graph.ends[tensor.name].operator for tensor in (boxes, values)]
    if ends[0] == "Sigmoid" and ends[1] not in ("Sigmoid", "Softmax"):
        # shares of the picture next to logits
        found = _transformer(evidence, values)
        names = {"names": {"boxes": boxes.name, "scores": values.name}}
        return [replace(one, output=(one.output or OutputSpec()).model_copy(update=names)) for one in found]
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
    # DAMO-YOLO gives the scores first, YOLO-NAS the boxes
    family = "yolonas" if evidence.outputs[0] is boxes else "damoyolo"
    plain = Reading(
        "yolonas", "boxes and one sigmoid score per class", width, family, spec, end == "Sigmoid",
        flags="--head yolonas",
    )  # fmt: skip
    behind = Reading(
        "ssd", "boxes and softmax scores, the first the background", (width or 1) - 1, "ssd", None, end == "Softmax",
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
        sigmoid = replace(sigmoid, family="detr-imagenet") if kind in IMAGENET_DETRS else sigmoid
        return [softmax if kind in ("detr", "yolos", "table-transformer") else sigmoid]
    # deformable attention samples at points; DETR and YOLOS look everywhere, with 100 queries
    if "GridSample" in evidence.graph.operators or values.shape[1] == 300:
        return [sigmoid]
    if values.shape[1] == 100 and width == 92:
        return [softmax]
    return [doubtful(softmax), doubtful(sigmoid)]


def _masks(evidence: Evidence) -> list[Reading]:
    """YOLO with prototypes of masks and no word about it."""
    if len(evidence.outputs) != 2:
        return []
    main, second = sorted(evidence.outputs, key=lambda tensor: len(tensor.shape))
    if (len(main.shape), len(second.shape)) != (3, 4) or second.shape[1] is None:
        return []
    parts = evidence.parts(main, main.shape[1])
    because = "boxes, classes and mask coefficients next to prototypes"
    if len(parts) == 3 and parts[0].width == 4 and parts[2].width == second.shape[1]:
        return [Reading("yolov8-seg", because, parts[1].width, "yolov8")]
    if main.shape[2] == 6 + second.shape[1]:
        return [Reading("end2end-seg", because, None, "yolov8", needs_nms=False)]
    if _has_three_anchors(main, evidence.size) and second.shape[2] is not None:
        num = (main.shape[2] or 0) - 5 - second.shape[1]
        because = f"three anchors in each cell next to prototypes, as YOLOv5's{NO_MASKS}"
        return [Reading("yolov5", because, num, "yolov5", OutputSpec(names={"main": main.name}))]
    return []


def _has_three_anchors(tensor: TensorInfo, size: tuple[int, int]) -> bool:
    return len(tensor.shape) == 3 and any(tensor.shape[1] == 3 * num_cells(size, chosen) for chosen in STRIDE_SETS)


# --- one output, or one that counts


def _single(evidence: Evidence) -> list[Reading]:
    if len(evidence.outputs) != 1:
        return _main_of_several(evidence)
    tensor = evidence.outputs[0]
    match len(tensor.shape):
        case 2:
            return _listed_flat(evidence, tensor) or vector(evidence, tensor)
        case 3 if "int" in tensor.dtype:
            return segmenter(evidence, tensor)
        case 3:
            is_text = evidence.graph.ends[tensor.name].operator == "Softmax"
            return (not is_text and _rows(evidence, tensor)) or float_map(evidence, tensor)
        case 4 if tensor.shape[1] == 1 and tensor.shape[3] == 7:
            return detection_out(evidence, tensor)
        case 4:
            return grid(evidence, tensor)
    return []


def _main_of_several(evidence: Evidence) -> list[Reading]:
    """A decoded output next to the feature maps that it was made of (YOLOv5, YOLOv7, YOLOv9).

    Raises:
        InDoubtError: there are only the feature maps.
        ManifestError: there are two detectors' outputs.
    """
    decoded = [tensor for tensor in evidence.outputs if len(tensor.shape) == 3]
    maps = [tensor for tensor in evidence.outputs if len(tensor.shape) in (4, 5)]
    if len(decoded) == 1 and len(maps) == len(evidence.outputs) - 1 >= 2:
        alone = replace(evidence, graph=replace(evidence.graph, outputs=(decoded[0],)))
        return [_of_output(reading, decoded[0].name) for reading in _rows(alone, decoded[0])]
    if len(maps) == len(evidence.outputs) in (2, 3, 4) and _are_raw_heads(maps):
        raise InDoubtError(
            f"{evidence.name}: its outputs {shapes_text(maps)} are a YOLO's feature maps before its anchors, which are "
            "not in the file; export it with its decoding (YOLOv5: export.py --include onnx, YOLOv7: export.py --grid)"
        )
    if len(maps) == len(evidence.outputs) > 2 and len({tensor.shape[2:] for tensor in maps}) > 1:
        raise InDoubtError(
            f"{evidence.name}: its outputs {shapes_text(maps)} are feature maps of several sizes, a detector's before "
            "its decoding or a network's without a head; export it with its decoding in the graph"
        )
    is_pair = len(decoded) == len(evidence.outputs) == 2 and decoded[0].shape == decoded[1].shape
    if is_pair and (decoded[0].shape[1] or 0) > 4 and strides_of(decoded[0].shape[2], evidence.size):
        raise ManifestError(
            f"{evidence.name}: its outputs {shapes_text(decoded)} are two of one kind, YOLOv9's with one that only "
            "its training needs; convert the weights first (reparameterization), or export the main output alone"
        )
    return []


def _of_output(reading: Reading, name: str) -> Reading:
    spec = reading.output or OutputSpec()
    return replace(reading, output=spec.model_copy(update={"names": {**spec.names, "main": name}}))


def _are_raw_heads(maps: list[TensorInfo]) -> bool:
    """Whether every map has three anchors of the same 5 + C numbers in each cell."""
    if all(len(tensor.shape) == 5 for tensor in maps):
        return True
    widths = {tensor.shape[1] or 0 for tensor in maps} | {tensor.shape[3] or 0 for tensor in maps}
    return (
        all(len(tensor.shape) == 4 for tensor in maps)
        and any(w > 15 and w % 3 == 0 for w in widths)
        and (len({tensor.shape[1] for tensor in maps}) == 1 or len({tensor.shape[3] for tensor in maps}) == 1)
    )


def _listed_flat(evidence: Evidence, tensor: TensorInfo) -> list[Reading]:
    is_listed = "NonMaxSuppression" in evidence.graph.operators
    batch = evidence.graph.inputs[0].shape[0]
    if tensor.shape[1] == 7 and (is_listed or (batch == 1 and tensor.shape[0] not in (1, None))):
        return rows_of_seven(evidence, tensor)
    if batch is not None and tensor.shape[0] not in (batch, None):
        raise ManifestError(
            f"{evidence.name}: its output {tensor.name} {shape_text(tensor)} has not one row for each picture, and is "
            "no list of objects that is known"
        )
    return []


def _rows(evidence: Evidence, tensor: TensorInfo) -> list[Reading]:
    """Detectors with one output (N, A, M) or (N, M, A)."""
    _, second, third = tensor.shape
    size, parts = evidence.size, evidence.parts
    strides, across = strides_of(second, size), strides_of(third, size)
    listed = "NonMaxSuppression" in evidence.graph.operators or "TopK" in evidence.graph.operators
    if third == 6 and not strides and (listed or (second or 0) <= MAX_LISTED) and not across:
        num = evidence.graph.ends[tensor.name].class_width
        return _rows_of_six(num, is_listed=listed)
    if third == 7 and "detections" in tensor.name.lower():
        return detections_of_seven(evidence, tensor)
    if _has_three_anchors(tensor, size):
        return [Reading("yolov5", "three anchors in each cell, decoded", (third or 5) - 5, "yolov5")]
    if across or (third is None and second is not None and len(parts(tensor, second)) > 1):
        return _columns(evidence, tensor, second)
    if strides and third is not None:
        return _anchor_rows(evidence, tensor, strides, third)
    return []


def _rows_of_six(num: int | None, *, is_listed: bool) -> list[Reading]:
    """Corners, and score and class in either order: numbers of classes are whole, and scores hardly ever."""
    orders = [f"x1 y1 x2 y2 {rest}" for rest in ("score class", "class score")]
    usual, turned = (
        Reading("end2end", f"rows of 6: {order}", num, "end2end", OutputSpec(columns=order), is_listed,
                needs_nms=False, flags=f"--columns '{order}'")
        for order in orders
    )  # fmt: skip
    return [usual, doubtful(turned)]


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
    if widths == [4, 1, 1] and operators[2] in ("ArgMax", "TopK"):
        because = "a row for each cell: corners, best score, its class (DeepStream-Yolo)"
        num = evidence.graph.ends[tensor.name].class_width
        return [Reading("end2end", because, num, "yolov8", OutputSpec(columns="x1 y1 x2 y2 score class"))]
    if len(widths) == 3 and widths[1] == 1 and operators[1] in ("", "ConstantOfShape", "Constant"):
        # YOLOv6 writes ones for the objectness that it does not have
        return [replace(ready, family="yolov5", because="a decoded box, an objectness of 1 and classes are YOLOv6's")]
    if len(widths) == 3 and widths[:2] == [4, 1] and operators[0] == "Conv" and operators[1] == "Sigmoid":
        return [raw]
    if "Exp" in evidence.graph.operators:
        return [doubtful(ready), *([doubtful(nanodet)] if nanodet else []), doubtful(raw)]
    likely = [nanodet] if nanodet and (width in (112, 52) or len(strides) == 4) else []
    others = [raw, ready, turned, *([nanodet] if nanodet and not likely else [])]
    return [doubtful(reading) for reading in (*likely, *others)]


def _nanodet(strides: tuple[int, ...], width: int) -> Reading | None:
    if width <= NANODET_BINS or strides not in ((8, 16, 32), (8, 16, 32, 64)):
        return None
    head: HeadName = "nanodet" if len(strides) == 3 else "nanodetplus"
    because = f"a row for each cell of {len(strides)} strides: classes, then {NANODET_BINS} bins of the four sides"
    return Reading(head, because, width - NANODET_BINS, head, None, flags=f"--head {head}")


def _decoded_family(evidence: Evidence) -> str:
    return "yolox" if "Exp" in evidence.graph.operators else "yolov5"
