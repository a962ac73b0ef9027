"""Model files that were changed at random: each is refused in one sentence, or what comes out can be true."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from golden.pictures import picture
from golden.variants import ALL as FAMILIES
from onnx import TensorProto, helper, numpy_helper

from edge.errors import EdgeError
from edge.model import open_model
from edge.models.checks import check_sane
from edge.types import Detections

NAMES = ("boxes", "scores", "labels", "output0", "logits", "pred_boxes", "dets", "out", "num_dets", "hm", "images", "x")
FRAMES = [picture(80, 60), np.random.default_rng(1).integers(0, 256, (48, 96, 3), np.uint8)]


def mutate(model: Any, rng: np.random.Generator) -> str:
    """Change one output of an ONNX model in place; gives a word for what was done."""
    graph = model.graph
    output = graph.output[int(rng.integers(len(graph.output)))]
    name, rank = output.name, len(output.type.tensor_type.shape.dim)
    kind = output.type.tensor_type.elem_type
    what = str(rng.choice(["rename", "transpose", "cut", "drop", "scale", "shift", "cast", "swap", "flatten"]))
    what = what if rank else "rename"
    nodes: list[Any] = []
    new = f"{name}_changed"
    match what:
        case "rename":
            new = str(rng.choice([other for other in NAMES if other not in {one.name for one in graph.output}]))
            nodes.append(helper.make_node("Identity", [name], [new]))
        case "transpose":
            nodes.append(helper.make_node("Transpose", [name], [new], perm=rng.permutation(rank).tolist()))
        case "flatten":
            nodes.append(helper.make_node("Flatten", [name], [new], axis=min(1, rank)))
        case "cut":
            axis, last = int(rng.integers(rank)), int(rng.integers(1, 12))
            for key, value in (("start", 0), ("end", last), ("axis", axis)):
                graph.initializer.append(numpy_helper.from_array(np.array([value], np.int64), f"{new}_{key}"))
            nodes.append(
                helper.make_node("Slice", [name, *(f"{new}_{key}" for key in ("start", "end", "axis"))], [new])
            )
        case "drop" if len(graph.output) > 1:
            graph.output.remove(output)
            return what
        case "swap" if len(graph.output) > 1:
            first = onnx.ValueInfoProto()
            first.CopyFrom(graph.output[0])
            graph.output.remove(graph.output[0])
            graph.output.append(first)
            return what
        case "cast":
            nodes.append(helper.make_node("Cast", [name], [new], to=TensorProto.INT64))
            kind = TensorProto.INT64
        case _:
            floats, factor = f"{new}_floats", float(rng.choice([-1, 0.01, 3, 100, 1e6]))
            graph.initializer.append(numpy_helper.from_array(np.array(factor, np.float32), f"{new}_factor"))
            operator = "Mul" if what == "scale" else "Add"
            nodes.append(helper.make_node("Cast", [name], [floats], to=TensorProto.FLOAT))
            nodes.append(helper.make_node(operator, [floats, f"{new}_factor"], [new]))
            kind = TensorProto.FLOAT
    graph.node.extend(nodes)
    place = list(graph.output).index(output)
    changed = helper.make_empty_tensor_value_info(new)
    changed.type.tensor_type.elem_type = kind
    rest = [graph.output[index] for index in range(len(graph.output))]
    rest[place] = changed
    del graph.output[:]
    graph.output.extend(rest)
    inferred = onnx.shape_inference.infer_shapes(model)
    del graph.output[:]
    graph.output.extend(inferred.graph.output)
    return what


def try_one(path: Path) -> str:
    """Open and run a file: ``refused``, or ``ran`` if everything that came out can be true."""
    try:
        model = open_model(path, engine="ort", threads=1)
        found = model.predict(FRAMES)
    except EdgeError as error:
        assert "\n" not in str(error) and str(error)
        return "refused"
    for prediction, frame in zip(found, FRAMES, strict=True):
        check_sane(prediction, len(model.manifest.classes))
        if isinstance(prediction, Detections) and len(prediction):
            height, width = frame.shape[:2]
            assert prediction.xyxy.min() >= 0
            assert prediction.xyxy[:, 2].max() <= width and prediction.xyxy[:, 3].max() <= height
    return "ran"


def attack(folder: Path, seeds: range) -> dict[str, int]:
    names, counts = sorted(FAMILIES), {"refused": 0, "ran": 0}
    for seed in seeds:
        rng = np.random.default_rng(seed)
        name = names[seed % len(names)]
        path = folder / f"m{seed}.onnx"
        FAMILIES[name].build(path)
        model = onnx.load(str(path))
        done = [mutate(model, rng) for _ in range(int(rng.integers(1, 4)))]
        onnx.save(model, str(path))
        try:
            counts[try_one(path)] += 1
        except Exception as error:  # noqa: BLE001
            pytest.fail(f"seed {seed}, {name}, {done}: {type(error).__name__}: {error}")
        path.unlink()
    return counts


def test_changed_models_are_refused_or_right(tmp_path: Path) -> None:
    counts = attack(tmp_path, range(150))
    assert counts["refused"] + counts["ran"] == 150
    assert counts["ran"] >= 10


@pytest.mark.soak
def test_a_thousand_changed_models_are_refused_or_right(tmp_path: Path) -> None:
    counts = attack(tmp_path, range(150, 1150))
    print(counts)
    assert counts["refused"] + counts["ran"] == 1000
