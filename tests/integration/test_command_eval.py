"""``edge eval`` and ``edge teach`` on real model files, small ones that are made here."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge.commands.eval import evaluate_command
from edge.commands.teach import teach
from edge.errors import DataError, UsageError
from edge.models.manifest import InputSpec, Manifest, read_sidecar, write_sidecar

COLOURS = {"blue": (200, 20, 20), "green": (20, 200, 20), "red": (20, 20, 200)}


def save_model(path: Path, nodes: list[onnx.NodeProto], outputs: list[tuple[str, int, list[int | str]]]) -> None:
    frames = helper.make_tensor_value_info("frames", TensorProto.UINT8, ["N", 32, 32, 3])
    values = [helper.make_tensor_value_info(*output) for output in outputs]
    constants = [numpy_helper.from_array(np.array([1, 2], np.int64), "axes")]
    constants.append(numpy_helper.from_array(np.array([[[0, 0, 16, 16]]], np.float32), "box"))
    constants.append(numpy_helper.from_array(np.array([[0.9]], np.float32), "sure"))
    constants.append(numpy_helper.from_array(np.array([[0]], np.int64), "first"))
    graph = helper.make_graph(nodes, "g", [frames], values, initializer=constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def write_manifest(path: Path, task: str, head: str, classes: tuple[str, ...]) -> None:
    spec = InputSpec(name="frames", width=32, height=32, layout="nhwc", dtype="uint8", colour="bgr", resize="stretch")
    fields = {"name": path.stem, "task": task, "head": head, "input": spec, "classes": classes, "needs_nms": False}
    write_sidecar(Manifest.model_validate(fields), path)


@pytest.fixture
def colour_model(tmp_path: Path) -> Path:
    """Classifies a picture by its strongest channel."""
    path = tmp_path / "colour.onnx"
    nodes = [
        helper.make_node("Cast", ["frames"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats", "axes"], ["means"], keepdims=0),
        helper.make_node("Softmax", ["means"], ["probs"], axis=-1),
    ]
    save_model(path, nodes, [("probs", TensorProto.FLOAT, ["N", 3])])
    write_manifest(path, "classify", "classify", tuple(COLOURS))
    return path


@pytest.fixture
def colour_folders(tmp_path: Path) -> Path:
    """Two pictures per colour; one red picture looks green."""
    for name, colour in COLOURS.items():
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        for number in range(2):
            shown = COLOURS["green"] if name == "red" and number else colour
            cv2.imwrite(str(folder / f"{number}.png"), np.full((20, 30, 3), shown, np.uint8))
    return tmp_path / "data"


def test_accuracy_is_printed_as_json_and_saved(
    colour_model: Path, colour_folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate_command(colour_model, data=f"classes:{colour_folders}", save=True, as_json=True)
    report = json.loads(capsys.readouterr().out)
    assert report["metrics"]["top1"] == pytest.approx(5 / 6, abs=1e-6) and report["num_images"] == 6
    manifest = read_sidecar(colour_model)
    assert manifest is not None and manifest.accuracy == {"fp32": {"top1": 0.8333, "top5": 1.0}}


def test_table_and_pictures_are_shown(
    colour_model: Path, colour_folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate_command(colour_model, data=str(colour_folders), pictures=tmp_path / "new" / "pictures")
    text = capsys.readouterr().out
    assert "top1" in text and "green" in text and "6 images" in text
    assert {path.name for path in (tmp_path / "new" / "pictures").iterdir()} == {"confusion.png", "samples.png"}


def test_limit_is_refused_with_save(colour_model: Path, colour_folders: Path) -> None:
    with pytest.raises(UsageError, match="leave --limit out"):
        evaluate_command(colour_model, data=str(colour_folders), limit=2, save=True)


def test_data_set_of_another_task_is_refused(colour_model: Path) -> None:
    with pytest.raises(UsageError, match="detect and segment, not classify"):
        evaluate_command(colour_model, data="synthetic:street?count=1")


def test_faulty_data_can_be_skipped(
    colour_model: Path, colour_folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (colour_folders / "red" / "1.png").write_text("no picture")
    with pytest.raises(DataError, match="1 x unreadable image"):
        evaluate_command(colour_model, data=str(colour_folders))
    evaluate_command(colour_model, data=str(colour_folders), on_error="skip", as_json=True)
    assert json.loads(capsys.readouterr().out)["metrics"]["top1"] == 1


def test_teacher_labels_a_folder(tmp_path: Path, colour_folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "corner.onnx"
    # one sure box in the upper left quarter of every picture
    nodes = [
        helper.make_node("Identity", ["box"], ["boxes"]),
        helper.make_node("Identity", ["sure"], ["scores"]),
        helper.make_node("Identity", ["first"], ["labels"]),
    ]
    outputs = [
        ("boxes", TensorProto.FLOAT, [1, 1, 4]),
        ("scores", TensorProto.FLOAT, [1, 1]),
        ("labels", TensorProto.INT64, [1, 1]),
    ]
    save_model(path, nodes, [(name, kind, list(shape)) for name, kind, shape in outputs])
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, path)
    write_manifest(path, "detect", "edgenet", ("corner",))
    out = tmp_path / "out"
    teach(path, source=[str(colour_folders / "red"), str(colour_folders / "blue")], folder=out, as_json=True)
    report = json.loads(capsys.readouterr().out)
    # two blue pictures are the same
    assert report["num_pictures"] == 3 and report["num_alike"] == 1 and report["per_class"] == {"corner": 3}
    assert (out / "review-01.png").is_file()
    labels = json.loads((out / "labels.json").read_text())
    assert labels["annotations"][0]["bbox"] == [0, 0, 15, 10]
