"""An ONNX file with the face of a peer's export: its names, shapes and metadata, and its outputs for one picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

TYPES = {"tensor(float)": TensorProto.FLOAT, "tensor(float16)": TensorProto.FLOAT16, "tensor(uint8)": TensorProto.UINT8}


def write_replay(golden: Path, target: Path) -> dict[str, Any]:
    """Write the file; gives the arrays of the golden file back, and its ``face``.

    The outputs do not depend on the picture, so the graph's inner operators are not the peer's.
    """
    arrays: dict[str, Any] = dict(np.load(golden))
    face = json.loads(str(arrays.pop("face")))
    source = face["input"]
    outputs = [np.asarray(arrays[f"output{index}"], np.float32) for index in range(len(face["outputs"]))]
    nodes = [
        helper.make_node("Cast", [source["name"]], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats"], ["mean"], keepdims=0),
        helper.make_node("Sub", ["mean", "mean"], ["zero"]),
    ]
    constants, infos = [], []
    for tensor, values in zip(face["outputs"], outputs, strict=True):
        constants.append(numpy_helper.from_array(values, f"{tensor['name']}_values"))
        nodes.append(helper.make_node("Add", [f"{tensor['name']}_values", "zero"], [tensor["name"]]))
        infos.append(helper.make_tensor_value_info(tensor["name"], TensorProto.FLOAT, tensor["shape"]))
    image = helper.make_tensor_value_info(source["name"], TYPES[source["type"]], source["shape"])
    model = helper.make_model(
        helper.make_graph(nodes, "replay", [image], infos, constants), opset_imports=[helper.make_opsetid("", 17)]
    )
    model.ir_version = 8
    for key, value in face["metadata"].items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.save(model, str(target))
    return arrays | {"face": face}
