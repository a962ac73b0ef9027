"""Judging: known predictions give known figures, classes are matched by name, reports and pictures are written."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge.errors import DataError
from edge.types import Classification, Detections, Embedding, Letterbox, Prediction, Segmentation, UInt8
from export.data.sample import DataTask, Sample
from export.evaluate.evaluate import evaluate, evaluate_model
from export.evaluate.names import match_classes
from export.evaluate.pictures import SampleSheet, draw_report, truth_of
from export.evaluate.pixels import on_picture
from export.evaluate.report import Report


class Listed:
    """Samples in memory."""

    name = "listed"
    fingerprint = "f" * 64

    def __init__(self, task: DataTask, classes: Sequence[str], samples: Sequence[Sample]) -> None:
        self.task = task
        self.classes = tuple(classes)
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]


def picture(number: int, height: int = 100, width: int = 120) -> UInt8:
    """A picture that tells its number."""
    return np.full((height, width, 3), number, np.uint8)


def boxed(number: int, rows: Sequence[tuple[float, float, float, float, int]], ignore: Sequence[bool] = ()) -> Sample:
    table = np.array(rows, np.float32).reshape(-1, 5)
    hidden = np.array(ignore or [False] * len(table), np.bool_)
    return Sample(
        picture(number),
        f"{number}.jpg",
        table[:, :4],
        table[:, 4].astype(np.int32),
        hidden,
        np.ones(len(table), np.float32),
    )


def perfect(dataset: Listed) -> Callable[[Sequence[UInt8]], list[Prediction]]:
    """Answers with the truth, found by the number in the picture."""
    return lambda images: [truth_of(dataset[int(image[0, 0, 0])], len(dataset.classes)) for image in images]


def answering(*answers: Prediction) -> Callable[[Sequence[UInt8]], list[Prediction]]:
    return lambda images: [answers[int(image[0, 0, 0])] for image in images]


def found(*rows: tuple[float, float, float, float, float, int]) -> Detections:
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].astype(np.int32))


def two_pictures() -> Listed:
    first = boxed(0, [(10, 10, 50, 50, 0), (60, 20, 110, 90, 1)])
    return Listed("detect", ("cat", "dog"), [first, boxed(1, [(5, 5, 45, 95, 0)])])


def test_perfect_detector_scores_one() -> None:
    dataset = two_pictures()
    report = evaluate(perfect(dataset), dataset, batch_size=1)
    assert report.metrics["map"] == report.metrics["map50"] == report.metrics["ar100"] == pytest.approx(1)
    assert report.per_class["cat"] == {"ap": 1, "ap50": 1, "recall50": 1, "num_truth": 2}
    assert report.confusion.tolist() == [[2, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert report.num_images == 2 and report.classes == ("cat", "dog", "nothing")


def test_half_of_the_objects_found_scores_half() -> None:
    dataset = two_pictures()
    report = evaluate(answering(found((10, 10, 50, 50, 0.9, 0)), Detections.empty()), dataset)
    # COCO reads precision at 101 recalls: 0.00 to 0.50 are 51 of them
    assert report.per_class["cat"]["ap50"] == pytest.approx(51 / 101)
    assert report.per_class["dog"]["ap50"] == 0
    assert report.confusion.tolist() == [[1, 0, 1], [0, 0, 1], [0, 0, 0]]


def test_detections_on_ignored_objects_do_not_count() -> None:
    sample = boxed(0, [(10, 10, 50, 50, 0), (60, 20, 110, 90, 0)], ignore=[False, True])
    dataset = Listed("detect", ("cat",), [sample])
    both = found((60, 20, 110, 90, 0.99, 0), (10, 10, 50, 50, 0.5, 0))
    report = evaluate(answering(both), dataset)
    assert report.metrics["map"] == pytest.approx(1)
    assert report.confusion.tolist() == [[1, 0], [0, 0]]
    seen = replace(sample, ignore=np.zeros(2, np.bool_))
    assert evaluate(answering(both[1:]), Listed("detect", ("cat",), [seen])).metrics["map"] < 0.6


def test_wrong_class_and_false_alarm_are_confusions() -> None:
    report = evaluate(
        answering(found((10, 10, 50, 50, 0.9, 1)), found((60, 60, 90, 90, 0.9, 0))), two_pictures(), batch_size=2
    )
    assert report.confusion.tolist() == [[0, 1, 1], [0, 0, 1], [1, 0, 0]]


def test_boxes_count_by_size() -> None:
    dataset = Listed("detect", ("cat",), [boxed(0, [(0, 0, 20, 20, 0), (0, 0, 100, 100, 0)])])
    metrics = evaluate(answering(found((0, 0, 100, 100, 0.9, 0))), dataset).metrics
    assert metrics["map_large"] == pytest.approx(1) and metrics["map_small"] == 0 and "map_medium" not in metrics


def test_detector_that_finds_nothing_scores_zero() -> None:
    dataset = two_pictures()
    report = evaluate(answering(Detections.empty(), Detections.empty()), dataset)
    assert report.metrics["map"] == 0


def test_judging_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    dataset = two_pictures()
    evaluate(perfect(dataset), dataset)
    assert capsys.readouterr() == ("", "")


def test_model_with_other_names_and_order_is_judged_by_name() -> None:
    dataset = Listed(
        "detect", ("aeroplane", "sofa", "unicorn"), [boxed(0, [(10, 10, 50, 50, 0), (60, 20, 110, 90, 1)])]
    )
    answer = found((10, 10, 50, 50, 0.9, 2), (60, 20, 110, 90, 0.8, 0), (0, 0, 9, 9, 0.99, 1))
    report = evaluate(answering(answer), dataset, classes=("couch", "giraffe", "airplane"))
    assert report.metrics["map"] == pytest.approx(1) and report.classes == ("aeroplane", "sofa", "nothing")
    assert report.only_model == ("giraffe",) and report.only_data == ("unicorn",)


@pytest.mark.parametrize(
    ("model", "data", "expected"),
    [
        (("airplane", "motorcycle"), ("motorbike", "aeroplane"), [1, 0]),
        (
            ("couch", "tv", "dining table", "potted plant"),
            ("sofa", "tvmonitor", "diningtable", "pottedplant"),
            [0, 1, 2, 3],
        ),
        (("Traffic Light", "person"), ("traffic_light", "pedestrian"), [0, 1]),
        # where both names are there, each is itself
        (("person", "rider"), ("pedestrian", "rider"), [0, 1]),
        (("car", "automobile"), ("car", "automobile"), [0, 1]),
        (("car", "automobile"), ("car",), [0, -1]),
        (("automobile", "car"), ("car",), [-1, 0]),
        # different classes may differ in punctuation or case only
        (("no entry", "no-entry"), ("no entry", "no-entry"), [0, 1]),
        (("A", "a", "b"), ("a", "A", "B"), [1, 0, 2]),
        (("FAN", "cat"), ("Fan", "fan", "cat"), [-1, 2]),
        (("Fan", "fan", "cat"), ("FAN", "cat"), [-1, -1, 1]),
        (("ab", "cat"), ("a b", "ab", "cat"), [1, 2]),
    ],
)
def test_names_of_one_thing_meet(model: tuple[str, ...], data: tuple[str, ...], expected: list[int]) -> None:
    assert match_classes(model, data).to_data.tolist() == expected


def test_nothing_in_common_is_refused() -> None:
    with pytest.raises(DataError, match="no class in common: the model knows cat; the data set has dog"):
        match_classes(("cat",), ("dog",))


def masked(number: int, mask: UInt8) -> Sample:
    return Sample(picture(number, *mask.shape), f"{number}.png", mask=mask)


def grid(class_map: UInt8, box: Letterbox | None = None) -> Segmentation:
    height, width = class_map.shape
    return Segmentation(class_map, box or Letterbox(1, 1, 0, 0, width, height, width, height))


def test_perfect_segmenter_scores_one_and_unlabelled_pixels_do_not_count() -> None:
    mask = np.repeat(np.array([[0, 1, 255]], np.uint8), 4, axis=0)
    guess = mask.copy()
    guess[mask == 255] = 1
    report = evaluate(answering(grid(guess)), Listed("segment", ("road", "sky"), [masked(0, mask)]))
    assert report.metrics == {"miou": 1, "pixel_accuracy": 1}


def test_iou_is_shared_over_joined_pixels() -> None:
    mask = np.array([[0, 0, 0, 1]], np.uint8)
    guess = np.array([[0, 1, 1, 1]], np.uint8)
    report = evaluate(answering(grid(guess)), Listed("segment", ("road", "sky", "tree"), [masked(0, mask)]))
    assert report.per_class["road"]["iou"] == pytest.approx(1 / 3) and report.per_class["sky"]["iou"] == pytest.approx(
        1 / 3
    )
    # no tree anywhere: it has no figure and does not lower the mean
    assert report.metrics["miou"] == pytest.approx(1 / 3) and "iou" not in report.per_class["tree"]
    assert report.metrics["pixel_accuracy"] == 0.5
    assert report.confusion.tolist() == [[1, 2, 0], [0, 1, 0], [0, 0, 0]]


def test_pixels_of_foreign_classes_are_wrong() -> None:
    mask = np.array([[0, 0, 1, 1]], np.uint8)
    guess = np.array([[0, 2, 1, 1]], np.uint8)
    dataset = Listed("segment", ("road", "sky"), [masked(0, mask)])
    report = evaluate(answering(grid(guess)), dataset, classes=("road", "sky", "lava"))
    assert report.per_class["road"]["iou"] == 0.5 and report.metrics["pixel_accuracy"] == 0.75


def test_class_map_is_read_through_its_letterbox() -> None:
    # a 4x2 picture in a grid of 8x8: twice as large, two rows of padding above and below
    class_map = np.full((8, 8), 9, np.uint8)
    class_map[2:6] = np.repeat(np.repeat(np.array([[0, 1, 2, 3], [4, 5, 6, 7]]), 2, axis=0), 2, axis=1)
    seen = on_picture(grid(class_map, Letterbox(2, 2, 0, 2, 4, 2, 8, 8)), (2, 4))
    assert seen.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


def labelled(number: int, label: int) -> Sample:
    return Sample(picture(number), f"{number}.jpg", label=label)


def scores(*values: float) -> Classification:
    return Classification(np.array(values, np.float32))


def test_best_and_five_best_classes_are_counted() -> None:
    names = tuple("abcdefg")
    dataset = Listed("classify", names, [labelled(0, 0), labelled(1, 0), labelled(2, 6)])
    falling = scores(7, 6, 5, 4, 3, 2, 1)
    report = evaluate(answering(falling, scores(4, 9, 5, 4, 3, 2, 1), falling), dataset)
    assert report.metrics == {"top1": pytest.approx(1 / 3), "top5": pytest.approx(2 / 3)}
    assert report.per_class["a"] == {"top1": 0.5, "precision": 0.5, "num_images": 2}


def test_only_classes_of_the_data_set_compete() -> None:
    dataset = Listed("classify", ("cat", "dog"), [labelled(0, 1)])
    report = evaluate(answering(scores(9, 2, 1)), dataset, classes=("lion", "dog", "cat"))
    assert report.metrics["top1"] == 1 and report.only_model == ("lion",)


@pytest.mark.parametrize(
    "answer", [scores(1, 2), grid(np.zeros((100, 120), np.uint8)), Embedding(np.ones(2, np.float32))]
)
def test_model_of_another_task_is_refused(answer: Prediction) -> None:
    with pytest.raises(DataError, match="labels for the task 'detect', but the model gives"):
        evaluate(answering(answer, answer), two_pictures())


def test_boxes_of_nameless_classes_are_left_out() -> None:
    dataset = two_pictures()
    answer = found((10, 10, 50, 50, 0.9, 0), (10, 10, 50, 50, 0.95, 7))
    report = evaluate(answering(answer, Detections.empty()), dataset)
    assert report.confusion[0].tolist() == [1, 0, 1]


def test_too_few_scores_are_refused() -> None:
    dataset = Listed("classify", ("cat", "dog"), [labelled(0, 1)])
    with pytest.raises(DataError, match="gives 1 scores, its manifest names 2 classes"):
        evaluate(answering(scores(1)), dataset)


def test_detector_that_gives_no_numbers_scores_zero() -> None:
    nan = float("nan")
    report = evaluate(answering(found((nan, nan, nan, nan, nan, 0)), found((1, 1, nan, 9, 0.9, 1))), two_pictures())
    assert report.metrics["map"] == 0


def test_report_is_json_without_surprises() -> None:
    dataset = two_pictures()
    raw = json.loads(evaluate(perfect(dataset), dataset).to_json())
    assert raw["metrics"]["map"] == 1 and raw["task"] == "detect" and raw["confusion"][0] == [2, 0, 0]
    assert set(raw) >= {"dataset", "dataset_sha256", "num_images", "seconds", "per_class", "only_model", "only_data"}


def test_every_sample_is_shown_in_order() -> None:
    dataset = two_pictures()
    seen: list[str] = []
    evaluate(perfect(dataset), dataset, on_sample=lambda sample, _: seen.append(sample.image_id))
    assert seen == ["0.jpg", "1.jpg"]


TASKS: dict[str, Listed] = {
    "detect": two_pictures(),
    "segment": Listed("segment", ("road", "sky"), [masked(0, np.eye(40, dtype=np.uint8))]),
    "classify": Listed("classify", ("cat", "dog"), [labelled(0, 1)]),
}


@pytest.mark.parametrize("task", TASKS)
def test_pictures_are_written(tmp_path: Path, task: str) -> None:
    dataset = TASKS[task]
    sheet = SampleSheet(dataset.classes, dataset.classes, len(dataset))
    report = evaluate(perfect(dataset), dataset, on_sample=sheet.add)
    sheet.write(tmp_path / "samples.png")
    written = draw_report(report, tmp_path)
    assert len(written) == (2 if task == "detect" else 1)
    for path in [*written, tmp_path / "samples.png"]:
        assert path.stat().st_size > 1000


def test_sheet_without_pictures_writes_nothing(tmp_path: Path) -> None:
    SampleSheet(("cat",), ("cat",), 0).write(tmp_path / "samples.png")
    assert not list(tmp_path.iterdir())


def test_main_metric_belongs_to_the_task() -> None:
    report = evaluate(perfect(TASKS["segment"]), TASKS["segment"])
    assert isinstance(report, Report) and report.main_metric == "miou"


@pytest.mark.shared
def test_pycocotools_on_the_original_file_gives_the_same_figures(shared_data: Path) -> None:
    """The labels go through our reader, class matching and judge; here they go straight from the file."""
    import contextlib
    import io

    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    from export.data.open_data import first, open_dataset

    path = shared_data / "detection" / "coco80" / "instances.json"
    dataset = first(open_dataset(str(path)), 40)
    rng = np.random.default_rng(0)
    answers, names = [], []
    for index in range(len(dataset)):
        sample = dataset[index]
        names.append(sample.image_id)
        boxes = sample.boxes + rng.normal(0, 4, sample.boxes.shape)
        keep = rng.random(len(boxes)) < 0.8
        score = rng.random(len(boxes))
        answers.append(Detections(boxes.astype(np.float32), score.astype(np.float32), sample.labels)[keep])
    feed = iter(answers)
    report = evaluate(lambda images: [next(feed) for _ in images], dataset)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(path))
        ids = {image["file_name"]: image["id"] for image in truth.dataset["images"]}
        categories = sorted(truth.getCatIds())
        rows = [
            {
                "image_id": ids[names[index]],
                "category_id": categories[int(label)],
                "bbox": [float(v) for v in (box[0], box[1], box[2] - box[0], box[3] - box[1])],
                "score": float(score),
            }
            for index, answer in enumerate(answers)
            for box, label, score in zip(answer.xyxy, answer.class_id, answer.score, strict=True)
        ]
        judge = COCOeval(truth, truth.loadRes(rows), "bbox")
        judge.params.imgIds = [ids[name] for name in names]
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    # areas are those of boxes here, of outlines there, so figures by size differ
    assert [report.metrics[name] for name in ("map", "map50", "map75")] == pytest.approx(judge.stats[:3], abs=1e-6)


@pytest.mark.shared
def test_detector_trained_on_coco_is_judged_on_voc_by_name(shared_data: Path) -> None:
    from export.data.open_data import first, open_dataset

    dataset = first(open_dataset(str(shared_data / "detection" / "voc07" / "val.json")), 30)
    report = evaluate_model(shared_data / "models" / "yolox_nano_416.onnx", dataset)
    assert report.metrics["map50"] > 0.6 and not report.only_data and len(report.only_model) == 60
