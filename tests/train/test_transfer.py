"""Foreign ONNX files as networks that train."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from tiny_yolox import SIDE, write_tiny_yolox
from torch import Tensor, nn
from train.test_training_course import changed

from edge.errors import ConfigError, EdgeError, ModelError, UsageError
from edge.model import open_model
from edge.models.shipped import FOLDER
from edge.types import Detections, UInt8
from export.config import OptimSettings, TransferSettings, parse_config
from export.models.build import build_network
from export.models.detector import Detector, Head
from export.models.plan import plan_from_values
from export.models.plan_network import PlanNetwork
from export.to_onnx import export_checked
from export.training.checkpoint import load_checkpoint
from export.training.guess import guess_recipe
from export.training.losses import Loss
from export.training.optim import frozen_prefixes, make_optimizer
from export.training.original import Original
from export.training.setup import renew
from export.training.train import train
from export.training.transfer import read_weights
from export.transfer.activations import give_statistics, with_activation
from export.transfer.convert import checkpoint_of
from export.transfer.detector import read_detector
from export.transfer.onnx_file import open_onnx_file
from export.transfer.read import read_onnx
from export.transfer.refit import refit

pytestmark = [pytest.mark.train, pytest.mark.timeout(400)]

Recipes = dict[str, dict[str, Any]]
CLASSES = ("red", "green", "blue")
# mean difference of a tensor from ONNX Runtime's, as a share of its peak. The largest may be ten times as large: on
# yolox_nano_416 both differ from a float64 run by 2e-4, which is float32's own rounding through 113 layers
RELATIVE = 1e-5


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A YOLOX of three classes with its card."""
    path = write_tiny_yolox(tmp_path_factory.mktemp("tiny") / "tiny.onnx", len(CLASSES))
    card = {"classes": list(CLASSES), "licence": "Apache-2.0", "source": "made here", "trained_on": "nothing"}
    path.with_suffix(".json").write_text(json.dumps(card))
    return path


