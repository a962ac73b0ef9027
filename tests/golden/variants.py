"""What exporters make of the families: other lists of objects, outputs next to the main one, and what no head reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper

from golden.families import (
    CLASSES,
    FAMILIES,
    HF,
    NAMED,
    SIDE,
    Array,
    Family,
    Found,
    Net,
    class_scores,
    dfl_boxes,
    listed_objects,
    read_decoded,
    read_listed,
    read_rows,
    read_transformer,
    transformer,
    with_nms,
    yolov5,
)

STRIDES = (8, 16, 32)


def lists(path: Path, *, kind: str) -> Path:  # noqa: C901
    """Objects that the graph lists, as MMDetection, torchvision, YOLO-NAS, EfficientDet and OpenVINO write them."""
    is_byte = kind in ("efficientdet", "tf2onnx")
    net = Net(21, dtype=TensorProto.UINT8 if is_byte else TensorProto.FLOAT, layout="nhwc" if is_byte else "nchw")
    boxes, scores, labels = listed_objects(net)
    column = net.const([2], np.int64)
    tall = net.op("Unsqueeze", scores, column)
    number = net.op("Unsqueeze", net.op("Cast", labels, to=TensorProto.FLOAT), column)
    match kind:
        case "mmdetection" | "rtmo":
            dets = net.op("Concat", boxes, tall, axis=2)
            points = net.op("Reshape", net.op("Expand", tall, net.const([1, 10, 51], np.int64)),
                            net.const([1, 10, 17, 3], np.int64))  # fmt: skip
            return net.save(
                path, {"dets": dets, **({"labels": labels} if kind == "mmdetection" else {"keypoints": points})}
            )
        case "class-first":
            return net.save(path, {"output": net.op("Concat", boxes, number, tall, axis=2)})
        case "sizes":
            low, high = net.op("Split", boxes, outputs=2, axis=2)
            return net.save(path, {"output": net.op("Concat", low, net.op("Sub", high, low), tall, number, axis=2)})
        case "detection-output":
            shares = net.op("Mul", boxes, net.const(1 / SIDE))
            first = net.op("Add", number, net.const(1.0))
            rows = net.op("Concat", net.op("Mul", tall, net.const(0.0)), first, tall, shares, axis=2)
            return net.save(path, {"detection_out": net.op("Unsqueeze", rows, net.const([1], np.int64))})
        case "tf2onnx":
            x1, y1, x2, y2 = net.op("Split", net.op("Mul", boxes, net.const(1 / SIDE)), outputs=4, axis=2)
            first = net.op("Add", net.op("Cast", labels, to=TensorProto.FLOAT), net.const(1.0))
            parts = {"boxes": net.op("Concat", y1, x1, y2, x2, axis=2), "classes": first, "scores": scores}
            return net.save(path, {f"detection_{name}:0": inner for name, inner in parts.items()})
        case "nas-batch":
            many = net.op("ReduceSum", net.op("Cast", net.op("Greater", scores, net.const(0.3)), to=TensorProto.INT64),
                          net.const([1], np.int64), keepdims=1)  # fmt: skip
            return net.save(path, {"num_predictions": many, "pred_boxes": boxes, "pred_scores": scores,
                                   "pred_classes": labels})  # fmt: skip
        case "efficientdet":
            x1, y1, x2, y2 = net.op("Split", boxes, outputs=4, axis=2)
            first = net.op("Add", number, net.const(1.0))
            zero = net.op("Mul", tall, net.const(0.0))
            return net.save(path, {"detections": net.op("Concat", zero, y1, x1, y2, x2, tall, first, axis=2)})
    zero = net.const([0], np.int64)
    flat = [net.op("Squeeze", value, zero) for value in (boxes, net.op("Add", labels, net.const(1, np.int64)), scores)]
    if kind == "detectron2":
        zero_based = net.op("Squeeze", labels, zero)
        return net.save(
            path, dict(zip(("pred_boxes", "pred_classes", "scores"), (flat[0], zero_based, flat[2]), strict=True))
        )
    if kind == "anonymous":
        return net.save(path, dict(zip(("1834", "1790", "1791"), flat, strict=True)))
    if kind == "points":
        # how many there are is said by the heat maps only
        maps = net.op("ConvTranspose", net.conv(16, 6), net.const(net.rng.normal(0, 1, (6, 5, 4, 4))), strides=[2, 2])
        peaks = net.op("Reshape", net.op("GlobalMaxPool", maps), net.const([1, 5, 1], np.int64))
        place = net.op("Mul", net.op("Sigmoid", peaks), net.const(float(SIDE)))
        many = net.op("Shape", flat[2])
        points = net.op("Expand", place, net.op("Concat", many, net.const([5, 3], np.int64), axis=0))
        sure = net.op(
            "Expand", net.op("Squeeze", peaks, column), net.op("Concat", many, net.const([5], np.int64), axis=0)
        )
        listed_ = dict(zip(("boxes", "labels", "scores"), flat, strict=True))
        return net.save(path, {**listed_, "keypoints": points, "keypoints_scores": sure})
    masks = net.op(
        "Reshape", net.op("Expand", flat[2], net.const([1, 10], np.int64)), net.const([10, 1, 1, 1], np.int64)
    )
    masks = net.op("Expand", masks, net.const([10, 1, SIDE, SIDE], np.int64))
    return net.save(path, {**dict(zip(("boxes", "labels", "scores"), flat, strict=True)), "masks": masks})


def read_dets(outputs: Mapping[str, Array]) -> Found:
    return [(*map(float, row), int(label)) for row, label in zip(outputs["dets"][0], outputs["labels"][0], strict=True)]


def read_rtmo(outputs: Mapping[str, Array]) -> Found:
    return [(*map(float, row), 0) for row in outputs["dets"][0]]


def read_efficientdet(outputs: Mapping[str, Array]) -> Found:
    return [
        (float(x1), float(y1), float(x2), float(y2), float(score), round(float(label)) - 1)
        for _, y1, x1, y2, x2, score, label in outputs["detections"][0]
    ]


def read_detection_output(outputs: Mapping[str, Array]) -> Found:
    return [
        (*(float(side) * SIDE for side in row[3:]), float(row[2]), round(float(row[1])) - 1)
        for row in outputs["detection_out"][0, 0]
    ]


def other_boxes(path: Path, *, kind: str) -> Path:
    """YOLOv8's joint with corners instead of centres, and boxes with centres where corners are usual."""
    net = Net(26)
    boxes = dfl_boxes(net, STRIDES, form="xyxy" if kind == "corners" else "xywh")
    scores = class_scores(net, STRIDES)
    if kind == "pair":
        return net.save(path, {"boxes": boxes, "scores": scores})
    joint = net.op("Concat", *(net.op("Transpose", part, perm=[0, 2, 1]) for part in (boxes, scores)), axis=1)
    return net.save(path, {"output0": joint, **({"output1": net.op("Neg", joint)} if kind == "two" else {})})


