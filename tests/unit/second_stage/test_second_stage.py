"""The second stage at work: labels come later for cameras and at once for files, and a failure costs labels only."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import COLOURS, colour_classifier, tiny_model
from waiting import wait_until as until

from edge.config.analytics import AnalyticsSettings, SecondStageSettings
from edge.config.load import parse_config
from edge.config.schema import Config
from edge.errors import ConfigError, EngineError
from edge.model import open_model
from edge.overlay import Overlay, StreamState
from edge.pipeline.analysis import StreamAnalysis, labelled
from edge.pipeline.memory_plan import plan_memory
from edge.result_json import ResultEncoder
from edge.second_stage.classifier import MAX_WAITING, CropClassifier, StreamView
from edge.second_stage.models import CropModels
from edge.types import Detections, Event, Frame, Label, Prediction, Result, Tracks, UInt8

S = 1_000_000_000
BOXES = ((100, 100, 160, 220), (300, 100, 360, 220))
CLASSES = ("person", "car")


def picture() -> UInt8:
    """A blue object and a red one on grey."""
    image = np.full((360, 640, 3), 90, np.uint8)
    for (x1, y1, x2, y2), colour in zip(BOXES, ((250, 20, 20), (20, 20, 250)), strict=True):
        image[y1:y2, x1:x2] = colour
    return image


def frame(number: int, stream: str = "door") -> Frame:
    return Frame(stream, 0, number, number * S // 25, None, picture())


def tracks(*ids: int) -> Tracks:
    num = len(ids)
    return Tracks(
        np.array(ids, np.int64),
        np.array(BOXES[:num], np.float32).reshape(num, 4),
        np.full(num, 0.9, np.float32),
        np.ones(num, np.int32),
        np.ones(num, np.float32),
        np.zeros((num, 2), np.float32),
        np.arange(num, dtype=np.int32),
    )


@pytest.fixture
def classifier(tmp_path: Path) -> CropClassifier:
    return CropClassifier("colour", open_model(colour_classifier(tmp_path / "colour.onnx"), threads=1))


def view_of(classifier: CropClassifier, stream: str = "door", *, is_waiting: bool, **chosen: Any) -> StreamView:
    settings = SecondStageSettings(model="colour", min_score=0.5, **chosen)
    return classifier.view(stream, CLASSES, settings, is_waiting=is_waiting)


def names(labels: Any) -> dict[int, str]:
    return {track_id: found[0].name for track_id, found in labels.items()}


def test_a_file_has_its_labels_in_the_same_frame(classifier: CropClassifier) -> None:
    view = view_of(classifier, is_waiting=True)
    assert names(view.label(frame(0), tracks(1, 2))) == {1: "blue", 2: "red"}
    assert classifier.num_batches == 1, "both crops go in one batch"
    view.label(frame(1), tracks(1, 2))
    assert classifier.num_answered == 2, "a second look so soon is not needed"


def test_a_camera_never_waits_and_has_its_labels_later(classifier: CropClassifier) -> None:
    view = view_of(classifier, is_waiting=False)
    assert view.label(frame(0), tracks(1, 2)) == {}, "nobody answers yet, and the frame goes on"
    stopping = threading.Event()
    thread = threading.Thread(target=classifier.run, args=(stopping,))
    thread.start()
    until(lambda: bool(view.inbox))
    stopping.set()
    thread.join(5)
    assert not thread.is_alive()
    assert names(view.label(frame(1), tracks(1, 2))) == {1: "blue", 2: "red"}


def test_one_batch_serves_several_cameras_and_each_gets_its_own_answers(classifier: CropClassifier) -> None:
    views = {name: view_of(classifier, name, is_waiting=False) for name in ("door", "yard")}
    for name, ids in (("door", (1, 2)), ("yard", (2, 1))):
        views[name].label(frame(0, name), tracks(*ids))
    stopping = threading.Event()
    thread = threading.Thread(target=classifier.run, args=(stopping,))
    thread.start()
    until(lambda: all(view.inbox for view in views.values()))
    stopping.set()
    thread.join(5)
    assert (classifier.num_batches, classifier.num_answered) == (1, 4)
    assert names(views["door"].label(frame(1), tracks(1, 2))) == {1: "blue", 2: "red"}
    assert names(views["yard"].label(frame(1, "yard"), tracks(2, 1))) == {2: "blue", 1: "red"}


class _Broken:
    """A model whose engine fails."""

    def __init__(self, model: Any) -> None:
        self.manifest, self.engine = model.manifest, model.engine

    def predict(self, images: Any) -> list[Prediction]:
        raise EngineError("out of order")


@pytest.mark.parametrize("is_waiting", [True, False])
def test_an_engine_that_fails_costs_the_labels_only(tmp_path: Path, is_waiting: bool) -> None:
    classifier = CropClassifier("colour", _Broken(open_model(colour_classifier(tmp_path / "c.onnx"))))  # type: ignore[arg-type]
    view = view_of(classifier, is_waiting=is_waiting)
    assert view.label(frame(0), tracks(1)) == {}
    classifier.run(threading.Event())
    assert classifier.is_broken
    assert view.label(frame(1), tracks(1, 2)) == {}
    assert len(classifier._queue) == 0, "nothing waits for an engine that will not answer"


def test_what_waits_is_bounded_in_number_and_size(classifier: CropClassifier) -> None:
    view = view_of(classifier, is_waiting=False)
    for number in range(MAX_WAITING + 20):
        view.label(frame(number), tracks(number + 1))
    assert len(classifier._queue) == MAX_WAITING and classifier.num_dropped == 20
    assert all(max(request.image.shape[:2]) <= 32 for request in classifier._queue.take(MAX_WAITING))


def test_a_stream_that_was_removed_is_forgotten(classifier: CropClassifier) -> None:
    view = view_of(classifier, is_waiting=False)
    view.label(frame(0), tracks(1))
    del view
    assert len(classifier._views) == 0
    stopping = threading.Event()
    thread = threading.Thread(target=classifier.run, args=(stopping,))
    thread.start()
    until(lambda: classifier.num_answered == 1)
    stopping.set()
    thread.join(5)


def result(labels: dict[int, tuple[Label, ...]], *events: Event) -> Result:
    found = Detections(np.array(BOXES, np.float32), np.full(2, 0.9, np.float32), np.ones(2, np.int32))
    return Result(frame(0), found, tracks(7), events, labels=labels)


def test_labels_are_in_the_lines_of_json() -> None:
    encoder = ResultEncoder(CLASSES, score=0.5)
    line = json.loads(encoder.encode(result({7: (Label("red", 0.91), Label("blue", 0.3))})))
    assert line["objects"][0]["labels"] == [{"class": "red", "score": 0.91}, {"class": "blue", "score": 0.3}]
    assert list(line["objects"][0]) == ["track_id", "class", "score", "xyxy", "labels"]
    assert "labels" not in line["objects"][1], "a detection of no track has none"
    assert b"labels" not in encoder.encode(result({}))


def test_labels_are_drawn() -> None:
    state = StreamState()
    plain = Overlay(CLASSES).draw(result({}), state)
    labelled_one = Overlay(CLASSES).draw(result({7: (Label("red", 0.9),)}), state)
    assert (plain != labelled_one).any()
    assert (plain == Overlay(CLASSES).draw(result({8: (Label("red", 0.9),)}), state)).all(), "another track's label"


def test_labels_are_in_the_events_of_their_track() -> None:
    events = [Event("line_crossed", "door", 0, 7, {"line": "a"}), Event("zone_crowded", "door", 0, None, {})]
    about, others = labelled(events, {7: (Label("red", 0.9123),)})
    assert about.data == {"line": "a", "labels": {"red": 0.912}}
    assert others.data == {}


class _SameBoxes:
    """A tracker that says what it is given."""

    def update(self, detections: Detections, time_ns: int, motion: Any = None, look: Any = None) -> Tracks:
        return tracks(1, 2)


def test_the_follower_puts_labels_into_results(classifier: CropClassifier) -> None:
    follower = StreamAnalysis(
        "door",
        CLASSES,
        tracker=_SameBoxes(),
        settings=AnalyticsSettings(),
        second_stage=view_of(classifier, is_waiting=True),
    )
    found = follower.update(frame(0), Detections.empty(), {})
    assert names(found.labels) == {1: "blue", 2: "red"}
    assert found.stage_ns["second_stage"] > 0


def config(folder: Path, **changes: Any) -> Config:
    tiny_model(folder / "objects.onnx")
    colour_classifier(folder / "colour.onnx")
    stream = {"name": "door", "source": "synthetic://street?frames=2", "second_stage": {"model": "colour"}, **changes}
    models = [{"name": name, "path": folder / f"{name}.onnx"} for name in ("objects", "colour")]
    return parse_config({"models": models, "streams": [stream]}, where="test")


def test_the_right_model_is_loaded_for_crops(tmp_path: Path) -> None:
    crops = CropModels(config(tmp_path))
    assert list(crops.manifests) == ["colour"] and crops.manifests["colour"].classes == COLOURS
    assert not config(tmp_path).has_frames(config(tmp_path).models[1])
    assert crops.stop(0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"second_stage": {"model": "objects"}}, "does detect; expected a classifier"),
        ({"track": {"appearance_model": "colour"}}, "does classify; expected an embedding model"),
        ({"second_stage": {"model": "other"}}, "asks for model 'other'; known: objects, colour"),
        ({"track": {"appearance_model": "other"}}, "asks for model 'other'"),
    ],
)
def test_a_model_of_the_wrong_kind_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CropModels(config(tmp_path, **changes))


def test_a_stream_added_later_must_name_a_model_that_is_loaded(tmp_path: Path) -> None:
    crops = CropModels(config(tmp_path, second_stage=None))
    stream = config(tmp_path).streams[0]
    with pytest.raises(ConfigError, match=r"second_stage.model = 'colour' was not loaded"):
        crops.view_of(stream, CLASSES)


def test_crops_that_wait_are_in_the_memory_plan(tmp_path: Path) -> None:
    crops = CropModels(config(tmp_path))
    plan = plan_memory(config(tmp_path), crops.manifests)
    (row,) = (row for row in plan.rows if "crops" in row.what)
    assert row.mb == pytest.approx(MAX_WAITING * 32 * 32 * 3 / 1e6)
