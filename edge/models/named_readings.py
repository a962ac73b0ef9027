"""Readings of outputs whose names or types tell what they are. N batch, K listed objects, C classes, P key points."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from edge.errors import ManifestError
from edge.interfaces import TensorInfo
from edge.models.evidence import Evidence, Reading, Shape, shapes_text
from edge.models.manifest import OutputSpec

NO_MASKS, NO_POINTS = "; its boxes are read, its masks are not", "; its boxes are read, its key points are not"
# part of an output's name → what the model says, where no head reads it
UNREAD = {
    "simcc": "key points of one person in a crop (SimCC)",
    "heatmap": "heat maps of the key points of one person in a crop",
    "predicted_depth": "distances (a depth map)",
    "disparity": "distances (a depth map)",
    "masks_queries": "masks of queries (MaskFormer, Mask2Former)",
    "anomaly": "an anomaly map (anomalib)",
}
ROWS_WITH_BATCH = "batch x1 y1 x2 y2 class score"


def by_names(evidence: Evidence) -> list[Reading]:
    """The reading that names and types of the outputs show.

    Raises:
        ManifestError: they show what no head reads.
    """
    # TensorFlow's names end in the number of an operator's output
    names = {tensor.name.lower().removesuffix(":0"): tensor.name for tensor in evidence.outputs}
    shapes = {tensor.name: tensor.shape for tensor in evidence.outputs}
    _refuse_unread(evidence, names)
    if "dets" in names:
        return _dets(evidence, names, shapes)
    if {"boxes", "scores", "labels"} <= set(names):
        return [_own_or_listed(evidence, names, shapes)]
    if {"detection_boxes", "detection_scores", "detection_classes"} <= set(names):
        return [_tensorflow(names, shapes)]
    return _nms_plugin(evidence, names) or _torchvision(evidence) or _faces(evidence)


def _refuse_unread(evidence: Evidence, names: Mapping[str, str]) -> None:
    for lower, name in names.items():
        what = next((what for part, what in UNREAD.items() if part in lower), None)
        if what:
            raise ManifestError(f"{evidence.name}: its output {name} holds {what}, which no head reads")


def _dets(evidence: Evidence, names: Mapping[str, str], shapes: Mapping[str, Shape]) -> list[Reading]:
    """``dets`` is a name of RF-DETR (boxes, with logits in ``labels``) and of MMDetection (boxes with their scores)."""
    boxes = shapes[names["dets"]]
    labels = shapes.get(names.get("labels", ""), ())
    if len(labels) == 3 and boxes[-1] in (4, None):
        return [_rf_detr(names, shapes)]
    if len(boxes) == 3 and "keypoints" in names and "labels" not in names:
        return [_rtmo(names, shapes)]
    if len(boxes) == 3 and len(labels) == 2 and boxes[-1] in (5, None):
        roles = {"boxes": names["dets"], "labels": names["labels"]}
        # masks are those of the whole picture only where it was asked for at the export, else of each box
        is_whole = "masks" in names and shapes[names["masks"]][-2:] == evidence.size[::-1]
        roles |= {"masks": names["masks"]} if is_whole else {}
        spec = OutputSpec(names=roles, columns="x1 y1 x2 y2 score")
        rest = NO_MASKS if "masks" in names and not is_whole else ""
        because = f"outputs dets (boxes with scores) and labels are MMDetection's{rest}"
        num = evidence.graph.ends[names["dets"]].class_width
        return [Reading("triple", because, num, "mmdetection", spec, needs_nms=False)]
    raise ManifestError(
        f"{evidence.name}: its outputs {shapes_text(evidence.outputs)} are no dets and labels of RF-DETR or of "
        "MMDetection's upright boxes, and no head reads them"
    )


def _rtmo(names: Mapping[str, str], shapes: Mapping[str, Shape]) -> Reading:
    """One class; key points with a score."""
    spec = OutputSpec(names={"boxes": names["dets"], "keypoints": names["keypoints"]}, columns="x1 y1 x2 y2 score")
    because = "outputs dets (boxes with scores) and keypoints are those of RTMO (MMPose)"
    points = _point_shape(shapes[names["keypoints"]])
    return Reading("triple", because, 1, "mmdetection", spec, needs_nms=False, kpt_shape=points)


def _point_shape(shape: Shape) -> tuple[int, int] | None:
    """Key points of an object and numbers of each, None where the file leaves them open."""
    *_, count, numbers = shape
    return (count, numbers) if count is not None and numbers is not None else None


def _rf_detr(names: Mapping[str, str], shapes: Mapping[str, Shape]) -> Reading:
    roles = {"boxes": names["dets"], "scores": names["labels"]}
    roles |= {"masks": names["masks"]} if "masks" in names else {}
    reading = OutputSpec(names=roles, activation="sigmoid")
    rest = NO_POINTS if "keypoints" in names else ""
    because = f"outputs dets and labels are RF-DETR's{rest}"
    return Reading("detr", because, shapes[names["labels"]][-1], "rf-detr", reading, needs_nms=False)


def _own_or_listed(evidence: Evidence, names: Mapping[str, str], shapes: Mapping[str, Shape]) -> Reading:
    roles = {role: names[role] for role in ("boxes", "scores", "labels")}
    width = evidence.graph.ends[names["scores"]].class_width
    if len(evidence.graph.inputs) > 1:
        because = "labels, boxes, scores and a second input for the size are the official RT-DETR's, D-FINE's, DEIM's"
        return Reading("triple", because, width, "detr", OutputSpec(names=roles), needs_nms=False)
    found = _torchvision(evidence)
    if found:
        return found[0]
    if evidence.layout == "nhwc" and evidence.graph.inputs[0].dtype == "uint8":
        return Reading("edgenet", "outputs boxes, scores, labels", width, "edgenet", needs_nms=False)
    because = "outputs boxes, scores, labels list the objects"
    return Reading("triple", because, width, "listed", OutputSpec(names=roles), is_certain=False, needs_nms=False)


def _torchvision(evidence: Evidence) -> list[Reading]:
    """Boxes (K, 4), scores (K), labels (K) of one picture, in any order and under any names."""
    outputs = evidence.outputs
    boxes = [tensor for tensor in outputs if len(tensor.shape) == 2 and tensor.shape[1] == 4 and _is_float(tensor)]
    flat = [tensor for tensor in outputs if len(tensor.shape) == 1]
    scores = [tensor for tensor in flat if _is_float(tensor)]
    labels = [tensor for tensor in flat if tensor.dtype == "int64"]
    masks = [tensor for tensor in outputs if len(tensor.shape) == 4 and tensor.shape[1] in (1, None)]
    points = [tensor for tensor in outputs if len(tensor.shape) == 3 and tensor.shape[2] in (3, None)]
    certainty = [tensor for tensor in outputs if tensor not in boxes and len(tensor.shape) == 2]
    counts = [len(group) for group in (boxes, scores, labels, masks, points, certainty)]
    if counts[:3] != [1, 1, 1] or sum(counts) != len(outputs) or counts[3:] not in ([0, 0, 0], [1, 0, 0], [0, 1, 1]):
        return []
    roles = {"boxes": boxes[0].name, "scores": scores[0].name, "labels": labels[0].name}
    if "class" in labels[0].name.lower():
        because = "boxes, scores and classes without a batch are Detectron2's"
        return [Reading("triple", because, None, "torchvision", OutputSpec(names=roles), False, needs_nms=False)]
    shape = _torchvision_points(evidence, points[0]) if points else None
    roles |= {"masks": masks[0].name} if masks else {"keypoints": points[0].name} if shape else {}
    rest = NO_POINTS if points and not shape else ""
    because = f"boxes, scores, labels without a batch are torchvision's, class 0 the background{rest}"
    spec = OutputSpec(names=roles, first_class=1)
    return [Reading("triple", because, None, "torchvision", spec, needs_nms=False, kpt_shape=shape)]


def _torchvision_points(evidence: Evidence, points: TensorInfo) -> tuple[int, int] | None:
    """Keypoint R-CNN leaves the number of points open where that of objects is; its heat maps tell."""
    maps = evidence.graph.ends[points.name].num_heat_maps
    return _point_shape(points.shape) or ((maps, 3) if maps else None)


def _is_float(tensor: TensorInfo) -> bool:
    return tensor.dtype.startswith("float")


def _tensorflow(names: Mapping[str, str], shapes: Mapping[str, Shape]) -> Reading:
    roles = {role: names[f"detection_{word}"] for role, word in _TF_ROLES.items()}
    count = {"count": names["num_detections"]} if "num_detections" in names else {}
    reading = OutputSpec(names=roles | count, columns="y1 x1 y2 x2", unit="share", first_class=1)
    raw = names.get("raw_detection_scores")
    num = (shapes[raw][-1] or 1) - 1 if raw else None
    return Reading(
        "triple", "outputs are TensorFlow's object detection API's", num, "tensorflow", reading, needs_nms=False
    )


_TF_ROLES = {"boxes": "boxes", "scores": "scores", "labels": "classes"}


def _nms_plugin(evidence: Evidence, names: Mapping[str, str]) -> list[Reading]:
    """EfficientNMS of TensorRT, its stand-ins, and YOLO-NAS in its batch format."""
    count = next((name for key, name in names.items() if key.startswith(("num_det", "num_pred"))), None)
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
    is_nas = count.startswith("num_pred")
    what = "YOLO-NAS in its batch format" if is_nas else "an NMS in the graph (EfficientNMS)"
    because = f"outputs {count}, {', '.join(chosen.values())} are those of {what}"
    return [Reading("triple", because, num, "yolonas" if is_nas else "yolov8", reading, needs_nms=False)]


def _faces(evidence: Evidence) -> list[Reading]:
    """Face detectors whose boxes lie on anchors that the file does not hold.

    Raises:
        ManifestError: it is one of them.
    """
    names = " ".join(tensor.name.lower() for tensor in evidence.outputs)
    widths = [tensor.shape[-1] if tensor.shape else 0 for tensor in evidence.outputs]
    what = ""
    if all(f"{part}_{stride}" in names for part in ("cls", "obj", "bbox", "kps") for stride in (8, 16, 32)):
        what = "YuNet"
    elif len(widths) in (6, 9) and widths.count(1) == widths.count(4) == 3 and widths.count(10) in (0, 3):
        what = "SCRFD"
    elif len(widths) == 3 and sorted(width or 0 for width in widths) == [2, 4, 10]:
        what = "RetinaFace"
    if not what:
        return []
    raise ManifestError(
        f"{evidence.name}: its outputs {shapes_text(evidence.outputs)} are {what}'s, whose boxes still lie on anchors; "
        "no head reads them: export it with its decoding and NMS in the graph, or as a YOLOv8 or YOLO11 face model"
    )


def rows_of_seven(evidence: Evidence, tensor: TensorInfo) -> list[Reading]:
    """Rows (M, 7) of all frames after an NMS: class before score (YOLOv7, YOLOv6), or after it (YOLO-NAS flat)."""
    num = evidence.graph.ends[tensor.name].class_width
    because = "rows of 7 after an NMS are YOLOv7's"
    spec = OutputSpec(columns=ROWS_WITH_BATCH)
    first = Reading("end2end", because, num, "yolov8", spec, needs_nms=False, flags=f"--columns '{ROWS_WITH_BATCH}'")
    columns = "batch x1 y1 x2 y2 score class"
    second = replace(
        first, because="rows of 7 after an NMS, score before class, are YOLO-NAS's", family="yolonas",
        output=OutputSpec(columns=columns), flags=f"--columns '{columns}'",
    )  # fmt: skip
    if "flat_predictions" in tensor.name:
        return [second]
    return [first]


def detections_of_seven(evidence: Evidence, tensor: TensorInfo) -> list[Reading]:
    """(N, K, 7) of EfficientDet: number of the picture, y1 x1 y2 x2, score, class from 1."""
    spec = OutputSpec(columns="batch y1 x1 y2 x2 score class", first_class=1)
    num = evidence.graph.ends[tensor.name].class_width
    because = "rows of 7 named detections are EfficientDet's of TensorFlow"
    return [Reading("end2end", because, num, "tensorflow", spec, needs_nms=False)]


def detection_out(evidence: Evidence, tensor: TensorInfo) -> list[Reading]:
    """(1, 1, K, 7) of Caffe's and OpenVINO's DetectionOutput: picture, class from 1, score, corners in shares."""
    spec = OutputSpec(columns="batch class score x1 y1 x2 y2", unit="share", first_class=1)
    num = evidence.graph.ends[tensor.name].class_width
    because = "rows of 7 in (1, 1, K, 7) are those of DetectionOutput (SSD)"
    return [Reading("end2end", because, num, "detection-output", spec, needs_nms=False)]


def paddle_rows(evidence: Evidence) -> list[Reading]:
    """PaddleDetection with its NMS: rows of all frames, and how many each frame has."""
    rows = [tensor for tensor in evidence.outputs if len(tensor.shape) == 2 and tensor.shape[1] == 6]
    counts = [tensor for tensor in evidence.outputs if len(tensor.shape) == 1 and "int" in tensor.dtype]
    masks = [tensor for tensor in evidence.outputs if len(tensor.shape) == 3 and "int" in tensor.dtype]
    if len(rows) != 1 or len(counts) != 1 or len(evidence.outputs) != 2 + len(masks) or len(masks) > 1:
        return []
    spec = OutputSpec(names={"main": rows[0].name}, columns="class score x1 y1 x2 y2")
    num = evidence.graph.ends[rows[0].name].class_width
    because = f"rows and a count are PaddleDetection's NMS{NO_MASKS if masks else ''}"
    return [Reading("end2end", because, num, "ppyoloe", spec, needs_nms=False)]