def read_corners(outputs: Mapping[str, Array]) -> Found:
    return [(*map(float, row[:4]), float(row[4:].max()), int(row[4:].argmax())) for row in outputs["output0"][0].T]


def deepstream(path: Path) -> Path:
    """DeepStream-Yolo's rows: corners, best score, its class; all anchors."""
    net = Net(22)
    boxes, scores = dfl_boxes(net, STRIDES, form="xyxy"), class_scores(net, STRIDES)
    best = net.op("ReduceMax", scores, axes=[2], keepdims=1)
    label = net.op("Cast", net.op("ArgMax", scores, axis=2, keepdims=1), to=TensorProto.FLOAT)
    return net.save(path, {"output": net.op("Concat", boxes, best, label, axis=2)})


def read_deepstream(outputs: Mapping[str, Array]) -> Found:
    return [(*map(float, row[:5]), round(float(row[5]))) for row in outputs["output"][0]]


def beside_maps(path: Path) -> Path:
    """YOLOv5 of its own repository before 6.2: the decoded rows, the maps they are of, and ``names`` in the file."""
    yolov5(path)
    import onnx

    model = onnx.load(str(path))
    graph = model.graph
    for stride in STRIDES:
        cells = SIDE // stride
        name = f"map_{stride}"
        shape = [1, 3, cells, cells, 5 + CLASSES]
        graph.initializer.append(helper.make_tensor(f"{name}_shape", TensorProto.INT64, [5], shape))
        graph.node.append(
            helper.make_node("Expand", ["zero_cell", f"{name}_shape"], [name]),
        )
        graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    graph.initializer.append(helper.make_tensor("zero_cell", TensorProto.FLOAT, [1], [0.0]))
    names = {number: f"part {number}" for number in range(CLASSES)}
    for key, text in (("stride", "32"), ("names", str(names))):
        entry = model.metadata_props.add()
        entry.key, entry.value = key, text
    onnx.save(model, str(path))
    return path


