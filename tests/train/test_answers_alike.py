"""A network whose layers were exchanged or are rounded learns to answer as before, without labels."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from tiny_yolox import SIDE, write_tiny_yolox
from torch import Tensor
from train.test_transfer import CLASSES, photo, pictures

from calib.calibrate import calibrate
from calib.frames import choose_frames, dataset_candidates
from calib.graph import GraphIndex, load_float_model
from edge.cli import run_command
from edge.engines.ort import OrtEngine
from edge.model import Model, open_model
from edge.models.manifest import read_sidecar
from edge.types import Detections
from export.data.sample import DataTask, Sample
from export.models.build import build_network, form_of
from export.models.foreign_detector import ForeignDetector
from export.quantize.exact_engine import ExactEngine
from export.quantize.placement import default_float_layers
from export.quantize.qdq import insert_qdq, scheme_for
from export.quantize.quantize import QuantizeOptions
from export.quantize.rescue import Learning, quantize_or_tune
from export.to_onnx import export_checked
from export.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from export.training.imitate import ImitateOptions, imitate, rate
from export.training.original import as_labels
from export.training.qat import QatOptions, fine_tune, rounded_layers
from export.transfer import equalise
from export.transfer.convert import checkpoint_of
from export.transfer.whitened import Whitened

pytestmark = [pytest.mark.train, pytest.mark.timeout(400)]


class Photos:
    """Coloured clouds; labelled by what a model sees in them, where one is given."""

    name = "photos"
    task: DataTask = "detect"
    classes: tuple[str, ...] = CLASSES

    def __init__(self, first: int, count: int, model: Model | None = None) -> None:
        self.fingerprint = f"{first:064}"
        self._first, self._count, self._model = first, count, model

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Sample:
        image = photo(self._first + index)
        if self._model is None:
            return Sample(image, str(index))
        (seen,) = self._model.predict([image])
        assert isinstance(seen, Detections)
        count = len(seen.class_id)
        kinds, weight = seen.class_id.astype(np.int32), np.ones(count, np.float32)
        return Sample(image, str(index), boxes=seen.xyxy, labels=kinds, ignore=np.zeros(count, np.bool_), weight=weight)


MAX_DROP = 0.004
LEARNED = Photos(10_000, 120)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_tiny_yolox(tmp_path_factory.mktemp("tiny") / "tiny.onnx", len(CLASSES))
    card = {"classes": list(CLASSES), "licence": "Apache-2.0", "source": "made here", "trained_on": "nothing"}
    path.with_suffix(".json").write_text(json.dumps(card))
    return path


@pytest.fixture(scope="module")
def relu(tiny: Path) -> Checkpoint:
    """The network with its activations exchanged."""
    return checkpoint_of(tiny, activation="relu", data=LEARNED)


def network_of(saved: Checkpoint) -> ForeignDetector:
    network = build_network(saved.recipe, len(saved.classes), saved.form)
    assert isinstance(network, ForeignDetector)
    network.load_state_dict(saved.ema)
    return network.eval()


def unlike(original: ForeignDetector, pupil: ForeignDetector) -> float:
    """How badly the pupil answers, on pictures that it has not learned from."""
    x = torch.cat(pictures(24, seed=99))
    with torch.no_grad():
        classes, boxes = as_labels(pupil(x), original(x))
        least, _ = as_labels(original(x), original(x))
    return float(classes - least + 5 * boxes)


def test_whitened_kernels_compute_the_same(relu: Checkpoint) -> None:
    network = network_of(relu)
    x = torch.cat(pictures(2))
    with torch.no_grad():
        before = network(x)
        whitened = Whitened(network, pictures(8))
        during = network(x)
        whitened.finish()
        after = network(x)
    for found in (during, after):
        torch.testing.assert_close(found.logits, before.logits, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(found.xyxy, before.xyxy, rtol=1e-3, atol=1e-2)


def test_an_exchanged_network_comes_nearer_to_its_original(tiny: Path, relu: Checkpoint) -> None:
    original, pupil = network_of(checkpoint_of(tiny)), network_of(relu)
    before, losses = unlike(original, pupil), list[float]()
    # far more and wider steps than a large network needs: this one sees little
    options = ImitateOptions(epochs=6, lr=1e-3, side=SIDE)
    imitate(original, pupil, LEARNED, relu.recipe, options, step=losses.append)
    assert len(losses) == 6 * len(LEARNED) // 8
    assert unlike(original, pupil) < 0.8 * before


def test_the_rate_rises_and_falls() -> None:
    rates = [rate(done, done / 200) for done in range(200)]
    assert rates[0] < 0.05
    assert max(rates) > 0.9
    assert rates[-1] < 0.02


class Uneven:
    """The ReLU network as a foreign one may come: the same function, but channels up to a hundred times as high as
    others, with its file, its ranges and pictures labelled by what it sees itself."""

    def __init__(self, saved: Checkpoint, folder: Path) -> None:
        network = network_of(saved)
        groups = equalise.channel_groups(network.form.plan)
        generator = torch.Generator().manual_seed(5)
        count = 1 + max(int(numbers.max()) for numbers in groups.values())
        factor: Tensor = 10 ** (2 * torch.rand(count, generator=generator) - 1)
        factor[0] = 1.0
        with torch.no_grad():
            equalise._apply(network, groups, factor)
        state = network.state_dict()
        self.checkpoint, self.model = folder / "uneven.pt", folder / "uneven.onnx"
        save_checkpoint(replace(saved, model=state, ema=state, form=form_of(network)), self.checkpoint)
        manifest, _ = export_checked(self.checkpoint, self.model, many=True, score=0.45)
        frames = choose_frames(dataset_candidates(LEARNED, 0), manifest.input, 40, origin="photos")
        ranges = self.model.with_suffix(".ranges.json")
        self.table = calibrate(self.model, manifest, frames, ranges, datasets=[LEARNED.fingerprint]).table
        self.judging = Photos(20_000, 24, open_model(self.model, engine="ort", threads=1, score=0.45))


@pytest.fixture(scope="module")
def uneven(relu: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Uneven:
    return Uneven(relu, tmp_path_factory.mktemp("uneven"))


def test_rounded_layers_learn_without_labels_and_see_more_alike(uneven: Uneven, tmp_path: Path) -> None:
    saved = load_checkpoint(uneven.checkpoint)
    original = network_of(saved)
    options = QatOptions(epochs=4, lr=1e-3, is_unsigned=True)

    def rounded(checkpoint: Path) -> float:
        network = network_of(load_checkpoint(checkpoint))
        scales = rounded_layers(network, uneven.model, uneven.table, options)
        Whitened(network, pictures(8), {unit.conv: scale for unit, scale in scales.items()}, is_unsigned=True)
        return unlike(original, network)

    tuned = fine_tune(uneven.checkpoint, uneven.model, uneven.table, LEARNED, tmp_path / "tuned.pt", options)
    assert rounded(tuned) < 0.8 * rounded(uneven.checkpoint)


def test_a_network_that_calibration_cannot_hold_is_rescued_by_itself(uneven: Uneven, tmp_path: Path) -> None:
    """Nothing is made up here: ranges and accuracy are those of the file."""
    out = tmp_path / "int8.onnx"
    options = QuantizeOptions(flavour="cpu", method="average", max_drop=MAX_DROP, min_agreement=0.0, ranks_layers=False)
    learning = Learning(LEARNED, uneven.checkpoint, epochs=4, frames=40)
    result = quantize_or_tune(uneven.model, uneven.table, uneven.judging, out, options, learning)
    assert result.path != uneven.model
    assert result.drop <= MAX_DROP
    manifest = read_sidecar(out)
    assert manifest is not None
    assert manifest.accuracy["fp32"] == result.before.metrics


def test_what_stays_in_float_runs_in_float(uneven: Uneven, tmp_path: Path) -> None:
    """ONNX Runtime would code the weights of such layers after all, all channels with one scale."""
    model = load_float_model(uneven.model)
    index = GraphIndex(model)
    free = default_float_layers(index, uneven.table) | {layer.key for layer in index.layers[1:12:2]}
    path = tmp_path / "mixed.onnx"
    onnx.save(insert_qdq(model, uneven.table, scheme_for("cpu", "average", free)), path)
    image = np.stack([photo(number) for number in range(4)])
    # without the optimiser's changes, with them, and the float file
    exact, found, wanted = (
        engine.infer(image)["scores"]
        for engine in (ExactEngine(path, threads=1), OrtEngine(path, threads=1), OrtEngine(uneven.model, threads=1))
    )
    assert np.abs(found - wanted).mean() < 1.3 * np.abs(exact - wanted).mean()


def test_relu6_is_not_brought_to_one_height(tiny: Path) -> None:
    """A factor does not pass it."""
    network = network_of(checkpoint_of(tiny, activation="relu6", data=LEARNED))
    before = copy.deepcopy(network.state_dict())
    equalise.equalise(network, pictures(2))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_epochs_without_an_activation_are_refused(tiny: Path, tmp_path: Path) -> None:
    assert run_command(["export", str(tiny), "--epochs", "1", "--out", str(tmp_path / "x.onnx")]) != 0
