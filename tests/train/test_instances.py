"""Masks and key points: what is learned of them, and that a detector starts from its own file without changing."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edge.errors import ConfigError, ModelError
from edge.model import open_model
from edge.models.shipped import FOLDER
from export.config import parse_config
from export.data.instances import InstanceDataset
from export.data.open_data import open_dataset
from export.evaluate.evaluate import evaluate_model
from export.models.graph import ExportGraph
from export.models.instances import RawInstances, points_of
from export.to_onnx import export_onnx
from export.training.assign import Assignment, Truth
from export.training.instance_loss import mask_loss, point_loss
from export.training.step import padded_truth, rescaled, to_targets
from export.training.train import train
from export.transfer.own import start_from_own

pytestmark = [pytest.mark.train, pytest.mark.timeout(400)]
NAMES = ["left_top", "right_top", "right_bottom", "left_bottom"]


@pytest.fixture(scope="module")
def labelled(squares: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The squares with their polygons and corners."""
    found = []
    for uri in squares:
        path = Path(uri.removeprefix("coco:"))
        labels = json.loads(path.read_text())
        # what is painted later hides what was before, as in the pictures
        for row in labels["annotations"]:
            x, y, width, height = row["bbox"]
            corners = [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
            row["segmentation"] = [[value for corner in corners for value in corner]]
            row["keypoints"] = [value for corner in corners for value in (*corner, 2)]
            row["num_keypoints"] = 4
        for category in labels["categories"]:
            category["keypoints"] = NAMES
        other = path.with_name("instances.json")
        other.write_text(json.dumps(labels))
        found.append(f"coco:{other}")
    return found[0], found[1]


@pytest.fixture(scope="module")
def recipe(recipes: dict[str, dict[str, Any]], labelled: tuple[str, str]) -> dict[str, Any]:
    tree = copy.deepcopy(recipes["detect"])
    tree["data"] |= {"train": labelled[0], "val": labelled[1]}
    tree["model"] = {"prototypes": 8, "keypoints": NAMES}
    tree["optim"] |= {"epochs": 14, "lr": 0.004, "warmup_steps": 3}
    tree["augment"] |= {"mosaic": 0.2, "mixup": 0.0}
    return tree


def test_masks_and_key_points_are_learned_and_exported(recipe: dict[str, Any], tmp_path: Path) -> None:
    result = train(parse_config(recipe, "test"), tmp_path / "run")
    assert result.metric == "instances50"
    export_onnx(result.checkpoint, tmp_path / "squares.onnx")
    report = evaluate_model(tmp_path / "squares.onnx", open_dataset(recipe["data"]["val"]), engine="ort")
    # the same figures as in training, from the exported file
    for name in ("map50", "mask_map50", "keypoint_map50"):
        assert report.metrics[name] == pytest.approx(result.metrics[name], abs=0.02)
    assert report.metrics["mask_map50"] > 0.3 and report.metrics["keypoint_map50"] > 0.1
    model = open_model(tmp_path / "squares.onnx", engine="ort")
    assert model.manifest.head == "end2end-seg-pose" and model.manifest.keypoint_names == tuple(NAMES)
    model.close()


def truth_of(points: torch.Tensor | None = None) -> Truth:
    """One object, 8 16 to 24 32, in a picture of 32x32, and the pixels of its left half."""
    owner = torch.full((1, 32, 32), 255, dtype=torch.uint8)
    owner[0, 16:32, 8:16] = 0
    yes = torch.ones(1, 1, dtype=torch.bool)
    box = torch.tensor([[[8.0, 16.0, 24.0, 32.0]]])
    return Truth(box, torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, 1), yes, ~yes, owner, points)


def one_positive(place: int, count: int) -> Assignment:
    """The only object is learned at this grid point."""
    positive = torch.zeros(1, count, dtype=torch.bool)
    positive[0, place] = True
    row = torch.zeros(1, count, dtype=torch.int64)
    zero = torch.zeros(1, count, 1)
    return Assignment(zero, torch.zeros(1, count, 4), positive, torch.ones(1, count), zero > 0, row)


def test_the_mask_loss_is_least_for_the_true_mask_and_looks_at_the_box_alone() -> None:
    truth = truth_of()
    maps = torch.zeros(1, 2, 8, 8)
    maps[0, 0] = -1.0
    maps[0, 0, :, :4] = 1.0
    maps[0, 1] = 1.0
    chosen = (torch.tensor([0]), torch.tensor([3]), torch.tensor([0]))

    def loss(first: float, second: float, noise: float = 0.0) -> float:
        numbers = torch.zeros(1, 5, 2)
        numbers[0, 3] = torch.tensor([first, second])
        changed = maps.clone()
        changed[0, :, :3] += noise
        return float(mask_loss(RawInstances(numbers, changed), chosen, truth))

    assert loss(9.0, 0.0) < 0.01 < loss(0.0, 0.0) < loss(-9.0, 0.0)
    assert loss(9.0, 0.0, noise=50.0) == loss(9.0, 0.0)
    # an object of which no pixel is known teaches nothing
    unknown = replace(truth, owner=torch.full((1, 32, 32), 255, dtype=torch.uint8))
    assert float(mask_loss(RawInstances(torch.zeros(1, 5, 2), maps), chosen, unknown)) == 0