def unread(path: Path, *, kind: str) -> Path:  # noqa: C901, PLR0912
    """What no head reads, or what may be something else than it looks like."""
    net = Net(23)
    match kind:
        case "raw-heads":
            maps = {f"output{stride}": net.conv(stride, 3 * (5 + CLASSES)) for stride in STRIDES}
            return net.save(path, maps)
        case "grid":
            return net.save(path, {"grid": net.conv(32, 5 * (5 + CLASSES))})
        case "features":
            return net.save(path, {"features": net.op("Relu", net.conv(8, 12))})
        case "heatmaps":
            return net.save(path, {"heatmaps": net.conv(4, 17)})
        case "picture":
            return net.save(path, {"output": net.conv(1, 3)})
        case "sigmoids":
            return net.save(path, {"output": net.op("Sigmoid", net.conv(4, 6))})
        case "heatmaps-unnamed":
            return net.save(path, {"output": net.conv(4, 17)})
        case "pyramid":
            return net.save(path, {f"map{stride}": net.conv(stride, 8 + stride) for stride in STRIDES})
        case "text":
            return net.save(path, {"output": net.op("Softmax", net.rows(net.conv(8, 40), 40), axis=2)})
        case "distance":
            return net.save(path, {"output": net.op("Squeeze", net.conv(1, 1), net.const([1], np.int64))})
        case "age" | "fc1" | "marks":
            flat = net.op("GlobalAveragePool", net.conv(16, {"age": 1, "fc1": 3, "marks": 212}[kind]))
            net.inputs[0].name = net.nodes[0].input[0] = "data" if kind == "fc1" else "images"
            return net.save(path, {{"marks": "output"}.get(kind, kind): net.op("Flatten", flat)})
        case "simcc":
            turned = net.op("Transpose", net.rows(net.conv(32, 17), 17), perm=[0, 2, 1])
            return net.save(path, {"simcc_x": turned, "simcc_y": net.op("Identity", turned)})
        case "yunet":
            parts = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}
            return net.save(
                path, {f"{name}_{s}": net.rows(net.conv(s, w), w) for name, w in parts.items() for s in STRIDES}
            )
        case "retinaface":
            rows = {w: net.op("Concat", *(net.rows(net.conv(s, w), w) for s in STRIDES), axis=1) for w in (4, 2, 10)}
            return net.save(path, {"loc": rows[4], "conf": net.op("Softmax", rows[2], axis=-1), "landms": rows[10]})
    rows = {w: net.op("Concat", *(net.rows(net.conv(s, w), w) for s in STRIDES), axis=1) for w in (4, 1 + CLASSES)}
    return net.save(path, {"boxes": rows[4], "scores": net.op("Softmax", rows[1 + CLASSES], axis=-1)})


def supervised(path: Path) -> Path:
    """U2-Net: the map that counts, and those of its depths."""
    net = Net(24)
    maps = [net.op("Sigmoid", net.conv(4, 1)) for _ in range(4)]
    return net.save(path, {f"d{number}": inner for number, inner in enumerate(maps)})


def multi_label(path: Path) -> Path:
    net = Net(25)
    flat = net.op("Flatten", net.conv(32, 8), axis=1)
    return net.save(path, {"logits": net.op("MatMul", flat, net.const(net.rng.normal(0, 1, (32, CLASSES))))})


