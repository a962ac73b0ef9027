from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edge.errors import ManifestError, ModelError
from edge.model import find_manifest, open_model
from edge.models.propose import propose_manifest

CELLS = 40 * 40 + 20 * 20 + 10 * 10


def write_model(
    path: Path, outputs: dict[str, tuple[int, ...]], *, shape: tuple[object, ...] = (1, 3, 320, 320)
) -> Path:
    """An ONNX file with these outputs, all zero, whatever the image is."""
    nodes, initialisers = [], []
    for name, size in outputs.items():
        initialisers.append(
            helper.make_tensor(f"{name}_zero", TensorProto.FLOAT, size, np.zeros(size, np.float32).ravel())
        )
        nodes.append(helper.make_node("Identity", [f"{name}_zero"], [name]))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in outputs.items()],
        initialisers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.save(model, str(path))
    return path


IMAGENET = [("Sub", (0.485, 0.456, 0.406)), ("Div", (0.229, 0.224, 0.225))]


@pytest.mark.parametrize(
    ("steps", "taken"),
    [
        ([("Div", (255.0,))], 255),
        ([("Mul", (1 / 255,)), *IMAGENET], 255),
        ([("Mul", (1 / 127.5,)), ("Add", (-1.0,))], 255),
        ([("Sub", (123.675, 116.28, 103.53)), ("Mul", (1 / 58.395, 1 / 57.12, 1 / 57.375))], 255),
        ([("Sub", (103.94, 116.78, 123.68))], 255),
        (IMAGENET, 1),
        ([("Mul", (2.0,)), ("Sub", (1.0,))], 1),
        ([("Sub", (0.48235, 0.45882, 0.40784)), ("Div", (1 / 255,))], 1),
        # both may be meant, or it scales nothing
        ([("Sub", (0.5,))], None),
        ([("Mul", (1.0,))], None),
        ([("Div", (0.0,))], None),
        ([], None),
    ],
)
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_a_graph_that_scales_its_picture_itself_is_given_what_it_scales(
    tmp_path: Path, steps: list[tuple[str, tuple[float, ...]]], taken: float | None, layout: str
) -> None:
    """Preparation that was exported with the model is not done twice."""
    side = (1, 3, 32, 32) if layout == "nchw" else (1, 32, 32, 3)
    size = {1: (), 3: (1, 3, 1, 1) if layout == "nchw" else (3,)}
    nodes, constants, name = [], [], "images"
    for number, (operator, values) in enumerate(steps):
        shape = size[len(values)]
        constants.append(helper.make_tensor(f"by{number}", TensorProto.FLOAT, shape, values))
        nodes.append(helper.make_node(operator, [name, f"by{number}"], [f"step{number}"]))
        name = f"step{number}"
    nodes.append(helper.make_node("Conv", [name, "weights"], ["maps"]) if layout == "nchw" else _turned(name))
    constants.append(helper.make_tensor("weights", TensorProto.FLOAT, (10, 3, 32, 32), np.zeros(30720, np.float32)))
    last = [] if layout == "nchw" else [helper.make_node("Conv", ["turned", "weights"], ["maps"])]
    nodes += [*last, helper.make_node("Flatten", ["maps"], ["logits"])]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, side)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, (1, 10))],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.save(model, str(tmp_path / "own.onnx"))
    proposal = propose_manifest(tmp_path / "own.onnx")
    spec = proposal.manifest.input
    if taken is None:
        assert spec.mean[0] > 100 and "how pictures are prepared" in proposal.assumed
    else:
        assert (spec.mean, spec.std) == ((0.0,) * 3, (255 / taken,) * 3)
        assert "how pictures are resized" in proposal.assumed
        assert f"input: 0 to {taken}, which the graph scales itself" in str(proposal.manifest.decided)


def _turned(name: str) -> onnx.NodeProto:
    return helper.make_node("Transpose", [name], ["turned"], perm=[0, 3, 1, 2])


