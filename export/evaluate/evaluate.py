"""Judge anything that predicts against a labelled data set, with the field's own metrics. H W picture pixels."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from edge.errors import DataError
from edge.types import Classification, Detections, Float64, Prediction, Segmentation, UInt8
from export.data.sample import Dataset, Sample
from export.evaluate.detect import DetectJudge
from export.evaluate.names import ClassMatch, match_classes
from export.evaluate.pixels import ClassifyJudge, SegmentJudge
from export.evaluate.report import Report

Predict = Callable[[Sequence[UInt8]], Sequence[Prediction]]
OnSample = Callable[[Sample, Prediction], None]
# average precision needs the low scores as well
EVAL_SCORE = 0.001

__all__ = ["EVAL_SCORE", "OnSample", "Predict", "Report", "evaluate", "evaluate_model"]


def evaluate(
    predict: Predict,
    dataset: Dataset,
    *,
    classes: Sequence[str] | None = None,
    batch_size: int = 8,
    progress: bool = False,
    on_sample: OnSample | None = None,
) -> Report:
    """Run every picture and measure.

    Args:
        predict: (H, W, 3) uint8 BGR images → one prediction each, in pixels of the image; boxes with low scores
            (``EVAL_SCORE``) included.
        dataset: pictures with the truth.
        classes: the model's class names, matched with those of the data set by name; None if they are the same.
        batch_size: images per call.
        progress: show a progress bar on standard error.
        on_sample: sees every picture with its prediction, to draw some.

    Raises:
        DataError: the model has another task, or no class in common with the data set.
    """
    match = match_classes(classes or dataset.classes, dataset.classes)
    judge = _judge(dataset, match)
    seconds = 0.0
    for samples in _batches(dataset, batch_size, progress):
        started = time.perf_counter()
        predictions = predict([sample.image for sample in samples])
        seconds += time.perf_counter() - started
        for sample, prediction in zip(samples, predictions, strict=True):
            _add(judge, sample, prediction, dataset)
            if on_sample is not None:
                on_sample(sample, prediction)
    return _report(judge, dataset, match, seconds)


def evaluate_model(
    path: Path,
    dataset: Dataset,
    *,
    engine: str = "auto",
    batch_size: int = 8,
    progress: bool = False,
    on_sample: OnSample | None = None,
) -> Report:
    """As ``evaluate`` for a model file, with the runtime's own preprocessing, engine and head.

    Raises:
        ModelError: the file cannot be used.
        DataError: as ``evaluate``.
    """
    from edge.model import open_model

    model = open_model(path, engine=engine, score=EVAL_SCORE, max_batch=batch_size)
    try:
        return evaluate(
            model.predict,
            dataset,
            classes=model.manifest.classes,
            batch_size=batch_size,
            progress=progress,
            on_sample=on_sample,
        )
    finally:
        model.close()


def _judge(dataset: Dataset, match: ClassMatch) -> DetectJudge | SegmentJudge | ClassifyJudge:
    match dataset.task:
        case "detect":
            return DetectJudge(dataset.classes, match)
        case "segment":
            return SegmentJudge(dataset.classes, match)
        case "classify":
            return ClassifyJudge(dataset.classes, match)


def _add(
    judge: DetectJudge | SegmentJudge | ClassifyJudge, sample: Sample, prediction: Prediction, dataset: Dataset
) -> None:
    match judge, prediction:
        case DetectJudge(), Detections():
            judge.add(sample, prediction)
        case SegmentJudge(), Segmentation():
            judge.add(sample, prediction)
        case ClassifyJudge(), Classification():
            judge.add(sample, prediction)
        case _:
            raise DataError(
                f"{dataset.name} has labels for the task {dataset.task!r}, but the model gives "
                f"{type(prediction).__name__.lower()}; choose a model or a data set of the same task"
            )


def _report(
    judge: DetectJudge | SegmentJudge | ClassifyJudge, dataset: Dataset, match: ClassMatch, seconds: float
) -> Report:
    curves: dict[str, Float64] = {}
    rows = tuple(dataset.classes[label] for label in match.judged)
    if isinstance(judge, DetectJudge):
        metrics, per_class, curves = judge.finish()
        rows = (*rows, "nothing")
    else:
        metrics, per_class = judge.finish()
    return Report(
        dataset=dataset.name,
        dataset_sha256=dataset.fingerprint,
        task=dataset.task,
        metrics=metrics,
        per_class=per_class,
        classes=rows,
        confusion=judge.confusion,
        num_images=len(dataset),
        seconds=seconds,
        curves=curves,
        only_model=match.only_model,
        only_data=match.only_data,
        redrawn=judge.redrawn,
        num_drawn=judge.num_drawn,
    )


def _batches(dataset: Dataset, batch_size: int, progress: bool) -> Iterator[list[Sample]]:
    starts: Iterable[int] = range(0, len(dataset), batch_size)
    if progress:
        starts = _tracked(starts, dataset.name)
    for start in starts:
        yield [dataset[index] for index in range(start, min(start + batch_size, len(dataset)))]


def _tracked(starts: Iterable[int], name: str) -> Iterable[int]:
    from rich.progress import track

    from edge.console import err

    return track(starts, description=name, console=err)
