"""Measures a model on labelled pictures that calibration has not seen, and on footage without labels.

The runtime's own parts run it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import ModelProto

from calib.frames import FrameSet
from calib.ranges import RangeTable
from calib.seen_pictures import SeenPictures, seen_pictures
from edge.errors import DataError
from edge.model import Model, open_model
from edge.models.manifest import Manifest
from edge.types import Prediction, UInt8
from export.data.sample import Dataset, Sample
from export.evaluate.evaluate import EVAL_SCORE, OnSample, Report, evaluate
from export.quantize.agreement import Compared, Footage, Reference
from export.quantize.budget import Budget, Figures
from export.quantize.exact_engine import ExactEngine

MIN_PICTURES = 4
USELESS = 0.01
# where a confidence is asked for, one picture of so many is chosen on
EVERY = 3
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
    """A data set without the pictures that calibration has seen; reads all of them once."""

    def __init__(self, dataset: Dataset, seen: SeenPictures) -> None:
        self._dataset = dataset
        self._places = []
        for place in range(len(dataset)):
            sample = dataset[place]
            if not seen.has(sample.image_id, sample.image, dataset.fingerprint):
                self._places.append(place)
        self.name, self.task, self.classes = dataset.name, dataset.task, dataset.classes
        self.fingerprint = f"{dataset.fingerprint}-{len(dataset) - len(self._places)}"

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Sample:
        return self._dataset[self._places[index]]


def unseen_part(dataset: Dataset, table: RangeTable) -> Dataset:
    """The pictures that were not used for calibration.

    Raises:
        DataError: too few are left to judge by.
    """
    kept = Unseen(dataset, seen_pictures(table))
    if len(kept) < MIN_PICTURES:
        raise DataError(
            f"{dataset.name}: {len(kept)} of its {len(dataset)} pictures were not used for calibration, at least "
            f"{MIN_PICTURES} are needed to judge; give another data set or calibrate with fewer --frames"
        )
    return kept


class Part:
    """Every third picture of a data set, on which methods and layers are chosen, or the others, which judge.

    An interval shrinks with the root of the number of pictures, so most of them judge.
    """

    def __init__(self, dataset: Dataset, *, is_chosen_on: bool) -> None:
        self._dataset = dataset
        self._places = [place for place in range(len(dataset)) if (place % EVERY == 0) == is_chosen_on]
        self.name, self.task, self.classes = dataset.name, dataset.task, dataset.classes
        self.fingerprint = f"{dataset.fingerprint}-{'chosen' if is_chosen_on else 'sealed'}"

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Sample:
        return self._dataset[self._places[index]]


class Shots:
    """Remembers the first pictures of an evaluation with what was found in them; pass it as ``on_sample``."""

    def __init__(self, count: int = 4) -> None:
        self._count = count
        self.taken: list[tuple[UInt8, Prediction]] = []

    def __call__(self, sample: Sample, prediction: Prediction) -> None:
        if len(self.taken) < self._count:
            self.taken.append((sample.image, prediction))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was measured of one model.

    Attributes:
        report: its accuracy on the labelled pictures.
        agreement: how alike it and the float model see them (``export.quantize.agreement``).
        footage: the same for footage; None without any.
    """

    report: Report
    agreement: float
    footage: Compared | None = None

    @property
    def figures(self) -> Figures:
        """The numbers that decide."""
        return Figures(main_value(self.report), self.agreement, self.footage.share if self.footage else None)


class Gate:
    """A float model, a data set and footage; every other form of the model is judged alike.

    Args:
        path: the float model.
        dataset: labelled pictures, read again for every model: best a ``Remembered`` one.
        footage: frames of the place where the model will run.
        on_sample: sees the labelled pictures as the float model does.
        own: manifest of the float model where that of the other forms differs.

    Attributes:
        before: the float model's accuracy.

    Raises:
        DataError: the float model recognises nothing, so there is no accuracy to keep: its input is prepared wrongly,
            or the data set shows something else.
    """

    def __init__(
        self,
        path: Path,
        manifest: Manifest,
        dataset: Dataset,
        *,
        footage: FrameSet | None = None,
        threads: int | None = None,
        on_sample: OnSample | None = None,
        own: Manifest | None = None,
    ) -> None:
        self.manifest = manifest
        self.dataset = dataset
        self._threads = threads
        score = manifest.thresholds.score
        self._reference = Reference(score)
        with self._opened(path, own) as model:
            self.before = self._evaluated(model, self._reference, on_sample)
            if (value := main_value(self.before)) < USELESS:
                raise DataError(
                    f"{path.name} has {self.before.main_metric} {value:.4f} on {self.dataset.name} before "
                    "quantization; check mean, std and colour in its manifest (edge inspect) and the data set's classes"
                )
            self._footage = Footage(footage, score, model.predict) if footage else None

    def budget(self, max_drop: float, min_agreement: float) -> Budget:
        """The least that is accepted, from shares of the float model's accuracy and of what it sees in footage."""
        return Budget(self.before.main_metric, main_value(self.before) * (1 - max_drop), min_agreement)

    def judge(self, model: ModelProto, *, is_exact: bool = False, on_sample: OnSample | None = None) -> Verdict:
        """Measure a model with the float one's input and outputs.

        Args:
            is_exact: run the graph as it is written instead of as the runtime's CPU engine would optimise it.
            on_sample: sees the labelled pictures as this model does.
        """
        with tempfile.TemporaryDirectory(prefix="edgeloop-") as folder:
            path = Path(folder) / f"{self.manifest.name}.onnx"
            onnx.save(model, path)
            return self.judge_file(path, is_exact=is_exact, on_sample=on_sample)

    def judge_file(self, path: Path, *, is_exact: bool = False, on_sample: OnSample | None = None) -> Verdict:
        """As ``judge`` for a file."""
        repeat = self._reference.repeat()
        with self._opened(path, is_exact=is_exact) as model:
            report = self._evaluated(model, repeat, on_sample)
            footage = self._footage.compare(model.predict) if self._footage else None
        return Verdict(report, repeat.found.share, footage)

    def _evaluated(self, model: Model, *listeners: OnSample | None) -> Report:
        def tell(sample: Sample, prediction: Prediction) -> None:
            for listener in listeners:
                if listener is not None:
                    listener(sample, prediction)

        return evaluate(model.predict, self.dataset, classes=self.manifest.classes, on_sample=tell)

    @contextmanager
    def _opened(self, path: Path, manifest: Manifest | None = None, *, is_exact: bool = False) -> Iterator[Model]:
        chosen = manifest or self.manifest
        model = open_model(path, manifest=chosen, engine="ort", threads=self._threads, score=EVAL_SCORE)
        if is_exact:
            model.close()
            model = Model(model.manifest, ExactEngine(path, self._threads), model.head)
        with closing(model):
            yield model


def main_value(report: Report) -> float:
    """The metric by which models are compared."""
    return report.metrics[report.main_metric]
