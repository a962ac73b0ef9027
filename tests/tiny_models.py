"""Detectors of a few bytes that find the same boxes in every frame, whole and broken in many ways."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge.manifest import InputSpec, Manifest, write_sidecar

CLASSES = ("person", "car")
SIZE = 32
NUM_BOXES = 2


def manifest(name: str, **changes: Any) -> Manifest:
    spec = InputSpec(name="frames", width=SIZE, height=SIZE, layout="nhwc", dtype="uint8", colour="bgr")
    facts = {"name": name, "task": "detect", "head": "edgenet", "input": spec, "classes": CLASSES, "needs_nms": False}
    return Manifest(**{**facts, **changes})


def tiny_model(
    path: Path,
    *,
    boxes: Any = ((4, 4, 20, 20), (10, 8, 28, 30)),
    scores: Any = (0.9, 0.8),
    labels: Any = (0, 1),
    num_loops: int = 0,
    nan_from_level: int | None = None,
    output_names: tuple[str, str, str] = ("boxes", "scores", "labels"),
    has_sidecar: bool = True,
    **changes: Any,
) -> Path:
    """Write a detector whose answer is constant.

    Args:
        num_loops: matrix products per frame, to make it slow.
        nan_from_level: scores are NaN for frames whose mean grey level is above this.
        changes: of the manifest.
    """
    size = changes.pop("size", SIZE)
    constants = {
        "box": np.array(boxes, np.float32).reshape(1, -1, 4),
        "score": np.array(scores, np.float32).reshape(1, -1),
        "label": np.array(labels, np.int32).reshape(1, -1),
        "zero": np.array([0], np.int64),
        "one": np.array([1], np.int64),
        "axes": np.array([1, 2, 3], np.int64),
    }
    nodes = [
        helper.make_node("Shape", ["frames"], ["shape"]),
        helper.make_node("Slice", ["shape", "zero", "one"], ["batch"]),
        helper.make_node("Concat", ["batch", "one", "one"], ["rows3"], axis=0),
        helper.make_node("Concat", ["batch", "one"], ["rows2"], axis=0),
        helper.make_node("Cast", ["frames"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats", "axes"], ["mean4"], keepdims=1),
        helper.make_node("Squeeze", ["mean4", "last_axes"], ["mean"]),
        helper.make_node("Expand", ["box", "rows3"], [output_names[0]]),
        helper.make_node("Expand", ["label", "rows2"], [output_names[2]]),
        helper.make_node("Expand", ["score", "rows2"], ["plain"]),
    ]
    constants["last_axes"] = np.array([2, 3], np.int64)
    last = "plain"
    if nan_from_level is not None:
        constants["level"] = np.array(nan_from_level, np.float32)
        # the logarithm of a negative number is none, which neither minimum nor maximum hides; all others give zero
        constants["nothing"] = np.array(0, np.float32)
        nodes += [
            helper.make_node("Sub", ["level", "mean"], ["room"]),
            helper.make_node("Log", ["room"], ["spoilt"]),
            helper.make_node("Min", ["spoilt", "nothing"], ["least_of_both"]),
            helper.make_node("Max", ["least_of_both", "nothing"], ["spoilt0"]),
            helper.make_node("Add", [last, "spoilt0"], ["with_nan"]),
        ]
        last = "with_nan"
    if num_loops:
        constants["square"] = np.eye(512, dtype=np.float32)
        # depends on the frame, so that it is not computed once for all
        nodes += [
            helper.make_node("ReduceMax", ["mean"], ["brightest"], keepdims=0),
            helper.make_node("Mul", ["square", "brightest"], ["product"]),
        ]
        inner = "product"
        for number in range(num_loops):
            nodes.append(helper.make_node("MatMul", [inner, "square"], [f"product{number}"]))
            inner = f"product{number}"
        nodes += [
            helper.make_node("ReduceMin", [inner], ["least"], keepdims=0),
            helper.make_node("Add", [last, "least"], ["slowed"]),
        ]
        last = "slowed"
    nodes.append(helper.make_node("Identity", [last], [output_names[1]]))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, ["N", size, size, 3])],
        [
            helper.make_tensor_value_info(output_names[0], TensorProto.FLOAT, ["N", len(constants["box"][0]), 4]),
            helper.make_tensor_value_info(output_names[1], TensorProto.FLOAT, ["N", constants["score"].shape[1]]),
            helper.make_tensor_value_info(output_names[2], TensorProto.INT32, ["N", constants["label"].shape[1]]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 8
    onnx.save(model, str(path))
    if has_sidecar:
        write_sidecar(manifest(path.stem, **changes), path)
    return path