@pytest.mark.parametrize(
    ("outputs", "head", "num_classes"),
    [
        ({"output": (1, CELLS, 85)}, "yolox", 80),
        ({"output": (1, 3 * CELLS, 85)}, "yolov5", 80),
        ({"output0": (1, 84, CELLS)}, "yolov8", 80),
        ({"output0": (1, 7, CELLS)}, "yolov8", 3),
        ({"out": (1, CELLS + 25, 112)}, "nanodetplus", 80),
        ({"cls_pred_stride_8": (1, 1600, 80), "dis_pred_stride_8": (1, 1600, 32)}, "nanodet", 80),
        ({"pred_logits": (1, 300, 80), "pred_boxes": (1, 300, 4)}, "detr", 80),
        ({"scores": (1, 4420, 2), "boxes": (1, 4420, 4)}, "ssd", 1),
        ({"seg": (1, 19, 40, 40)}, "semantic", 19),
        ({"prob": (1, 1000)}, "classify", 1000),
        ({"feat": (1, 512)}, "embedding", 0),
        ({"boxes": (1, 100, 4), "scores": (1, 100), "labels": (1, 100)}, "triple", 0),
    ],
)
def test_the_head_is_told_from_the_outputs(
    tmp_path: Path, outputs: dict[str, tuple[int, ...]], head: str, num_classes: int
) -> None:
    manifest = propose_manifest(write_model(tmp_path / "m.onnx", outputs)).manifest
    assert (manifest.head, len(manifest.classes)) == (head, num_classes)


def test_outputs_that_say_nothing_are_refused_with_the_command_to_run(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m.onnx", {"a": (1, 5, 7), "b": (1, 2), "c": (3,)})
    with pytest.raises(ManifestError, match=r"cannot tell the head .* run: edge inspect .* --head NAME"):
        propose_manifest(model)
    assert propose_manifest(model, head="yolox").manifest.head == "yolox"
    with pytest.raises(ManifestError, match="no head is called 'yolo99'; choose from: edgenet"):
        propose_manifest(model, head="yolo99")


def test_the_card_beside_the_model_corrects_the_guess(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m.onnx", {"output": (1, CELLS, 7)})
    card = {
        "classes": ["cat", "dog"],
        "licence": "MIT",
        "preprocess": {"colour": "RGB", "range": "(x-127)/128", "resize": "letterbox centred, pad value 7"},
    }
    (tmp_path / "m.json").write_text(json.dumps(card))
    found = find_manifest(model)
    assert found.classes == ("cat", "dog")
    assert (found.input.colour, found.input.mean[0], found.input.std[0]) == ("rgb", 127, 128)
    assert (found.input.anchor, found.input.pad, found.provenance.terms) == ("centre", 7, "MIT")


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"", "no nodes"), (b"not a model at all", "not an ONNX model"), (b"\x08\x07\x12\x00", "not an ONNX model")],
)
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=expected):
        open_model(path)


def test_a_missing_model_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nowhere\.onnx: no such model file"):
        open_model(tmp_path / "nowhere.onnx")


@pytest.mark.parametrize("shape", [(1, 3, "h", "w"), (1, 4, 320, 320), (1, 320)])
def test_inputs_that_are_no_fixed_image_are_refused(tmp_path: Path, shape: tuple[object, ...]) -> None:
    with pytest.raises(ModelError, match="expected"):
        propose_manifest(write_model(tmp_path / "m.onnx", {"output": (1, CELLS, 85)}, shape=shape))


def test_a_manifest_of_another_input_is_refused(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m.onnx", {"output": (1, CELLS, 85)})
    right = propose_manifest(model).manifest
    wrong = right.model_copy(update={"input": right.input.model_copy(update={"width": 416})})
    with pytest.raises(ManifestError, match=r"the manifest says input float32 \(3, 320, 416\), the model has float32"):
        open_model(model, manifest=wrong)
    unfit = right.model_copy(update={"head": "edgenet"})
    with pytest.raises(ManifestError, match="head 'edgenet' needs outputs boxes, scores, labels"):
        open_model(model, manifest=unfit)


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "head", "num_classes"),
    [
        ("yolox_nano_416", "yolox", 80),
        ("nanodet_m_320", "nanodet", 80),
        ("ultraface_rfb_320", "ssd", 1),
        ("deeplabv3_mnv2_dm05_int8", "semantic", 21),
        ("mobilenet_v2_224_int8", "classify", 1001),
        ("osnet_x0_25_msmt17", "embedding", 0),
    ],
)
def test_real_models_are_recognised(shared_data: Path, name: str, head: str, num_classes: int) -> None:
    proposal = propose_manifest(shared_data / "models" / f"{name}.onnx")
    assert (proposal.manifest.head, len(proposal.manifest.classes)) == (head, num_classes)
    assert not proposal.is_own
    assert proposal.graph is not None
    assert proposal.graph.multiply_adds is None or proposal.graph.multiply_adds > 1e6


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("m.pt", b"PK\x03\x04archive", "a PyTorch checkpoint; ours: edge export m.pt --out m.onnx"),
        ("m.onnx", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "a Git LFS pointer"),
        ("m.onnx", b"<!DOCTYPE html><html>", "a web page"),
    ],
)
def test_what_is_no_model_is_called_what_it_is(name: str, content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=re.escape(words)):
        propose_manifest(tmp_path / name)
