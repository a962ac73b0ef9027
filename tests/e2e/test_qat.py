"""Quantization-aware fine-tuning rounds as the exported file does, and wins back what rounding costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from calib.collect import TensorSource, observe, open_session, with_outputs
from calib.graph import GraphIndex, load_float_model
from calib.ranges import RangeTable, make_table
from edge.errors import DataError
from edge.models.manifest import InputSpec
from edge.types import UInt8
from export.config import TrainSettings, parse_config
from export.data.sample import DataTask, Sample
from export.models.build import Network, build_network
from export.quantize.qdq import insert_qdq, scheme_for
from export.to_onnx import export_onnx
from export.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from export.training.qat import QatOptions, fine_tune, insert_fake_quantization

pytestmark = [pytest.mark.train, pytest.mark.timeout(600)]
SIZE = 64


class Textures:
    """Stripes in two directions: a data set of two classes."""

    name, fingerprint = "textures", "0" * 64
    task: DataTask = "classify"
    classes: tuple[str, ...] = ("columns", "rows")

    def __len__(self) -> int:
        return 32

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng(index)
        y, x = np.mgrid[:SIZE, :SIZE]
        stripes = 50 + 150 * ((x if index % 2 == 0 else y) // 8 % 2)[..., None] + rng.normal(0, 20, (SIZE, SIZE, 3))
        return Sample(np.clip(stripes, 0, 255).astype(np.uint8), str(index), label=index % 2)


def recipe() -> TrainSettings:
    tree: dict[str, Any] = {
        "task": "classify",
        "name": "textures",
        "data": {"train": "classes:train", "val": "classes:val", "width": SIZE, "height": SIZE},
        "model": {"size": "nano"},
        "optim": {"epochs": 2, "batch_size": 8},
    }
    return parse_config(tree, "test")


def settled(network: Network, pictures: UInt8) -> Network:
    """The network with batch norm statistics of these pictures, as after a training."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    network.train()
    with torch.no_grad():
        network(tensor(pictures))
    return network.eval()


def tensor(pictures: UInt8) -> Any:
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255


class Exported:
    """A checkpoint, its ONNX file and its ranges."""

    def __init__(self, folder: Path) -> None:
        data = Textures()
        self.pictures: UInt8 = np.stack([data[index].image for index in range(8)])
        self.checkpoint, self.model = folder / "last.pt", folder / "textures.onnx"
        self.network = settled(build_network(recipe(), 2), self.pictures)
        state = self.network.state_dict()
        save_checkpoint(
            Checkpoint(recipe().model_dump(mode="json"), ["columns", "rows"], state, state), self.checkpoint
        )
        export_onnx(self.checkpoint, self.model)
        self.table = ranges(self.model, self.pictures)


def ranges(model: Path, pictures: UInt8) -> RangeTable:
    loaded = load_float_model(model)
    source = TensorSource(lambda: (picture[None] for picture in pictures), len(pictures))
    spec = InputSpec(name="frames", width=SIZE, height=SIZE, layout="nhwc", dtype="uint8", colour="bgr")
    return make_table(GraphIndex(loaded), observe(loaded, source), spec, ["a"], model=model.name)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    torch.set_num_threads(1)
    return Exported(tmp_path_factory.mktemp("qat"))


def logits_of_onnx(exported: Exported, table: RangeTable) -> Any:
    model = load_float_model(exported.model)
    name = GraphIndex(model).layers[-1].output
    # optimised, ONNX Runtime would round to integers in other places
    session = open_session(
        with_outputs(insert_qdq(model, table, scheme_for("fp32", "average")), [name]), optimize=False
    )
    return session.run([name], {"frames": exported.pictures})[0]


def test_fake_quantization_computes_what_the_int8_file_computes(exported: Exported) -> None:
    network = build_network(recipe(), 2)
    network.load_state_dict(load_checkpoint(exported.checkpoint).ema)
    network.eval()
    with torch.no_grad():
        plain = network(tensor(exported.pictures)).numpy()
        count = insert_fake_quantization(network, exported.model, exported.table, QatOptions())
        rounded = network(tensor(exported.pictures)).numpy()
    found = logits_of_onnx(exported, exported.table)
    assert count == len(GraphIndex(load_float_model(exported.model)).layers) - 1
    assert np.abs(rounded - found).max() < 0.1 * np.abs(rounded - plain).max()


def test_fine_tuning_lowers_the_loss_and_keeps_the_form_of_the_checkpoint(exported: Exported, tmp_path: Path) -> None:
    losses: list[float] = []
    options = QatOptions(epochs=3, lr=1e-3)
    out = fine_tune(
        exported.checkpoint, exported.model, exported.table, Textures(), tmp_path / "q.pt", options, step=losses.append
    )
    assert np.mean(losses[-4:]) < np.mean(losses[:4])
    before, after = load_checkpoint(exported.checkpoint), load_checkpoint(out)
    assert list(after.ema) == list(before.ema)
    # statistics stand still, weights have moved
    assert torch.equal(before.ema["backbone.stem.bn.running_mean"], after.ema["backbone.stem.bn.running_mean"])
    export_onnx(out, tmp_path / "q.onnx")
    tuned = load_float_model(tmp_path / "q.onnx")
    assert GraphIndex(tuned).fingerprint != exported.table.network_sha256
    insert_qdq(tuned, exported.table, scheme_for("fp32", "average"))


class Relabelled(Textures):
    """The same pictures with labels in another order, or for another task."""

    def __init__(self, task: DataTask, classes: tuple[str, ...]) -> None:
        self.task, self.classes = task, classes


@pytest.mark.parametrize(
    ("task", "classes", "message"),
    [
        ("classify", ("rows", "columns"), r"has the classes rows, columns, .*last\.pt learned columns, rows"),
        ("classify", ("columns",), "expected the same in the same order"),
        ("detect", ("columns", "rows"), r"is labelled to detect, .*last\.pt was trained to classify"),
    ],
)
def test_labels_that_mean_something_else_are_refused(
    exported: Exported, tmp_path: Path, task: DataTask, classes: tuple[str, ...], message: str
) -> None:
    data = Relabelled(task, classes)
    with pytest.raises(DataError, match=message):
        fine_tune(exported.checkpoint, exported.model, exported.table, data, tmp_path / "q.pt", QatOptions(epochs=1))


def test_ranges_of_another_network_are_refused(exported: Exported, tmp_path: Path) -> None:
    foreign = exported.table.model_copy(update={"network_sha256": "0" * 64})
    with pytest.raises(DataError, match="is another network"):
        fine_tune(exported.checkpoint, exported.model, foreign, Textures(), tmp_path / "q.pt", QatOptions(epochs=1))
