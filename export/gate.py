"""Measures a model in memory on labelled pictures that calibration has not seen, with the runtime's own parts."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from pathlib import Path

import onnx
from onnx import ModelProto

from edge.errors import DataError
from edge.manifest import Manifest
from edge.model import Model, open_model
from edge.types import Prediction, UInt8
from export.data.sample import Dataset, Sample
from export.evaluate import EVAL_SCORE, OnSample, Report, evaluate
from export.exact_engine import ExactEngine

MIN_PICTURES = 4
USELESS = 0.01
REMEMBERED_BYTES = 512 << 20


class Remembered:
    """A data set whose samples are kept in memory once read, up to a limit: candidates are all judged on the same."""

    def __init__(self, dataset: Dataset, limit_bytes: int = REMEMBERED_BYTES) -> None:
        self._dataset = dataset
        self._room = limit_bytes
        self._kept: dict[int, Sample] = {}
        self.name, self.task, self.classes = dataset.name, dataset.task, dataset.classes
        self.fingerprint = dataset.fingerprint

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Sample:
        if index in self._kept:
            return self._kept[index]
        sample = self._dataset[index]
        if sample.image.nbytes <= self._room:
            self._room -= sample.image.nbytes
            self._kept[index] = sample
        return sample


class Unseen:
    """A data set without some of its pictures."""

    def __init__(self, dataset: Dataset, seen: Collection[str]) -> None:
        self._dataset = dataset
        known = frozenset(seen)
        self._places = [place for place in range(len(dataset)) if dataset[place].image_id not in known]
        self.name, self.task, self.classes = dataset.name, dataset.task, dataset.classes
        self.fingerprint = f"{dataset.fingerprint}-{len(dataset) - len(self._places)}"

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Sample:
        return self._dataset[self._places[index]]


def unseen_part(dataset: Dataset, frame_ids: Collection[str], dataset_sha256: str) -> Dataset:
    """The pictures that were not used for calibration.

    Raises:
        DataError: too few are left to judge by.
    """
    # a part of a data set has the fingerprint of the whole and a suffix
    is_same = bool(dataset_sha256) and dataset.fingerprint.partition(":")[0] == dataset_sha256.partition(":")[0]
    kept: Dataset = Unseen(dataset, frame_ids) if is_same else dataset
    if len(kept) < MIN_PICTURES:
        raise DataError(
            f"{dataset.name}: {len(kept)} of its {len(dataset)} pictures were not used for calibration, at least "
            f"{MIN_PICTURES} are needed to judge; give another data set or calibrate with fewer --frames"
        )
    return kept


class Shots:
    """Remembers the first pictures of an evaluation with what was found in them; pass it as ``on_sample``."""

    def __init__(self, count: int = 4) -> None:
        self._count = count
        self.taken: list[tuple[UInt8, Prediction]] = []

    def __call__(self, sample: Sample, prediction: Prediction) -> None:
        if len(self.taken) < self._count:
            self.taken.append((sample.image, prediction))


class Gate:
    """One data set and one manifest; every model measured through it is judged alike."""

    def __init__(self, manifest: Manifest, dataset: Dataset, *, threads: int | None = None) -> None:
        self.manifest = manifest
        self.dataset: Dataset = Remembered(dataset)
        self._threads = threads

    def measure(self, model: ModelProto, *, is_exact: bool = False, on_sample: OnSample | None = None) -> Report:
        """Accuracy of a model with this manifest's input and outputs.

        Args:
            is_exact: run the graph as it is written instead of as the runtime's CPU engine would optimise it.
        """
        with tempfile.TemporaryDirectory(prefix="edgeloop-") as folder:
            path = Path(folder) / f"{self.manifest.name}.onnx"
            onnx.save(model, path)
            return self.measure_file(path, is_exact=is_exact, on_sample=on_sample)

    def measure_file(self, path: Path, *, is_exact: bool = False, on_sample: OnSample | None = None) -> Report:
        """As ``measure`` for a file."""
        loaded = open_model(path, manifest=self.manifest, engine="ort", threads=self._threads, score=EVAL_SCORE)
        if is_exact:
            loaded.close()
            loaded = Model(loaded.manifest, ExactEngine(path, self._threads), loaded.head)
        try:
            return evaluate(loaded.predict, self.dataset, classes=self.manifest.classes, on_sample=on_sample)
        finally:
            loaded.close()

    def baseline(self, path: Path, *, on_sample: OnSample | None = None) -> Report:
        """Accuracy of the float model.

        Raises:
            DataError: it recognises nothing, so there is no accuracy to keep: its input is prepared wrongly, or the
                data set shows something else.
        """
        report = self.measure_file(path, on_sample=on_sample)
        if main_value(report) < USELESS:
            raise DataError(
                f"{path.name} has {report.main_metric} {main_value(report):.4f} on {self.dataset.name} before "
                "quantization; check mean, std and colour in its manifest (edge inspect) and the data set's classes"
            )
        return report


def main_value(report: Report) -> float:
    """The metric by which models are compared."""
    return report.metrics[report.main_metric]
