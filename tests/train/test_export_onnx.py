"""Exported files: the same outputs as torch, no NMS, readable names, a manifest inside and next to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edge.errors import AccuracyError, ModelError, UsageError
from edge.masks import mask_iou
from edge.model import open_model
from edge.models.manifest import ONNX_KEY, parse_manifest, read_sidecar
from edge.types import Classification, Detections, Segmentation
from export.config import parse_config
from export.models.build import build_network
from export.models.graph import ExportGraph, TorchModel, output_names
from export.to_onnx import check_parity, export_checked, export_onnx, random_frames, restored
from export.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

pytestmark = [pytest.mark.train, pytest.mark.timeout(400)]
CLASSES = {"detect": ["person", "car"], "segment": ["road", "sky", "car"], "classify": ["day", "night"]}
# detectors that say more than boxes: what the model of the recipe has
INSTANCES: dict[str, dict[str, Any]] = {
    "points": {"keypoints": ["top", "left_foot", "right_foot"]},
    "masks and points": {"prototypes": 6, "keypoints": ["top", "left_foot", "right_foot"]},
}


def checkpoint_of(task: str, folder: Path) -> Path:
    """A checkpoint of a network whose weights and statistics are random but tame, as if trained."""
    more, name = INSTANCES.get(task, {}), f"tiny-{task}"
    task = "detect" if more else task
    data = {"train": "a", "val": "b", "width": 96, "height": 64}
    config = parse_config({"task": task, "name": name, "data": data, "model": {"keep": 20, **more}}, "test")
    network = build_network(config, len(CLASSES[task]))
    network.train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        # statistics that fit, from pictures like those that the check uses
        frames = torch.from_numpy(random_frames(8, 64, 96)).permute(0, 3, 1, 2) / 255
        network(frames)
        if more:
            network.rows(frames, 20, False)
        for name, value in network.named_parameters():
            if name.endswith(("classes.weight", "box.weight", "full.weight")):
                value.mul_(10 if more else 20)
            elif name.startswith("instances.numbers"):
                value.mul_(10)
    path = folder / "network.pt"
    state = network.state_dict()
    save_checkpoint(Checkpoint(config.model_dump(mode="json"), CLASSES[task], state, state), path)
    return path


@pytest.fixture(scope="module", params=["detect", "segment", "classify", *INSTANCES])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint and its ONNX file, one per task."""
    folder = tmp_path_factory.mktemp("exported")
    checkpoint = checkpoint_of(request.param, folder)
    _, parity = export_checked(checkpoint, folder / "model.onnx")
    # how much is too much is known by what it has run, and differs between processors
    assert parity.max_error
    return checkpoint, folder / "model.onnx"


def test_graph_takes_bytes_of_any_batch_and_has_no_nms(exported: tuple[Path, Path]) -> None:
    model = onnx.load(str(exported[1]))
    (frames,) = model.graph.input
    shape = [item.dim_param or item.dim_value for item in frames.type.tensor_type.shape.dim]
    assert frames.name == "frames" and frames.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert isinstance(shape[0], str) and shape[1:] == [64, 96, 3]
    kinds = {node.op_type for node in model.graph.node}
    assert not kinds & {"NonMaxSuppression", "NonZero", "BatchNormalization", "Split", "Loop", "If", "Shape"}
    # nothing scales the input: that is in the first convolution
    assert [node.op_type for node in model.graph.node][:3] == ["Cast", "Transpose", "Conv"]


def test_nodes_are_named_by_their_module(exported: tuple[Path, Path]) -> None:
    names = [node.name for node in onnx.load(str(exported[1])).graph.node]
    assert len(set(names)) == len(names)
    assert "backbone.stem.conv/Conv" in names and "backbone.stage1.1.steps.0.conv/Conv" in names


def test_manifest_is_inside_and_beside(exported: tuple[Path, Path]) -> None:
    beside = read_sidecar(exported[1])
    notes = {note.key: note.value for note in onnx.load(str(exported[1])).metadata_props}
    inside = parse_manifest(notes[ONNX_KEY], "inside")
    assert beside is not None and beside.sha256
    assert inside == beside.model_copy(update={"sha256": ""})
    assert list(beside.classes) == CLASSES[beside.task] and not beside.needs_nms


def test_the_runtime_says_what_torch_says(exported: tuple[Path, Path]) -> None:
    checkpoint, path = exported
    saved = load_checkpoint(checkpoint)
    model = open_model(path, engine="ort", threads=1, score=0.05)
    try:
        twin = TorchModel(restored(saved), model.manifest, score=0.05, keep=20)
        images = [frame[:50, :90] for frame in random_frames(2, 64, 96)]
        for ours, theirs in zip(model.predict(images), twin.predict(images), strict=True):
            _assert_same(ours, theirs)
    finally:
        model.close()


def _assert_same(ours: Any, theirs: Any) -> None:
    assert type(ours) is type(theirs)
    if isinstance(ours, Detections):
        assert len(ours) == len(theirs)
        np.testing.assert_allclose(np.sort(ours.score), np.sort(theirs.score), atol=1e-4)
        if ours.keypoints is not None and theirs.keypoints is not None:
            np.testing.assert_allclose(ours.keypoints, theirs.keypoints, atol=0.05)
        assert (ours.masks is None) == (theirs.masks is None)
        if ours.masks is not None and theirs.masks is not None:
            assert min(mask_iou(ours.masks, row, theirs.masks, row) for row in range(len(ours))) > 0.98
    elif isinstance(ours, Segmentation):
        assert float((ours.class_map == theirs.class_map).mean()) > 0.99
    else:
        assert isinstance(ours, Classification)
        np.testing.assert_allclose(ours.score, theirs.score, atol=1e-4)


def test_opset_17_computes_the_same_and_the_branch_of_many_boxes_says_that_it_needs_nms(tmp_path: Path) -> None:
    manifest = export_onnx(checkpoint_of("detect", tmp_path), tmp_path / "old.onnx", opset=17, many=True)
    model = onnx.load(str(tmp_path / "old.onnx"))
    assert model.opset_import[0].version == 17 and model.ir_version == 8
    names = [node.name for node in model.graph.node]
    assert "backbone.stem.conv/Conv" in names and "heads.0.many_tower.conv/Conv" in names
    assert manifest.needs_nms


def test_a_file_that_computes_something_else_is_found(exported: tuple[Path, Path], tmp_path: Path) -> None:
    saved = load_checkpoint(exported[0])
    network = restored(saved)
    manifest = read_sidecar(exported[1])
    assert manifest is not None
    model = onnx.load(str(exported[1]))
    weight = next(item for item in model.graph.initializer if item.name.endswith("stem.conv.weight"))
    values = onnx.numpy_helper.to_array(weight) * 1.5
    weight.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), weight.name))
    onnx.save(model, str(tmp_path / "wrong.onnx"))
    with pytest.raises(AccuracyError, match="differs from torch"):
        check_parity(ExportGraph(network, keep=20).eval(), tmp_path / "wrong.onnx", output_names(network), manifest)


def test_impossible_opsets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="opset 9 is not possible; expected one of 17"):
        export_onnx(tmp_path / "x.pt", tmp_path / "x.onnx", opset=9)


def test_a_missing_checkpoint_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such checkpoint"):
        export_onnx(tmp_path / "x.pt", tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())
