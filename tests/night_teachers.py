"""Teachers that are wrong: ONNX files made of a good detector of ours, whose last outputs are bent."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge.model import find_manifest
from export.quantize.quantize import save_model

Fault = Literal["blind", "class", "missing", "shifted"]
DARK = 100.0


def write_poisoned(
    good: Path, out: Path, fault: Fault, seed: int, share: float = 0.2, *, only_dark: bool = False
) -> Path:
    """A copy of a detector with boxes, scores and labels as outputs, of which a share is wrong.

    Args:
        good: the ONNX file.
        out: the copy.
        fault: ``blind``: nothing is seen; ``class``: another class; ``missing``; ``shifted``: beside the object.
        seed: which objects it is.
        share: of the objects.
        only_dark: right on bright pictures, so that nothing is wrong where people have labelled.
    """
    model = onnx.load(good)
    graph = model.graph
    for name in ("boxes", "scores", "labels"):
        for node in graph.node:
            node.output[:] = [f"good_{name}" if one == name else one for one in node.output]
            node.input[:] = [f"good_{name}" if one == name else one for one in node.input]
    numbers = {"rate": 0.7310 + 0.0137 * seed, "share": share, "dark": DARK, "zero": 0.0, "step": 60.0}
    for name, value in numbers.items():
        graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), name))
    graph.initializer.append(numpy_helper.from_array(np.array([0], np.int64), "first"))
    graph.initializer.append(numpy_helper.from_array(np.array([2], np.int64), "last_axis"))
    graph.initializer.append(numpy_helper.from_array(np.array([1, 2, 3], np.int64), "picture_axes"))
    whole = graph.output[2].type.tensor_type.elem_type
    kind = np.int32 if whole == TensorProto.INT32 else np.int64
    for name, value in (("one", 1), ("classes", len(find_manifest(good).classes))):
        graph.initializer.append(numpy_helper.from_array(np.array(value, kind), name))
    node = helper.make_node
    # a number in [0, 1) per object that depends on where it is
    steps = [
        node("Gather", ["good_boxes", "first"], ["left"], axis=2),
        node("Squeeze", ["left", "last_axis"], ["x"]),
        node("Mul", ["x", "rate"], ["turned"]),
        node("Floor", ["turned"], ["whole"]),
        node("Sub", ["turned", "whole"], ["draw"]),
        node("Less", ["draw", "share"], ["drawn"]),
        node("Cast", ["frames"], ["light"], to=TensorProto.FLOAT),
        node("ReduceMean", ["light", "picture_axes"], ["mean"], keepdims=0),
        node("Less", ["mean", "dark"], ["is_dark"]),
        node("Unsqueeze", ["is_dark", "one64"], ["dark_row"]),
        node("And", ["drawn", "dark_row"], ["dark_drawn"]),
        node("Unsqueeze", ["dark_drawn" if only_dark else "drawn", "last_axis"], ["wrong_box"]),
    ]
    graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "one64"))
    wrong = "dark_drawn" if only_dark else "drawn"
    bent = {name: node("Identity", [f"good_{name}"], [name]) for name in ("boxes", "scores", "labels")}
    if fault == "blind":
        steps += [node("Mul", ["good_scores", "zero"], ["no_scores"])]
        every = "dark_row" if only_dark else ""
        bent["scores"] = (
            node("Where", [every, "no_scores", "good_scores"], ["scores"])
            if every
            else node("Identity", ["no_scores"], ["scores"])
        )
    elif fault == "missing":
        bent["scores"] = node("Where", [wrong, "zero", "good_scores"], ["scores"])
    elif fault == "shifted":
        steps += [node("Add", ["good_boxes", "step"], ["moved"])]
        bent["boxes"] = node("Where", ["wrong_box", "moved", "good_boxes"], ["boxes"])
    else:
        steps += [
            node("Add", ["good_labels", "one"], ["next"]),
            node("Mod", ["next", "classes"], ["other"]),
        ]
        bent["labels"] = node("Where", [wrong, "other", "good_labels"], ["labels"])
    graph.node.extend([*steps, *bent.values()])
    save_model(model, out, find_manifest(good).model_copy(update={"sha256": "", "name": out.stem}))
    onnx.checker.check_model(onnx.load(out))
    return out