def pictures(count: int, seed: int = 3) -> list[Tensor]:
    """(1, 3, h, w) in [0, 1] with structure."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.random((count, 3, 12, 12), np.float32))
    return list(nn.functional.interpolate(coarse, size=(SIDE, SIDE), mode="bilinear").split(1))


def photo(seed: int = 0) -> UInt8:
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), np.uint8)
    return np.asarray(cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC))


def worst_difference(path: Path) -> float:
    """The worst mean difference between torch and ONNX Runtime of a tensor that is made, as a share of its peak."""
    file, loaded = open_onnx_file(path), read_onnx(path)
    names = [step.output for step in loaded.plan.steps if step.op != "constant"]
    with torch.no_grad():
        found = loaded.network().run(torch.from_numpy(file.values[file.input]), names)
    worst = 0.0
    for name, value in zip(names, found, strict=True):
        expected = file.values[name]
        assert value.shape == expected.shape, name
        peak = max(1.0, float(np.abs(expected).max()))
        difference = np.abs(value.numpy() - expected)
        assert float(difference.max()) < 20 * RELATIVE * peak, name
        worst = max(worst, float(difference.mean()) / peak)
    return worst


def test_a_yolox_is_read_as_it_runs(tiny: Path) -> None:
    assert worst_difference(tiny) < RELATIVE
    operators = {step.op for step in read_onnx(tiny).plan.steps}
    # the slices went into the first kernel, and every SiLU into its unit
    assert not operators & {"slice", "mul"}
    assert {"conv", "last", "cat", "maxpool", "resize", "add"} <= operators


def test_our_own_classifier_is_read_as_it_runs() -> None:
    assert worst_difference(FOLDER / "cifar10-nano.onnx") < RELATIVE


@pytest.mark.shared
@pytest.mark.parametrize("name", ["yolox_nano_416", "nanodet_m_320", "ultraface_rfb_320", "osnet_x0_25_msmt17"])
def test_real_networks_are_read_as_they_run(shared_data: Path, name: str) -> None:
    assert worst_difference(shared_data / "models" / f"{name}.onnx") < RELATIVE


def test_a_plan_survives_its_checkpoint(tiny: Path) -> None:
    plan = read_onnx(tiny).plan
    assert plan_from_values(json.loads(json.dumps(plan.to_values()))) == plan


def test_layers_are_named_by_their_stage(tiny: Path) -> None:
    names = [step.name for step in read_onnx(tiny).plan.steps]
    assert names[0] == "s2.conv1"
    assert [name.split(".")[0] for name in names].index("neck") > names.index("s32.conv1")


def test_a_kept_head_finds_what_the_file_finds(tiny: Path, tmp_path: Path) -> None:
    """Boxes, scores and classes of the file run by the runtime, and of our export of it, are the same."""
    out = tmp_path / "ours.onnx"
    manifest, parity = export_checked(checkpoint_of(tiny), out, score=0.3)
    assert parity.max_error["boxes"] < 0.01
    assert manifest.needs_nms
    assert "Apache-2.0" in manifest.provenance.source
    frame = photo()
    theirs, ours = (open_model(path, engine="ort", score=0.01).predict([frame])[0] for path in (tiny, out))
    assert isinstance(theirs, Detections)
    assert isinstance(ours, Detections)
    assert len(theirs) > 3
    order = [np.lexsort((found.xyxy[:, 0].round(1), found.score.round(4))) for found in (theirs, ours)]
    np.testing.assert_allclose(ours.score[order[1]], theirs.score[order[0]], atol=1e-4)
    np.testing.assert_allclose(ours.xyxy[order[1]], theirs.xyxy[order[0]], atol=0.1)
    # where the sigmoid of two classes is 1.0 the file cannot tell them apart, ours compares their logits
    is_clear = theirs.score[order[0]] < 0.9
    np.testing.assert_array_equal(ours.class_id[order[1]][is_clear], theirs.class_id[order[0]][is_clear])


def test_rows_of_known_classes_are_kept_by_name(tiny: Path) -> None:
    whole, _ = read_detector(tiny, CLASSES)
    network, kept = read_detector(tiny, ("zebra", "blue", "red"))
    assert kept == ["blue", "red"]
    for new, old in zip(network.heads, whole.heads, strict=True):
        torch.testing.assert_close(new.classes.weight[1:], old.classes.weight[[2, 0]])  # type: ignore[union-attr,index]
        assert float(new.classes.bias[0].detach()) < -4  # type: ignore[union-attr,index,arg-type]


def test_real_statistics_change_nothing(tiny: Path) -> None:
    network, _ = read_detector(tiny, CLASSES)
    seen = pictures(6)
    with torch.no_grad():
        before = network(seen[0]).logits
        give_statistics(network, seen)
        after = network(seen[0]).logits
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(float(norm.running_var.std()) > 0 for norm in norms)  # type: ignore[union-attr]
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-3)


def test_relu_with_a_refit_is_nearer_than_at_one_stroke(tiny: Path) -> None:
    original, _ = read_detector(tiny, CLASSES)
    stroke, _ = read_detector(tiny, CLASSES)
    fitted, _ = read_detector(tiny, CLASSES)
    with_activation(stroke, "relu")
    with_activation(fitted, "relu")
    refit(original, fitted, pictures(100))
    assert not any(isinstance(module, nn.SiLU) for module in fitted.modules())

    def distance(network: Any) -> float:
        with torch.no_grad():
            pairs = [(network(x).logits, original(x).logits) for x in pictures(8, seed=11)]
        return float(torch.stack([(a - b).pow(2).mean() for a, b in pairs]).mean())

    assert distance(fitted) < 0.5 * distance(stroke)


def test_the_original_is_imitated_but_for_scale_and_offset(tiny: Path) -> None:
    original, _ = read_detector(tiny, CLASSES)
    pupil, _ = read_detector(tiny, CLASSES)
    _, same = Original(original)(pupil, pictures(1)[0])
    assert float(same.parts["maps"]) < 1e-4
    assert float(same.parts["box"]) < 1e-3
    with_activation(pupil, "relu")
    loss: Loss = Original(original)(pupil, pictures(1)[0])[1]
    assert float(loss.parts["maps"]) > 0.01


def started(recipes: Recipes, weights: Path, **changes: Any) -> Any:
    tree = {**recipes["detect"], "transfer": {"weights": str(weights)}, "model": {"nms": True}}
    return changed(tree, optim__lr=0.0005, **changes)


def test_a_foreign_detector_trains_exports_and_resumes(recipes: Recipes, tiny: Path, tmp_path: Path) -> None:
    config = started(recipes, tiny, optim__epochs=2, transfer__activation="relu", transfer__original=str(tiny))
    result = train(config, tmp_path)
    assert {"class_many", "box_many", "original_maps"} <= set(result.metrics)
    saved = load_checkpoint(tmp_path / "last.pt")
    assert saved.form["keeps_head"]
    # neither the file nor its card is needed any more
    _, parity = export_checked(tmp_path / "last.pt", tmp_path / "x.onnx")
    assert parity.max_error["scores"] < 1e-4
    again = train(config, tmp_path, resume=True)
    assert again.epochs == 2
    longer = started(recipes, tmp_path / "last.pt", optim__epochs=1)
    assert train(longer, tmp_path / "more").epochs == 1


def test_a_fresh_head_goes_on_any_trunk(recipes: Recipes, tiny: Path, tmp_path: Path) -> None:
    config = changed(
        {**recipes["detect"], "transfer": {"weights": str(tiny), "head": "fresh", "freeze": ["trunk"]}}, optim__epochs=1
    )
    train(config, tmp_path)
    trained, _ = read_detector(tiny, CLASSES)
    saved = load_checkpoint(tmp_path / "last.pt")
    assert not saved.form["keeps_head"]
    torch.testing.assert_close(saved.model["trunk.s2.conv1.conv.weight"], trained.trunk.s2.conv1.conv.weight)  # type: ignore[union-attr]


def test_a_kept_head_needs_nms_and_says_so(recipes: Recipes, tiny: Path, tmp_path: Path) -> None:
    config = changed({**recipes["detect"], "transfer": {"weights": str(tiny)}})
    with pytest.raises(ConfigError, match=r"model\.nms=true"):
        train(config, tmp_path)


def test_a_guess_times_the_network_that_will_learn(squares: tuple[str, str], tiny: Path) -> None:
    changes = [f"data.train={squares[0]}", f"data.val={squares[1]}", f"transfer.weights={tiny}", "run.threads=1"]
    assert guess_recipe([*changes, "model.nms=true"]).seconds > 0
    with pytest.raises(ConfigError, match=r"model\.nms=true"):
        guess_recipe(changes)


def test_a_classifier_starts_from_an_onnx_file(recipes: Recipes, tmp_path: Path) -> None:
    weights = FOLDER / "cifar10-nano.onnx"
    config = changed({**recipes["classify"], "transfer": {"weights": str(weights)}}, optim__epochs=6, optim__lr=0.01)
    result = train(config, tmp_path)
    assert result.best > 0.9
    _, parity = export_checked(tmp_path / "best.pt", tmp_path / "x.onnx")
    assert parity.max_error["probs"] < 1e-4


def test_rates_follow_the_longest_prefix(tiny: Path) -> None:
    network, _ = read_detector(tiny, CLASSES)
    transfer = TransferSettings(rates={"trunk": 0.1, "trunk.neck": 0.5})
    optimizer = make_optimizer(network, OptimSettings(), transfer)
    rates = {id(value): group["rate"] for group in optimizer.param_groups for value in group["params"]}
    named = dict(network.named_parameters())
    assert rates[id(named["trunk.s2.conv1.conv.weight"])] == 0.1
    assert next(rates[id(value)] for name, value in named.items() if name.startswith("trunk.neck")) == 0.5
    assert rates[id(named["heads.0.box.weight"])] == 1.0


def test_frozen_layers_thaw_one_after_the_other() -> None:
    transfer = TransferSettings(freeze=("trunk.s2", "trunk.s4", "trunk.s8"), thaw_epochs=2)
    assert frozen_prefixes(transfer, 1) == ("trunk.s2", "trunk.s4", "trunk.s8")
    assert frozen_prefixes(transfer, 2) == ("trunk.s2", "trunk.s4")
    assert frozen_prefixes(transfer, 9) == ()
    assert frozen_prefixes(transfer.model_copy(update={"thaw_epochs": 0}), 99) == transfer.freeze


def test_a_renewed_class_begins_as_the_mean_of_the_others(recipes: Recipes) -> None:
    config = parse_config(recipes["detect"], "recipe")
    network = build_network(config, 3)
    assert isinstance(network, Detector)
    head = network.heads[0]
    assert isinstance(head, Head)
    layer = head.many_classes
    before = layer.weight.detach().clone()
    layer.bias.data = torch.tensor([-1.0, -2.0, -30.0])
    renew(network, ("a", "b", "c"), ("c",))
    torch.testing.assert_close(layer.bias.detach(), torch.tensor([-1.0, -2.0, -1.5]))
    torch.testing.assert_close(layer.weight[2], (before[0] + before[1]) / 2)
    torch.testing.assert_close(layer.weight[:2], before[:2])
    for names in (("d",), ("a", "b", "c")):
        with pytest.raises(ConfigError, match=r"transfer.renew: expected some, not all, of the classes a, b, c"):
            renew(network, ("a", "b", "c"), names)


def test_safetensors_are_read(tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.float32)
    table = {"a.weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, "__metadata__": {"by": "hand"}}
    head = json.dumps(table).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(head)) + head + values.tobytes())
    torch.testing.assert_close(read_weights(path).tensors["a.weight"], torch.arange(6.0).reshape(2, 3))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.safetensors", b"\x10\x00\x00\x00\x00\x00\x00\x00{}", "expected a .safetensors file"),
        ("x.safetensors", b"", "expected a .safetensors file"),
        ("x.pt", b"hello", "expected a torch file"),
        ("x.pth", b"", "expected a torch file"),
    ],
)
def test_wrong_weights_are_one_sentence(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=message):
        read_weights(tmp_path / name)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x08\x07"])
def test_a_file_that_is_no_onnx_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.onnx").write_bytes(content)
    with pytest.raises(ModelError, match="ONNX file"):
        read_onnx(tmp_path / "x.onnx")


def test_a_quantized_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="quantized already"):
        read_onnx(FOLDER / "cifar10-nano-int8.onnx")


def test_what_cannot_be_read_is_named_where_it_is_needed(tiny: Path, tmp_path: Path) -> None:
    model = onnx.load(tiny)
    model.graph.node[-1].output[0] = "before"
    model.graph.node.append(helper.make_node("CumSum", ["before", "axis"], ["output"], name="adds_up"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.int64(1), "axis"))
    path = tmp_path / "odd.onnx"
    onnx.save(model, path)
    loaded = read_onnx(path)
    with pytest.raises(ModelError, match="CumSum adds_up"):
        PlanNetwork(loaded.plan)
    # the trunk does not need it
    PlanNetwork(loaded.plan.cut([step.output for step in loaded.plan.steps if step.op == "last"]))


def test_a_class_that_the_file_does_not_know_is_named(tiny: Path) -> None:
    with pytest.raises(UsageError, match="'zebra'"):
        checkpoint_of(tiny, ["red", "zebra"])


@pytest.mark.shared
def test_a_head_that_cannot_be_kept_is_named(shared_data: Path) -> None:
    with pytest.raises(EdgeError, match="nanodet"):
        checkpoint_of(shared_data / "models" / "nanodet_m_320.onnx")
