"""Where calibration loses too much, quantization fine-tunes by itself, judged against the float model it was given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from train.conftest import write_colours

from calib.ranges import RangeTable, load_table
from edge.commands import quantize as command
from edge.commands.calibrate import calibrate
from edge.errors import AccuracyError, UsageError
from edge.models.manifest import read_sidecar
from export.data.open_data import open_dataset
from export.quantize.quantize import QuantizeOptions
from export.quantize.rescue import Learning, quantize_or_tune
from export.to_onnx import export_checked

pytestmark = [pytest.mark.train, pytest.mark.timeout(400)]
TOO_WIDE = 1e6


@dataclass(frozen=True)
class Trained:
    """A classifier with ranges so wide that nearly every value gets the same code, and pictures of two sets."""

    checkpoint: Path
    model: Path
    teaching: str
    judging: str

    @property
    def ranges(self) -> Path:
        return self.model.with_suffix(".ranges.json")


@pytest.fixture(scope="module")
def trained(graded: Path, colours: str, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("rescue")
    model = folder / "colours.onnx"
    export_checked(graded / "best.pt", model)
    calibrate(model, data=[colours], frames=8)
    found = Trained(graded / "best.pt", model, colours, f"classes:{write_colours(folder / 'judging', 20)}")
    widened(load_table(found.ranges)).save(found.ranges)
    return found


def widened(table: RangeTable) -> RangeTable:
    tensors = {}
    for role, tensor in table.tensors.items():
        clip = {method: (low * TOO_WIDE, high * TOO_WIDE) for method, (low, high) in tensor.clip.items()}
        tensors[role] = tensor.model_copy(update={"clip": clip})
    return table.model_copy(update={"tensors": tensors})


def test_fine_tuning_is_tried_by_itself(trained: Trained, tmp_path: Path) -> None:
    learning = Learning(open_dataset(trained.teaching), trained.checkpoint, epochs=1, frames=8)
    judging, out = open_dataset(trained.judging), tmp_path / "int8.onnx"
    options = QuantizeOptions(flavour="cpu", method="average", ranks_layers=False)
    result = quantize_or_tune(trained.model, load_table(trained.ranges), judging, out, options, learning)
    assert result.path == tmp_path / "int8-qat.onnx"
    assert result.drop <= options.max_drop
    manifest = read_sidecar(out)
    assert manifest is not None
    assert manifest.precision == "int8"
    # what stood to be kept is the accuracy of the file that was given
    assert manifest.accuracy["fp32"] == result.before.metrics


def test_without_pictures_to_learn_from_nothing_else_is_tried(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(AccuracyError):
        quantize(trained, tmp_path / "int8.onnx")
    assert list(tmp_path.glob("*-qat*")) == []


def quantize(trained: Trained, out: Path, learning: Learning | None = None) -> None:
    from export.quantize.quantize import quantize as run

    options = QuantizeOptions(flavour="cpu", method="average", ranks_layers=False)
    table, judging = load_table(trained.ranges), open_dataset(trained.judging)
    if learning is None:
        run(trained.model, table, judging, out, options)
    else:
        quantize_or_tune(trained.model, table, judging, out, options, learning)


def test_without_a_checkpoint_it_says_what_it_needs(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(AccuracyError, match=r"calibration alone: .*fine-tuning needs the checkpoint that colours.onnx"):
        quantize(trained, tmp_path / "int8.onnx", Learning(open_dataset(trained.teaching)))


def test_pictures_that_judge_may_not_teach(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot both teach and judge"):
        quantize(trained, tmp_path / "int8.onnx", Learning(open_dataset(trained.judging), trained.checkpoint))


def test_a_checkpoint_alone_is_refused(trained: Trained) -> None:
    with pytest.raises(UsageError, match="--checkpoint is for --train-data"):
        command.quantize(trained.model, trained.judging, checkpoint=trained.checkpoint)
