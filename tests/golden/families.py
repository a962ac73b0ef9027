"""Small networks whose outputs have a family's shape and meaning, and a decoder written from its published rule.

The convolutions look at the picture with random weights (seeded), the end of each graph is the family's own operators,
and ``decode`` reads the raw outputs as the project's demo code does. N batch 1, A anchors, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, SupportsInt

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[Any]
SIDE = 64
CLASSES = 4
Row = tuple[float, float, float, float, float, int]
Found = list[Row]
Decode = Callable[[Mapping[str, Array]], Found]


class Net:
    """A graph under construction."""

    def __init__(self, seed: int, *, side: int = SIDE, dtype: int = TensorProto.FLOAT, layout: str = "nchw") -> None:
        self.rng = np.random.default_rng(seed)
        self.side = side
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        shape = [1, 3, side, side] if layout == "nchw" else [1, side, side, 3]
        self.inputs = [helper.make_tensor_value_info("images", dtype, shape)]
        last = self.op("Cast", "images", to=TensorProto.FLOAT)
        if layout != "nchw":
            last = self.op("Transpose", last, perm=[0, 3, 1, 2])
        # whatever the preparation is, the features are spread alike
        self.image = self.op("MeanVarianceNormalization", last, axes=[2, 3])

    def op(self, kind: str, *sources: str, outputs: int = 1, **attributes: Any) -> Any:
        names = [f"t{len(self.nodes)}_{index}" for index in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(sources), names, **attributes))
        return names[0] if outputs == 1 else names

    def const(self, values: Any, dtype: Any = np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def conv(self, stride: int, channels: int, *, bias: float = 0.0, gain: float = 2.0) -> str:
        """(1, channels, h, w) features of cells of this stride."""
        pooled = self.op("AveragePool", self.image, kernel_shape=[stride, stride], strides=[stride, stride])
        weight = self.const(self.rng.normal(0, gain, (channels, 3, 1, 1)))
        return self.op("Conv", pooled, weight, self.const(self.rng.normal(bias, 0.3, channels)))

    def rows(self, source: str, width: int) -> str:
        """(1, C, h, w) as (1, h w, C)."""
        flat = self.op("Reshape", source, self.const([1, width, -1], np.int64))
        return self.op("Transpose", flat, perm=[0, 2, 1])

    def save(self, path: Path, outputs: Mapping[str, str], *, metadata: Mapping[str, str] | None = None,
             shapes: Mapping[str, Sequence[Any]] | None = None) -> Path:  # fmt: skip
        """Write the file. ``outputs``: name → inner tensor."""
        nodes = [*self.nodes, *(helper.make_node("Identity", [inner], [name]) for name, inner in outputs.items())]
        values = [helper.make_empty_tensor_value_info(name) for name in outputs]
        graph = helper.make_graph(nodes, "family", self.inputs, values, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        model.ir_version = 8
        model = onnx.shape_inference.infer_shapes(model)
        for value in model.graph.output:
            if shapes and value.name in shapes:
                kind = value.type.tensor_type.elem_type
                value.CopyFrom(helper.make_tensor_value_info(value.name, kind, shapes[value.name]))
        for key, text in (metadata or {}).items():
            entry = model.metadata_props.add()
            entry.key, entry.value = key, text
        onnx.save(model, str(path))
        return path


@dataclass(frozen=True)
class Family:
    """One golden file.

    Attributes:
        build: writes the ONNX file to a path.
        head: that must read it; None where the file must be refused.
        decode: raw outputs → boxes in model pixels, before NMS; None for heads without boxes.
        has_nms: the reference suppresses doubles afterwards.
        refusal: part of the sentence that refuses the file.
        beside: name → content of files next to it.
        choices: what a person must say.
    """

    build: Callable[[Path], Path]
    head: str | None
    decode: Decode | None = None
    has_nms: bool = True
    refusal: str = ""
    beside: dict[str, str] = field(default_factory=dict)
    choices: dict[str, Any] = field(default_factory=dict)


def cells(strides: Sequence[int], side: int = SIDE) -> list[tuple[int, int, int]]:
    return [(x, y, stride) for stride in strides for y in range(side // stride) for x in range(side // stride)]


def sigmoid(values: Array) -> Array:
    return 1 / (1 + np.exp(-values))


def softmax(values: Array) -> Array:
    weights = np.exp(values - values.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def centred(box: Iterable[float], score: float, label: SupportsInt) -> Row:
    cx, cy, w, h = box
    return (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2, float(score), int(label))


# --- rows of cells


def yolox(path: Path, *, is_decoded: bool = False) -> Path:
    net = Net(1)
    scales, grids, sizes = [], [], []
    for stride in (8, 16, 32):
        parts = [
            net.conv(stride, 4, gain=0.5),
            net.op("Sigmoid", net.conv(stride, 1, bias=0.5)),
            net.op("Sigmoid", net.conv(stride, CLASSES, bias=-0.5)),
        ]
        joined = net.op("Concat", *parts, axis=1)
        scales.append(net.op("Reshape", joined, net.const([1, 5 + CLASSES, -1], np.int64)))
        grids += [(x, y) for x, y, _ in cells([stride])]
        sizes += [stride] * (SIDE // stride) ** 2
    raw = net.op("Transpose", net.op("Concat", *scales, axis=2), perm=[0, 2, 1])
    if not is_decoded:
        return net.save(path, {"output": raw})
    xy, wh, rest = net.op("Split", raw, net.const([2, 2, 1 + CLASSES], np.int64), outputs=3, axis=2)
    stride_ = net.const(np.array(sizes)[None, :, None])
    xy = net.op("Mul", net.op("Add", xy, net.const(np.array(grids)[None])), stride_)
    wh = net.op("Mul", net.op("Exp", wh), stride_)
    return net.save(path, {"output": net.op("Concat", xy, wh, rest, axis=2)})


def read_yolox(outputs: Mapping[str, Array]) -> Found:
    found = []
    for row, (x, y, stride) in zip(outputs["output"][0], cells([8, 16, 32]), strict=True):
        label = int(row[5:].argmax())
        w, h = np.exp(row[2]) * stride, np.exp(row[3]) * stride
        found.append(centred(((row[0] + x) * stride, (row[1] + y) * stride, w, h), row[4] * row[5 + label], label))
    return found


def read_decoded(outputs: Mapping[str, Array]) -> Found:
    rows = next(iter(outputs.values()))[0]
    return [centred(row[:4], row[4] * row[5:].max(), row[5:].argmax()) for row in rows]


def yolov6(path: Path) -> Path:
    net = Net(2)
    boxes, classes = [], []
    for stride in (8, 16, 32):
        sides = net.op("Softplus", net.conv(stride, 4, gain=0.8))
        left, right = net.op("Split", net.rows(sides, 4), outputs=2, axis=2)
        corner = net.const(np.array([(x + 0.5, y + 0.5) for x, y, _ in cells([stride])])[None])
        low, high = net.op("Sub", corner, left), net.op("Add", corner, right)
        centre = net.op("Mul", net.op("Add", low, high), net.const(0.5))
        box = net.op("Concat", centre, net.op("Sub", high, low), axis=2)
        boxes.append(net.op("Mul", box, net.const(float(stride))))
        classes.append(net.rows(net.op("Sigmoid", net.conv(stride, CLASSES, bias=-0.5)), CLASSES))
    ones = net.const(np.ones((1, len(cells([8, 16, 32])), 1)))
    joined = net.op("Concat", net.op("Concat", *boxes, axis=1), ones, net.op("Concat", *classes, axis=1), axis=2)
    return net.save(path, {"outputs": joined})


def yolov5(path: Path, *, strides: tuple[int, ...] = (8, 16, 32), side: int = SIDE) -> Path:
    net = Net(3, side=side)
    scales = []
    for stride in strides:
        count = side // stride
        raw = net.op("Sigmoid", net.conv(stride, 3 * (5 + CLASSES)))
        shape = net.const([1, 3, 5 + CLASSES, count, count], np.int64)
        rows = net.op("Transpose", net.op("Reshape", raw, shape), perm=[0, 1, 3, 4, 2])
        xy, wh, rest = net.op("Split", rows, net.const([2, 2, 1 + CLASSES], np.int64), outputs=3, axis=4)
        grid = np.stack(np.meshgrid(range(count), range(count)), -1)[None, None] - 0.5
        two, step = net.const(2.0), net.const(float(stride))
        xy = net.op("Mul", net.op("Add", net.op("Mul", xy, two), net.const(grid)), step)
        anchors = net.const(np.array([[2, 3], [4, 3], [3, 6]])[None, :, None, None] * stride / 2)
        wh = net.op("Mul", net.op("Pow", net.op("Mul", wh, two), two), anchors)
        joined = net.op("Concat", xy, wh, rest, axis=4)
        scales.append(net.op("Reshape", joined, net.const([1, -1, 5 + CLASSES], np.int64)))
    return net.save(path, {"output": net.op("Concat", *scales, axis=1)})


def dfl_boxes(net: Net, strides: Sequence[int], *, form: str) -> str:
    """(1, A, 4) decoded boxes, ``xyxy`` or ``xywh``, in pixels."""
    boxes = []
    for stride in strides:
        sides = net.rows(net.op("Softplus", net.conv(stride, 4, gain=0.8)), 4)
        left, right = net.op("Split", sides, outputs=2, axis=2)
        centre = net.const(np.array([(x + 0.5, y + 0.5) for x, y, _ in cells([stride])])[None])
        low, high = net.op("Sub", centre, left), net.op("Add", centre, right)
        if form == "xywh":
            low, high = net.op("Mul", net.op("Add", low, high), net.const(0.5)), net.op("Sub", high, low)
        boxes.append(net.op("Mul", net.op("Concat", low, high, axis=2), net.const(float(stride))))
    return net.op("Concat", *boxes, axis=1)


def class_scores(net: Net, strides: Sequence[int], *, bias: float = -0.5) -> str:
    rows = [net.rows(net.conv(stride, CLASSES, bias=bias), CLASSES) for stride in strides]
    return net.op("Sigmoid", net.op("Concat", *rows, axis=1))


def yolov8(path: Path, *, extra: int = 0, is_turned: bool = False, kind: str = "Mul", masks: bool = False) -> Path:
    net = Net(4)
    parts = [dfl_boxes(net, (8, 16, 32), form="xywh"), class_scores(net, (8, 16, 32))]
    if extra:
        rows = net.op("Concat", *(net.rows(net.conv(stride, extra), extra) for stride in (8, 16, 32)), axis=1)
        parts.append(net.op(kind, rows, net.const(20.0)))
    if is_turned:
        return net.save(path, {"output0": net.op("Concat", *parts, axis=2)})
    upright = [net.op("Transpose", part, perm=[0, 2, 1]) for part in parts]
    outputs = {"output0": net.op("Concat", *upright, axis=1)}
    if masks:
        outputs["output1"] = net.conv(4, extra)
    return net.save(path, outputs)


def read_yolov8(outputs: Mapping[str, Array]) -> Found:
    raw = outputs["output0"][0]
    rows = raw if raw.shape[1] == 4 + CLASSES else raw.T
    return [centred(row[:4], row[4 : 4 + CLASSES].max(), row[4 : 4 + CLASSES].argmax()) for row in rows]


def nanodet(
    path: Path, *, strides: tuple[int, ...] = (8, 16, 32), is_split: bool = False, names: str = "stride"
) -> Path:
    net = Net(5)
    rows, outputs = [], {}
    for stride in strides:
        scores = net.rows(net.op("Sigmoid", net.conv(stride, CLASSES, bias=-0.5)), CLASSES)
        bins = net.rows(net.conv(stride, 32), 32)
        outputs[f"cls_pred_stride_{stride}" if names == "stride" else f"score_{stride}"] = scores
        outputs[f"dis_pred_stride_{stride}" if names == "stride" else f"bins_{stride}"] = bins
        rows.append(net.op("Concat", scores, bins, axis=2))
    if is_split:
        # as the exporters list them: all scores, then all bins
        return net.save(path, dict(sorted(outputs.items(), key=lambda item: item[0].startswith(("dis", "bins")))))
    return net.save(path, {"output": net.op("Concat", *rows, axis=1)})


def read_nanodet(strides: Sequence[int], middle: float, *, is_split: bool = False) -> Decode:
    def read(outputs: Mapping[str, Array]) -> Found:
        if is_split:
            values = list(outputs.values())
            half = len(values) // 2
            scores, bins = (np.concatenate([value[0] for value in group]) for group in (values[:half], values[half:]))
        else:
            scores, bins = np.split(outputs["output"][0], [CLASSES], axis=1)
        found: Found = []
        for score, sides, (x, y, stride) in zip(scores, bins, cells(strides), strict=True):
            left, up, right, down = softmax(sides.reshape(4, 8)) @ np.arange(8) * stride
            cx, cy = (x + middle) * stride, (y + middle) * stride
            # an anchor may stand for every class
            found += [(cx - left, cy - up, cx + right, cy + down, float(s), k) for k, s in enumerate(score)]
        return found

    return read


# --- boxes next to scores


def pairs(path: Path, *, kind: str) -> Path:
    net = Net(6)
    strides = (8, 16, 32)
    boxes, scores = dfl_boxes(net, strides, form="xyxy"), class_scores(net, strides)
    if kind == "ppyoloe":
        scores = net.op("Transpose", scores, perm=[0, 2, 1])
        return net.save(path, {"tmp_16": boxes, "concat_14.tmp_0": scores})
    if kind == "yolonas":
        return net.save(path, {"graph2_pred_boxes": boxes, "graph2_pred_scores": scores})
    if kind == "damoyolo":
        return net.save(path, {"output": scores, "952": boxes})
    shares = net.op("Mul", boxes, net.const(1 / SIDE))
    logits = net.op("Concat", *(net.rows(net.conv(stride, 1 + CLASSES), 1 + CLASSES) for stride in strides), axis=1)
    return net.save(path, {"scores": net.op("Softmax", logits, axis=-1), "boxes": shares})


def read_pairs(kind: str) -> Decode:
    def read(outputs: Mapping[str, Array]) -> Found:
        first, second = (value[0] for value in outputs.values())
        boxes, values = (second, first) if kind in ("ssd", "damoyolo") else (first, second)
        scores = values.T if kind == "ppyoloe" else values[:, 1:] if kind == "ssd" else values
        scale = SIDE if kind == "ssd" else 1
        return [
            (*(float(x) * scale for x in box), float(row.max()), int(row.argmax()))
            for box, row in zip(boxes, scores, strict=True)
        ]

    return read


def transformer(
    path: Path, *, queries: int, width: int, names: tuple[str, str], samples: bool = False, masks: bool = False
) -> Path:
    net = Net(7)
    flat = net.op("Flatten", net.conv(16, 8), axis=1)
    outputs = {}
    for name, size in zip(names, (4, width), strict=True):
        weight = net.const(net.rng.normal(0, 0.4, (128, queries * size)))
        rows = net.op("Reshape", net.op("MatMul", flat, weight), net.const([1, queries, size], np.int64))
        outputs[name] = net.op("Sigmoid", rows) if size == 4 else rows
    if samples:
        grid = net.const(np.zeros((1, 2, 2, 2)))
        point = net.op("ReduceMean", net.op("GridSample", net.image, grid), keepdims=0)
        outputs[names[1]] = net.op("Add", outputs[names[1]], net.op("Mul", point, net.const(0.1)))
    if masks:
        outputs["masks"] = net.op(
            "Reshape",
            net.op("MatMul", flat, net.const(np.ones((128, queries * 64)))),
            net.const([1, queries, 8, 8], np.int64),
        )
    return net.save(path, outputs)


def read_transformer(names: tuple[str, str], kind: str) -> Decode:
    def read(outputs: Mapping[str, Array]) -> Found:
        boxes, logits = outputs[names[0]][0] * SIDE, outputs[names[1]][0]
        if kind == "softmax":
            return [
                centred(box, row.max(), row.argmax()) for box, row in zip(boxes, softmax(logits)[:, :-1], strict=True)
            ]
        # as many as there are queries, of all scores of all queries
        scores = sigmoid(logits)
        best = np.argsort(-scores, axis=None, kind="stable")[: len(boxes)]
        return [centred(boxes[at // scores.shape[1]], scores.flat[at], at % scores.shape[1]) for at in best]

    return read


# --- objects listed in the graph


def listed_objects(net: Net, *, count: int = 10) -> tuple[str, str, str]:
    """Boxes (1, K, 4) x1 y1 x2 y2, scores (1, K), labels (1, K) int64 of the best anchors."""
    boxes, scores = dfl_boxes(net, (8, 16, 32), form="xyxy"), class_scores(net, (8, 16, 32))
    flat = net.op("Reshape", scores, net.const([1, -1], np.int64))
    best, index = net.op("TopK", flat, net.const([count], np.int64), outputs=2, axis=1)
    num = net.const(CLASSES, np.int64)
    anchor, label = net.op("Div", index, num), net.op("Mod", index, num)
    places = net.op("Expand", net.op("Unsqueeze", anchor, net.const([2], np.int64)), net.const([1, count, 4], np.int64))
    return net.op("GatherElements", boxes, places, axis=1), best, label


def listed(path: Path, *, kind: str) -> Path:
    uint8 = kind == "tensorflow"
    net = Net(8, dtype=TensorProto.UINT8 if uint8 else TensorProto.FLOAT, layout="nhwc" if uint8 else "nchw")
    boxes, scores, labels = listed_objects(net)
    number = net.op("Cast", labels, to=TensorProto.FLOAT)
    column = net.const([2], np.int64)
    match kind:
        case "rows":
            tall = [net.op("Unsqueeze", name, column) for name in (scores, number)]
            return net.save(path, {"output0": net.op("Concat", boxes, *tall, axis=2)})
        case "efficientnms":
            many = net.op("ReduceSum", net.op("Cast", net.op("Greater", scores, net.const(0.3)), to=TensorProto.INT32),
                          net.const([1], np.int64), keepdims=1)  # fmt: skip
            label = net.op("Cast", labels, to=TensorProto.INT32)
            return net.save(path, {"num_dets": many, "det_boxes": boxes, "det_scores": scores, "det_classes": label})
        case "tensorflow":
            x1, y1, x2, y2 = net.op("Split", net.op("Mul", boxes, net.const(1 / SIDE)), outputs=4, axis=2)
            turned = net.op("Concat", y1, x1, y2, x2, axis=2)
            first = net.op("Add", number, net.const(1.0))
            num = net.op(
                "Add",
                net.op("Mul", net.op("ReduceMean", scores, axes=[1], keepdims=0), net.const(0.0)),
                net.const(10.0),
            )
            raw = net.op("Softmax", net.rows(net.conv(8, 1 + CLASSES), 1 + CLASSES), axis=-1)
            return net.save(path, {"detection_boxes": turned, "detection_classes": first, "detection_scores": scores,
                                   "num_detections": num, "raw_detection_scores": raw})  # fmt: skip
        case "torchvision":
            zero = net.const([0], np.int64)
            flat = {name: net.op("Squeeze", value, zero) for name, value in (("boxes", boxes), ("scores", scores))}
            return net.save(
                path, {**flat, "labels": net.op("Squeeze", net.op("Add", labels, net.const(1, np.int64)), zero)}
            )
    net.inputs.append(helper.make_tensor_value_info("orig_target_sizes", TensorProto.INT64, [1, 2]))
    size = net.op("Cast", "orig_target_sizes", to=TensorProto.FLOAT)
    scale = net.op("Unsqueeze", net.op("Concat", size, size, axis=1), net.const([1], np.int64))
    scaled = net.op("Mul", net.op("Mul", boxes, net.const(1 / SIDE)), scale)
    return net.save(path, {"labels": labels, "boxes": scaled, "scores": scores})


def read_listed(names: tuple[str, str, str], *, first: int = 0, kind: str = "") -> Decode:
    def read(outputs: Mapping[str, Array]) -> Found:
        if kind == "rows":
            return [(*map(float, row[:5]), round(float(row[5]))) for row in outputs["output0"][0]]
        boxes, scores, labels = (np.reshape(outputs[name], (-1, 4) if name == names[0] else -1) for name in names)
        if kind == "tensorflow":
            boxes = boxes[:, [1, 0, 3, 2]] * SIDE
        many = int(outputs["num_dets"].ravel()[0]) if kind == "efficientnms" else len(boxes)
        return [(*map(float, box), float(score), round(float(label)) - first) for box, score, label in
                zip(boxes[:many], scores[:many], labels[:many], strict=True)]  # fmt: skip

    return read


def with_nms(path: Path, *, kind: str) -> Path:
    """ONNX's own NMS: rows of YOLOv7 (batch, box, class, score), of YOLO-NAS, or of PaddleDetection, with a count."""
    net = Net(9)
    boxes, scores = dfl_boxes(net, (8, 16, 32), form="xyxy"), class_scores(net, (8, 16, 32))
    turned = net.op("Transpose", scores, perm=[0, 2, 1])
    limits = net.const([20], np.int64), net.const([0.5]), net.const([0.3])
    picked = net.op("NonMaxSuppression", boxes, turned, *limits)
    batch, label, anchor = net.op("Split", picked, outputs=3, axis=1)
    box = net.op(
        "Gather",
        net.op("Squeeze", boxes, net.const([0], np.int64)),
        net.op("Squeeze", anchor, net.const([1], np.int64)),
    )
    score = net.op("GatherND", turned, picked)
    score = net.op("Unsqueeze", score, net.const([1], np.int64))
    batch, label = net.op("Cast", batch, to=TensorProto.FLOAT), net.op("Cast", label, to=TensorProto.FLOAT)
    if kind == "nas-flat":
        return net.save(path, {"graph2_flat_predictions": net.op("Concat", batch, box, score, label, axis=1)})
    if kind == "yolov7":
        return net.save(path, {"output": net.op("Concat", batch, box, label, score, axis=1)})
    net.inputs.append(helper.make_tensor_value_info("scale_factor", TensorProto.FLOAT, [1, 2]))
    factor = net.op("Concat", "scale_factor", "scale_factor", axis=1)
    rows = net.op("Concat", label, score, net.op("Div", box, factor), axis=1)
    many = net.op("Cast", net.op("Gather", net.op("Shape", rows), net.const([0], np.int64)), to=TensorProto.INT32)
    return net.save(path, {"multiclass_nms3_0.tmp_0": rows, "multiclass_nms3_0.tmp_2": many})