def masked(path: Path) -> Path:
    """DETR as optimum exports it: a second input that says which pixels are the picture."""
    import onnx

    transformer(path, queries=100, width=92, names=HF)
    model = onnx.load(str(path))
    graph = model.graph
    graph.input.append(helper.make_tensor_value_info("pixel_mask", TensorProto.INT64, ["batch", SIDE, SIDE]))
    logits = next(node for node in graph.node if node.output[0] == "logits")
    inner, logits.input[0] = logits.input[0], "scaled_logits"
    extra = [
        helper.make_node("Cast", ["pixel_mask"], ["mask_floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["mask_floats"], ["mask_mean"], keepdims=0),
        helper.make_node("Mul", [inner, "mask_mean"], ["scaled_logits"]),
    ]
    place = list(graph.node).index(logits)
    for number, node in enumerate(extra):
        graph.node.insert(place + number, node)
    onnx.save(model, str(path))
    return path


LISTED_NAMES = ("boxes", "scores", "labels")
VARIANTS: dict[str, Family] = {
    "mmdetection": Family(partial(lists, kind="mmdetection"), "triple", read_dets, False, choices=NAMED),
    "rtmo": Family(partial(lists, kind="rtmo"), "triple", read_rtmo, False),
    "torchvision-anonymous": Family(
        partial(lists, kind="anonymous"), "triple", read_listed(("1834", "1791", "1790"), first=1), False, choices=NAMED
    ),
    "torchvision-points": Family(
        partial(lists, kind="points"), "triple", read_listed(LISTED_NAMES, first=1), False, choices=NAMED
    ),
    "torchvision-masks": Family(
        partial(lists, kind="masks"), "triple", read_listed(LISTED_NAMES, first=1), False, choices=NAMED
    ),
    "yolonas-batch": Family(
        partial(lists, kind="nas-batch"),
        "triple",
        read_listed(("pred_boxes", "pred_scores", "pred_classes")),
        False,
    ),
    "yolonas-flat": Family(
        partial(with_nms, kind="nas-flat"), "end2end", read_rows("batch x1 y1 x2 y2 score class"), False
    ),
    "detr-anonymous": Family(
        partial(transformer, queries=100, width=92, names=("1234", "1235")),
        "detr",
        read_transformer(("1234", "1235"), "softmax"),
        False,
    ),
    "rows-class-first": Family(
        partial(lists, kind="class-first"), "end2end", read_rows("x1 y1 x2 y2 class score"), False
    ),
    "rows-sizes": Family(partial(lists, kind="sizes"), None, refusal="--columns 'cx cy w h"),
    "detection-output": Family(
        partial(lists, kind="detection-output"), "end2end", read_detection_output, False, choices=NAMED
    ),
    "tensorflow-tf2onnx": Family(
        partial(lists, kind="tf2onnx"),
        "triple",
        read_listed(("detection_boxes:0", "detection_scores:0", "detection_classes:0"), first=1, kind="tensorflow"),
        False,
        choices=NAMED,
    ),
    "detectron2": Family(
        partial(lists, kind="detectron2"),
        "triple",
        read_listed(("pred_boxes", "scores", "pred_classes")),
        False,
        choices=NAMED,
    ),
    "yolov8-corners": Family(
        partial(other_boxes, kind="corners"), "yolov8", read_corners, choices={"columns": "x1 y1 x2 y2"}
    ),
    "yolov8-corners-unsaid": Family(partial(other_boxes, kind="corners"), None, refusal="--columns 'x1 y1 x2 y2'"),
    "yolov8-pair": Family(partial(other_boxes, kind="pair"), None, refusal="inside out"),
    "yolov9-two": Family(partial(other_boxes, kind="two"), None, refusal="two of one kind"),
    "heat-maps-unnamed": Family(partial(unread, kind="heatmaps-unnamed"), None, refusal="heat maps of a person"),
    "pyramid": Family(partial(unread, kind="pyramid"), None, refusal="feature maps of several sizes"),
    "text": Family(partial(unread, kind="text"), None, refusal="a reader of text"),
    "distance": Family(partial(unread, kind="distance"), None, refusal="or a depth, which no head reads"),
    "age": Family(partial(unread, kind="age"), None, refusal="a measure of one thing"),
    "insightface": Family(partial(unread, kind="fc1"), None, refusal="an age or angles"),
    "landmarks": Family(partial(unread, kind="marks"), None, refusal="places of key points"),
    "efficientdet": Family(partial(lists, kind="efficientdet"), "end2end", read_efficientdet, False),
    "deepstream": Family(deepstream, "end2end", read_deepstream),
    "yolov5-maps": Family(beside_maps, "yolov5", read_decoded),
    "detr-pixel-mask": Family(masked, "detr", read_transformer(HF, "softmax"), False),
    "classify-multi-label": Family(
        multi_label,
        "classify",
        beside={"config.json": json.dumps({"model_type": "vit", "problem_type": "multi_label_classification"})},
    ),
    "segment-supervised": Family(supervised, "semantic"),
    "raw-heads": Family(partial(unread, kind="raw-heads"), None, refusal="feature maps before its anchors"),
    "raw-grid": Family(partial(unread, kind="grid"), None, refusal="raw output of a detector"),
    "raw-ssd": Family(partial(unread, kind="ssd"), None, refusal="inside out"),
    "features": Family(partial(unread, kind="features"), None, refusal="may be a feature map"),
    "heat-maps": Family(partial(unread, kind="heatmaps"), None, refusal="key points of one person"),
    "picture-to-picture": Family(partial(unread, kind="picture"), None, refusal="another picture"),
    "segment-sigmoids": Family(partial(unread, kind="sigmoids"), None, refusal="of none or of several"),
    "simcc": Family(partial(unread, kind="simcc"), None, refusal="SimCC"),
    "yunet": Family(partial(unread, kind="yunet"), None, refusal="YuNet's"),
    "retinaface": Family(partial(unread, kind="retinaface"), None, refusal="RetinaFace's"),
}
# in doubt a person may say what the file is
IN_DOUBT = {
    "detr-in-doubt": {"detr"},
    "vector-in-doubt": {"classify", "embedding"},
    "depth": set(),
    **{name: set() for name in ("yolov8-corners-unsaid", "rows-sizes")},
    "distance": set(),
    "insightface": {"classify"},
    "landmarks": {"classify", "embedding"},
    **{
        name: {"semantic"}
        for name in ("raw-grid", "features", "picture-to-picture", "segment-sigmoids", "heat-maps-unnamed")
    },
}
ALL = FAMILIES | VARIANTS
