"""Detectors of a few bytes that find the same boxes in every frame, whole and broken in many ways."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge.models.manifest import InputSpec, Manifest, write_sidecar
from edge.types import Array

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
    constants: dict[str, Array] = {
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


COLOURS = ("blue", "green", "red")


def colour_classifier(path: Path, *, size: int = SIZE, num_products: int = 0) -> Path:
    """Write a classifier that says which of blue, green and red a picture has most of.

    Args:
        num_products: matrix products per batch, to make it slow.
    """
    constants = {
        "axes": np.array([1, 2], np.int64),
        "sharp": np.array(0.1, np.float32),
        "square": np.eye(512, dtype=np.float32),
        "nothing": np.array(0, np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["frames"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats", "axes"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "sharp"], ["logits"]),
        helper.make_node("ReduceMax", ["mean"], ["brightest"], keepdims=0),
        helper.make_node("Mul", ["square", "brightest"], ["product0"]),
    ]
    nodes += [helper.make_node("MatMul", [f"product{k}", "square"], [f"product{k + 1}"]) for k in range(num_products)]
    nodes += [
        helper.make_node("ReduceMin", [f"product{num_products}"], ["least"], keepdims=0),
        helper.make_node("Min", ["least", "nothing"], ["zero"]),
        helper.make_node("Add", ["logits", "zero"], ["slowed"]),
        helper.make_node("Softmax", ["slowed"], ["probs"], axis=1),
    ]
    facts = {"task": "classify", "head": "classify", "classes": COLOURS}
    return _of_pictures(path, nodes, constants, ("probs", len(COLOURS)), size, facts)


def colour_embedder(path: Path, *, size: int = SIZE) -> Path:
    """Write an embedding model: a soft histogram of four levels per colour, so 12 numbers that know no place."""
    constants = {
        "level": np.array(1 / 85, np.float32),
        "last": np.array([4], np.int64),
        "centres": np.arange(4, dtype=np.float32),
        "one": np.array(1, np.float32),
        "axes": np.array([1, 2], np.int64),
        "flat": np.array([-1, 12], np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["frames"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "level"], ["levels"]),
        helper.make_node("Unsqueeze", ["levels", "last"], ["columns"]),
        helper.make_node("Sub", ["columns", "centres"], ["from_centre"]),
        helper.make_node("Abs", ["from_centre"], ["distance"]),
        helper.make_node("Sub", ["one", "distance"], ["near"]),
        helper.make_node("Relu", ["near"], ["share"]),
        helper.make_node("ReduceMean", ["share", "axes"], ["mean"], keepdims=0),
        helper.make_node("Reshape", ["mean", "flat"], ["vector"]),
    ]
    facts = {"task": "embed", "head": "embedding", "classes": ()}
    return _of_pictures(path, nodes, constants, ("vector", 12), size, facts)


def _of_pictures(
    path: Path, nodes: list[Any], constants: dict[str, Any], output: tuple[str, int], size: int, facts: dict[str, Any]
) -> Path:
    """Write a model from (N, size, size, 3) uint8 pictures, stretched to fit, to one row of numbers each."""
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, ["N", size, size, 3])],
        [helper.make_tensor_value_info(output[0], TensorProto.FLOAT, ["N", output[1]])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 8
    onnx.save(model, str(path))
    spec = InputSpec(
        name="frames", width=size, height=size, layout="nhwc", dtype="uint8", colour="bgr", resize="stretch"
    )
    write_sidecar(Manifest(name=path.stem, input=spec, **facts), path)
    return path