def read_rows(order: str) -> Decode:
    def read(outputs: Mapping[str, Array]) -> Found:
        names = order.split()
        place = [names.index(name) for name in ("x1", "y1", "x2", "y2", "score", "class")]
        rows = next(iter(outputs.values()))[..., place].reshape(-1, 6)
        return [(*map(float, row[:5]), round(float(row[5]))) for row in rows]

    return read


# --- maps


def fastestdet(path: Path) -> Path:
    net = Net(10)
    parts = [
        net.op("Sigmoid", net.conv(16, 1)),
        net.conv(16, 4),
        net.op("Softmax", net.conv(16, CLASSES), axis=1),
    ]
    return net.save(path, {"output": net.op("Concat", *parts, axis=1)})


def read_fastestdet(outputs: Mapping[str, Array]) -> Found:
    found: Found = []
    raw = outputs["output"][0]
    for y in range(4):
        for x in range(4):
            data = raw[:, y, x]
            score = data[0] ** 0.6 * data[5:].max() ** 0.4
            cx, cy = (x + np.tanh(data[1])) / 4 * SIDE, (y + np.tanh(data[2])) / 4 * SIDE
            w, h = sigmoid(data[3:5]) * SIDE
            found.append(centred((cx, cy, w, h), score, data[5:].argmax()))
    return found