def test_unlabelled_key_points_teach_nothing_and_hidden_ones_only_where_they_are() -> None:
    points = torch.tensor([[[[10.0, 20.0, 2.0], [20.0, 30.0, 1.0], [0.0, 0.0, 0.0]]]])
    grid = torch.tensor([[4.0, 4.0], [12.0, 12.0]]), torch.tensor([8.0, 8.0])
    numbers = torch.zeros(1, 2, 9, requires_grad=True)
    places, seen = point_loss(numbers, [one_positive(1, 2)], truth_of(points), grid)
    (places + seen).backward()
    assert numbers.grad is not None
    gradient = numbers.grad[0].reshape(2, 3, 3)
    assert not gradient[0].any() and not gradient[1, 2].any()
    # the first is to be seen, the second not
    assert gradient[1, 0, 2] < 0 < gradient[1, 1, 2]
    right = torch.tensor([[0.0] * 9, [-0.25, 1.0, 9.0, 1.0, 2.25, -9.0, 0.0, 0.0, 0.0]])[None]
    assert torch.equal(points_of(right[0, 1], grid[0][1], grid[1][1])[:2, :2], points[0, 0, :2, :2])
    places, seen = point_loss(right, [one_positive(1, 2)], truth_of(points), grid)
    assert float(places) < 0.01 and float(seen) < 0.01


def test_owners_and_points_are_rescaled_with_the_picture(recipe: dict[str, Any], labelled: tuple[str, str]) -> None:
    config = parse_config(recipe, "test")
    dataset = InstanceDataset(open_dataset(labelled[0]), has_masks=True, keypoints=NAMES)
    from export.data.loader import collate, letterbox_sample

    batch = collate([letterbox_sample(dataset[index], (96, 96)) for index in range(3)])
    truth = padded_truth(batch)
    assert truth.points is not None and truth.owner is not None and truth.owner.shape == (3, 96, 96)
    doubled = rescaled(to_targets(batch, config, torch.device("cpu")), (2.0,), (0, 0)).truth
    assert doubled is not None and doubled.points is not None and doubled.owner is not None
    torch.testing.assert_close(doubled.points[..., :2], truth.points[..., :2] * 2)
    assert torch.equal(doubled.points[..., 2], truth.points[..., 2])
    assert torch.equal(doubled.owner[:, ::2, ::2], truth.owner)


def test_a_detector_starts_from_its_own_file_without_changing(tmp_path: Path) -> None:
    tree = {
        "task": "detect",
        "name": "m",
        "data": {"train": "synthetic:street?count=4&size=320x192", "val": "", "width": 320, "height": 192},
        "model": {"prototypes": 8},
        "transfer": {"weights": str(FOLDER / "street-nano.onnx")},
    }
    config = parse_config(tree, "test")
    dataset = open_dataset(config.data.train)
    pictures = [torch.rand(1, 3, 192, 320) for _ in range(2)]
    network = start_from_own(config, dataset, pictures)
    frames = torch.randint(0, 256, (1, 448, 768, 3), dtype=torch.uint8)
    with torch.no_grad():
        rows, prototypes = ExportGraph(network, keep=100).eval()(frames)
    assert prototypes.shape == (1, 8, 112, 192)
    import onnxruntime

    session = onnxruntime.InferenceSession(str(FOLDER / "street-nano.onnx"), providers=["CPUExecutionProvider"])
    boxes, scores, _ = session.run(None, {"frames": frames.numpy()})
    np.testing.assert_allclose(rows[0, :5, 4], scores[0, :5], atol=1e-4)
    np.testing.assert_allclose(rows[0, 0, :4], boxes[0, 0], atol=0.05)
    # in training mode too: the batch norms have the pictures' own statistics
    with torch.no_grad():
        quiet = network(pictures[0]).logits
        network.train()
        torch.testing.assert_close(network(torch.cat(pictures)).logits[:1], quiet, rtol=0.05, atol=0.3)


def test_other_files_are_no_start_for_masks(tmp_path: Path) -> None:
    tree = {
        "task": "detect",
        "name": "m",
        "data": {"train": "synthetic:street?count=4&size=320x192", "val": "", "width": 320, "height": 192},
        "model": {"prototypes": 8, "size": "small"},
        "transfer": {"weights": str(FOLDER / "street-nano.onnx")},
    }
    config = parse_config(tree, "test")
    dataset = open_dataset(config.data.train)
    with pytest.raises(ModelError, match=r"edge export wrote from one of the same model\.size"):
        start_from_own(config, dataset, [])
    with pytest.raises(ConfigError, match="go with the task detect, not segment"):
        parse_config({**tree, "task": "segment"}, "test")
    with pytest.raises(ConfigError, match="names a point twice"):
        parse_config({**tree, "model": {"keypoints": ["a", "a"]}}, "test")
