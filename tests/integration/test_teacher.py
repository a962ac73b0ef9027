"""Labels made by a teacher: what is kept, what is ignored, and that a broken-off run goes on to the same result."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.errors import DataError, EngineError, UsageError
from edge.types import Classification, Detections, Prediction, UInt8
from export.data.open_data import open_dataset
from export.teach.contact_sheet import write_sheets
from export.teach.teacher import LABELS, NOTES, Novelty, Teacher, TeachSettings, teach

CLASSES = ("motorcycle", "car")
SETTINGS = TeachSettings(keep=0.5, doubt=0.2, empty_share=1.0)


def scene(x: int, brightness: int = 250) -> UInt8:
    """A dark street with one bright thing at x."""
    picture = np.full((120, 200, 3), 30, np.uint8)
    picture[50:80, x : x + 24] = brightness
    return picture


def bright_things(images: Sequence[UInt8]) -> list[Prediction]:
    """Sees a car where it is bright; the brighter, the surer."""
    answers: list[Prediction] = []
    for image in images:
        rows, columns = np.nonzero(image[..., 0] > 60)
        if not len(rows):
            answers.append(Detections.empty())
            continue
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        score = np.float32(np.median(image[rows, columns, 0]) / 255)
        answers.append(Detections(np.array([box], np.float32), score[None], np.array([1], np.int32)))
    return answers


TEACHER = Teacher(bright_things, CLASSES, "id")


def write_folder(folder: Path, pictures: Sequence[UInt8]) -> str:
    folder.mkdir()
    for number, picture in enumerate(pictures):
        cv2.imwrite(str(folder / f"{number:03d}.png"), picture)
    return str(folder)


def walk(count: int = 12) -> list[UInt8]:
    return [scene(12 * number) for number in range(count)]


def test_sure_boxes_are_labels_and_doubtful_ones_ignored(tmp_path: Path) -> None:
    uri = write_folder(tmp_path / "in", [scene(10, 250), scene(60, 100), scene(110, 40)])
    report = teach(TEACHER, [uri], tmp_path / "out", SETTINGS)
    dataset = open_dataset(f"coco:{tmp_path / 'out' / LABELS}")
    assert dataset.classes == CLASSES and len(dataset) == 3
    sure, doubtful, empty = (dataset[number] for number in range(3))
    assert sure.boxes.tolist() == [[10, 50, 34, 80]] and sure.labels.tolist() == [1]
    assert not sure.ignore[0] and sure.weight[0] == pytest.approx(250 / 255, abs=0.01)
    assert doubtful.ignore.tolist() == [True] and len(empty.boxes) == 0
    assert (report.num_pictures, report.num_labels, report.num_doubtful, report.num_empty) == (3, 1, 1, 1)
    assert report.per_class == {"car": 1}


def test_classes_are_chosen_and_named_by_the_pupil(tmp_path: Path) -> None:
    uri = write_folder(tmp_path / "in", walk(3))
    teach(TEACHER, [uri], tmp_path / "out", replace(SETTINGS, classes=("motorbike",)))
    dataset = open_dataset(f"coco:{tmp_path / 'out' / LABELS}")
    assert dataset.classes == ("motorbike",) and all(len(dataset[number].boxes) == 0 for number in range(3))


def test_class_that_the_teacher_does_not_know_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the teacher does not know dog; it knows motorcycle, car"):
        teach(TEACHER, [], tmp_path / "out", replace(SETTINGS, classes=("car", "dog")))


def test_near_duplicates_are_skipped(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    still = [np.clip(scene(40) + noise.normal(0, 3, (120, 200, 1)), 0, 255).astype(np.uint8) for _ in range(6)]
    uri = write_folder(tmp_path / "in", [*still, scene(90)])
    report = teach(TEACHER, [uri], tmp_path / "out", SETTINGS)
    assert (report.num_pictures, report.num_alike) == (2, 5)


def test_small_thing_that_moves_makes_a_new_frame() -> None:
    novelty = Novelty(14.0, 8)
    street = np.full((720, 1280, 3), 90, np.uint8)
    assert novelty.is_new(street) and not novelty.is_new(street.copy())
    # 0.13 % of the picture: the mean hardly changes
    street[300:348, 600:625] = 200
    assert novelty.is_new(street)


def test_pictures_without_objects_are_few(tmp_path: Path) -> None:
    dark = [np.full((120, 200, 3), level, np.uint8) for level in range(0, 60, 15)]
    uri = write_folder(tmp_path / "in", [*dark, *walk(10)])
    report = teach(TEACHER, [uri], tmp_path / "out", replace(SETTINGS, empty_share=0.2))
    # the dark ones come first, when there is no share to spend yet
    assert report.num_empty == 0 and report.num_pictures == 10
    mixed = [picture for pair in zip(walk(10), [*dark, *dark, *dark], strict=False) for picture in pair]
    uri = write_folder(tmp_path / "in2", mixed)
    report = teach(TEACHER, [uri], tmp_path / "out2", replace(SETTINGS, empty_share=0.2, memory=1))
    assert 0 < report.num_empty <= 0.2 * report.num_pictures


def test_limit_ends_the_run(tmp_path: Path) -> None:
    uri = write_folder(tmp_path / "in", walk())
    report = teach(TEACHER, [uri], tmp_path / "out", replace(SETTINGS, limit=5))
    assert report.num_pictures == 5 and len(list((tmp_path / "out" / "images").iterdir())) == 5


def test_frames_of_a_video_are_spaced_in_time(tmp_path: Path) -> None:
    path = tmp_path / "walk.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (200, 120))
    for number in range(40):
        writer.write(scene(4 * number))
    writer.release()
    teach(TEACHER, [str(path)], tmp_path / "out", replace(SETTINGS, every_s=1.0))
    names = sorted(item.name for item in (tmp_path / "out" / "images").iterdir())
    assert names == [f"walk-{number:07d}.jpg" for number in (0, 10, 20, 30)]


def test_several_sources_keep_their_pictures_apart(tmp_path: Path) -> None:
    one, other = tmp_path / "a" / "cam", tmp_path / "b" / "cam"
    for folder in (one, other):
        folder.parent.mkdir()
    uris = [write_folder(one, walk(3)), write_folder(other, walk(4))]
    assert teach(TEACHER, uris, tmp_path / "out", SETTINGS).num_pictures == 7


def failing_after(count: int) -> Callable[[Sequence[UInt8]], list[Prediction]]:
    calls = iter(range(1000))

    def predict(images: Sequence[UInt8]) -> list[Prediction]:
        if next(calls) >= count:
            raise EngineError("power cut")
        return bright_things(images)

    return predict


@pytest.mark.parametrize("torn", [b"", b'{"source":0,"fra'])
def test_broken_off_run_goes_on_to_the_same_result(tmp_path: Path, torn: bytes) -> None:
    uri = write_folder(tmp_path / "in", [*walk(), *walk(10)[::-1]])
    settings = replace(SETTINGS, memory=2)
    teach(TEACHER, [uri], tmp_path / "whole", settings)
    with pytest.raises(EngineError):
        teach(replace(TEACHER, predict=failing_after(1)), [uri], tmp_path / "out", settings)
    assert len(open_dataset(f"coco:{tmp_path / 'out' / LABELS}")) == 8
    with (tmp_path / "out" / NOTES).open("ab") as file:
        file.write(torn)
    seen = []

    def noting(images: Sequence[UInt8]) -> list[Prediction]:
        seen.append(1)
        return bright_things(images)

    again = replace(TEACHER, predict=noting)
    teach(again, [uri], tmp_path / "out", settings)
    assert (tmp_path / "out" / LABELS).read_bytes() == (tmp_path / "whole" / LABELS).read_bytes()
    assert (tmp_path / "out" / NOTES).read_bytes() == (tmp_path / "whole" / NOTES).read_bytes()
    assert len(seen) == 2
    for path in (tmp_path / "whole" / "images").iterdir():
        assert (tmp_path / "out" / "images" / path.name).read_bytes() == path.read_bytes()


def test_finished_run_looks_at_nothing_again(tmp_path: Path) -> None:
    uri = write_folder(tmp_path / "in", walk())
    first = teach(TEACHER, [uri], tmp_path / "out", SETTINGS)
    again = teach(replace(TEACHER, predict=failing_after(0)), [uri], tmp_path / "out", SETTINGS)
    assert again.num_pictures == first.num_pictures == 12


@pytest.mark.parametrize(
    ("teacher", "settings", "message"),
    [
        (replace(TEACHER, identity="other"), SETTINGS, "made with another teacher"),
        (TEACHER, replace(SETTINGS, keep=0.6), "made with another settings"),
    ],
)
def test_folder_of_another_run_is_refused(
    tmp_path: Path, teacher: Teacher, settings: TeachSettings, message: str
) -> None:
    uri = write_folder(tmp_path / "in", walk(2))
    teach(TEACHER, [uri], tmp_path / "out", SETTINGS)
    with pytest.raises(UsageError, match=message):
        teach(teacher, [uri], tmp_path / "out", settings)


def test_model_of_another_task_is_no_teacher(tmp_path: Path) -> None:
    uri = write_folder(tmp_path / "in", walk(2))
    classifier = Teacher(lambda images: [Classification(np.ones(2, np.float32))] * len(images), CLASSES, "id")
    with pytest.raises(UsageError, match="a teacher is a detector; this model gives classification"):
        teach(classifier, [uri], tmp_path / "out", SETTINGS)


def test_labels_say_who_made_them(tmp_path: Path) -> None:
    from export.teach.labels import to_coco

    teach(TEACHER, [write_folder(tmp_path / "in", walk(2))], tmp_path / "out", SETTINGS)
    info = json.loads((tmp_path / "out" / LABELS).read_text())["info"]
    assert info["teacher"] == "id" and info["settings"]["keep"] == 0.5 and "people" in info["description"]
    assert json.loads(to_coco([], CLASSES, {}))["images"] == []


def test_review_sheets_show_the_least_certain_first(tmp_path: Path) -> None:
    pictures = [scene(12 * number, 250 - 8 * number) for number in range(10)]
    uri = write_folder(tmp_path / "in", [*pictures, *walk(12)])
    teach(TEACHER, [uri], tmp_path / "out", replace(SETTINGS, memory=1))
    dataset = open_dataset(f"coco:{tmp_path / 'out' / LABELS}")
    (tmp_path / "review-09.png").write_text("old")
    pages = write_sheets(dataset, tmp_path)
    assert [page.name for page in pages] == ["review-01.png", "review-02.png"]
    assert not (tmp_path / "review-09.png").exists()
    assert all(cv2.imread(str(page)) is not None for page in pages)


def test_confidence_policy_must_be_ordered() -> None:
    with pytest.raises(ValueError, match="0 <= doubt <= keep <= 1"):
        TeachSettings(keep=0.2, doubt=0.5)