def centernet(path: Path, *, is_ready: bool) -> Path:
    net = Net(11)
    heat = net.conv(4, CLASSES, bias=-1)
    size = net.op("Softplus", net.conv(4, 2))
    outputs = {
        "hm": net.op("Sigmoid", heat) if is_ready else heat,
        "wh": size,
        "reg": net.op("Sigmoid", net.conv(4, 2)),
    }
    return net.save(path, outputs)


def read_centernet(*, is_ready: bool) -> Decode:
    def read(outputs: Mapping[str, Array]) -> Found:
        heat = outputs["hm"][0] if is_ready else sigmoid(outputs["hm"][0])
        found: Found = []
        for label, plane in enumerate(heat):
            padded = np.pad(plane, 1, constant_values=-1)
            for y in range(16):
                for x in range(16):
                    if plane[y, x] == padded[y : y + 3, x : x + 3].max():
                        dx, dy = outputs["reg"][0, :, y, x]
                        w, h = outputs["wh"][0, :, y, x] * 4
                        found.append(centred(((x + dx) * 4, (y + dy) * 4, w, h), plane[y, x], label))
        return sorted(found, key=lambda one: -one[4])[:100]

    return read


# --- whole pictures


def whole(path: Path, *, kind: str) -> Path:  # noqa: C901, PLR0912
    net = Net(12, layout="nhwc" if kind == "map-nhwc" else "nchw")
    mean = net.op("Flatten", net.op("GlobalAveragePool", net.conv(8, 8)), axis=1)
    mean = net.op("Flatten", net.conv(32, 8), axis=1) if not kind.startswith("map") else mean

    def linear(width: int) -> str:
        return net.op("MatMul", mean, net.const(net.rng.normal(0, 1, (32, width))))

    match kind:
        case "softmax":
            return net.save(path, {"output0": net.op("Softmax", linear(5), axis=-1)})
        case "logits":
            return net.save(path, {"logits": linear(5)})
        case "sigmoid":
            return net.save(path, {"output": net.op("Sigmoid", linear(6))})
        case "one-logit":
            return net.save(path, {"output": linear(1)})
        case "cell":
            return net.save(path, {"output": net.op("Reshape", linear(5), net.const([1, 5, 1, 1], np.int64))})
        case "embedding":
            return net.save(path, {"output": net.op("LpNormalization", linear(128), axis=1, p=2)})
        case "wide":
            return net.save(path, {"output": linear(512)})
        case "two":
            return net.save(path, {"colour": linear(5), "kind": linear(3)})
        case "map-nchw":
            return net.save(path, {"output": net.op("Softmax", net.conv(4, 6), axis=1)})
        case "map-nhwc":
            soft = net.op("Softmax", net.conv(4, 19), axis=1)
            return net.save(path, {"output": net.op("Transpose", soft, perm=[0, 2, 3, 1])})
        case "map-binary":
            return net.save(path, {"output": net.op("Sigmoid", net.conv(4, 1))})
        case "map-depth":
            return net.save(path, {"depth": net.op("Relu", net.conv(4, 1))})
        case "map-argmax" | "map-argmax-keep" | "map-argmax-float":
            best = net.op("ArgMax", net.conv(4, 6), axis=1, keepdims=int(kind.endswith("keep")))
            return net.save(
                path, {"output": net.op("Cast", best, to=TensorProto.FLOAT) if kind.endswith("float") else best}
            )
        case "map-aux":
            return net.save(path, {"out": net.conv(4, 21), "aux": net.conv(4, 21)})
    wide = net.op("Resize", net.conv(2, 3), "", net.const([1, 1, 4, 4]), mode="nearest")
    return net.save(path, {"output": wide})


def _partial(function: Callable[..., Path], **arguments: Any) -> Callable[[Path], Path]:
    return lambda path: function(path, **arguments)


P6 = (8, 16, 32, 64)
HF = ("pred_boxes", "logits")
NAMED = {"classes": tuple(f"thing {index}" for index in range(CLASSES))}
FAMILIES: dict[str, Family] = {
    "yolox": Family(yolox, "yolox", read_yolox),
    "yolox-decoded": Family(_partial(yolox, is_decoded=True), "yolov5", read_decoded),
    "yolov6": Family(yolov6, "yolov5", read_decoded),
    "yolov5": Family(yolov5, "yolov5", read_decoded),
    "yolov5-p6": Family(_partial(yolov5, strides=P6), "yolov5", read_decoded),
    "yolov8": Family(yolov8, "yolov8", read_yolov8),
    "yolov8-turned": Family(_partial(yolov8, is_turned=True), "yolov8", read_yolov8),
    "yolov8-seg": Family(_partial(yolov8, extra=8, masks=True), "yolov8-seg", read_yolov8),
    "yolov8-pose": Family(_partial(yolov8, extra=51), "yolov8-pose", read_yolov8),
    "yolov8-more": Family(_partial(yolov8, extra=10), "yolov8", read_yolov8),
    "yolov8-obb": Family(_partial(yolov8, extra=1), "yolov8-obb"),
    "nanodet": Family(nanodet, "nanodet", read_nanodet((8, 16, 32), 0.5)),
    "nanodet-split": Family(_partial(nanodet, is_split=True), "nanodet", read_nanodet((8, 16, 32), 0.5, is_split=True)),
    "nanodetplus": Family(_partial(nanodet, strides=P6), "nanodetplus", read_nanodet(P6, 0)),
    "picodet": Family(
        _partial(nanodet, strides=P6, is_split=True, names="plain"), "picodet", read_nanodet(P6, 0.5, is_split=True)
    ),
    "yolonas": Family(_partial(pairs, kind="yolonas"), "yolonas", read_pairs("yolonas")),
    "damoyolo": Family(_partial(pairs, kind="damoyolo"), "yolonas", read_pairs("damoyolo")),
    "ppyoloe": Family(_partial(pairs, kind="ppyoloe"), "yolonas", read_pairs("ppyoloe")),
    "ssd": Family(_partial(pairs, kind="ssd"), "ssd", read_pairs("ssd")),
    "rtdetr-hf": Family(
        _partial(transformer, queries=300, width=CLASSES, names=HF, samples=True),
        "detr",
        read_transformer(HF, "sigmoid"),
        False,
    ),
    "detr-hf": Family(
        _partial(transformer, queries=100, width=92, names=HF), "detr", read_transformer(HF, "softmax"), False
    ),
    "detr-in-doubt": Family(
        _partial(transformer, queries=100, width=7, names=HF),
        None,
        refusal="--activation softmax or --head detr --activation sigmoid",
    ),
    "yolos-config": Family(
        _partial(transformer, queries=100, width=5, names=HF),
        "detr",
        read_transformer(HF, "softmax"),
        False,
        beside={"config.json": '{"model_type": "yolos", "id2label": {"0": "a", "1": "b", "2": "c", "3": "d"}}'},
    ),
    "rfdetr": Family(
        _partial(transformer, queries=30, width=6, names=("dets", "labels")),
        "detr",
        read_transformer(("dets", "labels"), "sigmoid"),
        False,
    ),
    "rfdetr-seg": Family(
        _partial(transformer, queries=30, width=6, names=("dets", "labels"), masks=True),
        "detr",
        read_transformer(("dets", "labels"), "sigmoid"),
        False,
    ),
    "end2end": Family(_partial(listed, kind="rows"), "end2end", read_listed(("", "", ""), kind="rows"), False),
    "efficientnms": Family(
        _partial(listed, kind="efficientnms"),
        "triple",
        read_listed(("det_boxes", "det_scores", "det_classes"), kind="efficientnms"),
        False,
    ),
    "tensorflow": Family(
        _partial(listed, kind="tensorflow"),
        "triple",
        read_listed(("detection_boxes", "detection_scores", "detection_classes"), first=1, kind="tensorflow"),
        False,
    ),
    "torchvision": Family(
        _partial(listed, kind="torchvision"),
        "triple",
        read_listed(("boxes", "scores", "labels"), first=1),
        False,
        choices=NAMED,
    ),
    "torchvision-unnamed": Family(_partial(listed, kind="torchvision"), None, refusal="does not say how many classes"),
    "rtdetr-official": Family(
        _partial(listed, kind="official"), "triple", read_listed(("boxes", "scores", "labels")), False
    ),
    "yolov7-nms": Family(
        _partial(with_nms, kind="yolov7"), "end2end", read_rows("batch x1 y1 x2 y2 class score"), False
    ),
    "ppyoloe-nms": Family(_partial(with_nms, kind="paddle"), "end2end", read_rows("class score x1 y1 x2 y2"), False),
    "fastestdet": Family(fastestdet, "fastestdet", read_fastestdet),
    "centernet": Family(_partial(centernet, is_ready=True), "centernet", read_centernet(is_ready=True), False),
    "centernet-logits": Family(_partial(centernet, is_ready=False), "centernet", read_centernet(is_ready=False), False),
    "classify-softmax": Family(_partial(whole, kind="softmax"), "classify"),
    "classify-logits": Family(_partial(whole, kind="logits"), "classify"),
    "classify-sigmoid": Family(_partial(whole, kind="sigmoid"), "classify"),
    "classify-one-logit": Family(_partial(whole, kind="one-logit"), "classify"),
    "classify-cell": Family(_partial(whole, kind="cell"), "classify"),
    "embedding": Family(_partial(whole, kind="embedding"), "embedding"),
    "vector-in-doubt": Family(_partial(whole, kind="wide"), None, refusal="--head classify or --head embedding"),
    "two-classifiers": Family(_partial(whole, kind="two"), None, refusal="cannot tell the head"),
    "segment": Family(_partial(whole, kind="map-nchw"), "semantic"),
    "segment-nhwc": Family(_partial(whole, kind="map-nhwc"), "semantic"),
    "segment-binary": Family(_partial(whole, kind="map-binary"), "semantic"),
    "segment-argmax": Family(_partial(whole, kind="map-argmax"), "semantic"),
    "segment-argmax-keep": Family(_partial(whole, kind="map-argmax-keep"), "semantic"),
    "segment-argmax-float": Family(_partial(whole, kind="map-argmax-float"), "semantic"),
    "segment-aux": Family(_partial(whole, kind="map-aux"), "semantic"),
    "depth": Family(_partial(whole, kind="map-depth"), None, refusal="a depth, which no head reads"),
    "super-resolution": Family(_partial(whole, kind="larger"), None, refusal="cannot tell the head"),
}
