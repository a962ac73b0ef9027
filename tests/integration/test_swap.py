"""Guarantee 7: a model changes while frames flow; none is lost or counted twice; what is broken never stays."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import CLASSES, manifest, tiny_model

from edge.config.daemon import SwapSettings
from edge.config.load import parse_config
from edge.errors import ConfigError, EdgeError, EngineError, ModelError
from edge.model import Model, open_model
from edge.models.checks import check_outputs, check_sane
from edge.models.manifest import InputSpec, Manifest, write_sidecar
from edge.pipeline.inference import Probation, Tap
from edge.pipeline.pipeline import Pipeline
from edge.pipeline.swap.agreement import Comparison
from edge.pipeline.swap.class_mapping import MappedHead, check_points, mapping_table
from edge.pipeline.swap.swap import Order, Swap
from edge.types import Array, Classification, Detections, Frame, Prediction, Segmentation

QUICK = {"shadow_frames": 3, "probation_s": 0.02, "shadow_timeout_s": 10, "trial_timeout_s": 60}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def good(folder: Path) -> Path:
    return tiny_model(folder / "good.onnx")


class Line:
    """Inference without threads of its own: the swap's own thread gets its batches from here."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.probation: Probation | None = None
        self.tap: Tap | None = None
        self.frame = Frame("door", 0, 0, time.monotonic_ns(), None, np.full((48, 64, 3), 200, np.uint8))
        self.stopping = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def replace(self, name: str, model: Model, probation: Probation | None, timeout_s: float) -> bool:
        with self._lock:
            self.model, self.probation = model, probation
        return True

    def watch(self, name: str, tap: Tap | None) -> None:
        with self._lock:
            self.tap = tap

    def end(self) -> None:
        self.stopping.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self.stopping.wait(0.001):
            with self._lock:
                self._batch()

    def _batch(self) -> None:
        started = time.monotonic_ns()
        try:
            predictions = self.model.predict([self.frame.image], check_outputs)
            if self.probation is not None:
                self.probation.judge(predictions, {"infer": time.monotonic_ns() - started})
        except EdgeError as error:
            assert self.probation is not None
            probation, self.probation = self.probation, None
            self.model = probation.before
            probation.on_failure(error)
            return
        if self.tap is not None:
            self.tap([self.frame], predictions, time.monotonic_ns() - started)


def swap(
    good: Path, new: Path, *, renamed: dict[str, str] | None = None, has_trial: bool = False, **settings: Any
) -> Any:
    """(report, name of the model that runs after it)."""
    raw = {"models": [{"path": str(good), "threads": 1}], "streams": [{"name": "a", "source": "x"}]}
    config = parse_config(raw, where="x").models[0]
    old = open_model(good, threads=1)
    line = Line(old)
    try:
        order = Order(config, new, renamed or {}, has_trial)
        report, running = Swap(order, old, line, SwapSettings(**{**QUICK, **settings}), threading.Event()).run()
    finally:
        line.end()
    assert running is line.model
    # what runs on can still be used
    running.predict([line.frame.image])
    return report, running.manifest.name


def test_a_good_model_takes_over_with_figures(good: Path, folder: Path) -> None:
    report, running = swap(good, tiny_model(folder / "better.onnx", scores=(0.8, 0.7)), has_trial=True)
    assert (report.outcome, report.reason, running) == ("kept", "", "better")
    assert report.agreement.share == 1.0
    assert report.agreement.num_old == report.agreement.num_new == 2 * report.agreement.num_frames
    assert report.agreement.score_delta == pytest.approx(-0.1, abs=1e-3)
    assert report.new_ms > 0


def write_text(path: Path) -> Path:
    path.write_text("no model", encoding="utf-8")
    return path


def with_manifest(path: Path, text: str) -> Path:
    tiny_model(path, has_sidecar=False)
    path.with_suffix(".json").write_text(text)
    return path


def damaged(path: Path) -> Path:
    tiny_model(path)
    path.write_bytes(path.read_bytes()[:-40])
    return path


def other_file(path: Path) -> Path:
    """The manifest of another file."""
    tiny_model(path)
    tiny_model(path, scores=(0.1, 0.2), has_sidecar=False)
    return path


BROKEN: list[tuple[str, Callable[[Path], Path], str, str]] = [
    ("missing", lambda path: path, "load", "no such model file"),
    ("no model", write_text, "load", "not an ONNX model"),
    ("truncated", damaged, "load", "describes another"),
    ("manifest of another file", other_file, "load", "describes another"),
    ("no manifest json", lambda path: with_manifest(path, '{"schema": 1, "task": "detect"'), "load", ""),
    (
        "manifest of the future",
        lambda path: with_manifest(path, '{"schema": 9, "task": "detect"}'),
        "load",
        "expected a manifest with schema 1",
    ),
    (
        "manifest with a wrong field",
        lambda path: with_manifest(path, '{"schema": 1, "task": "fly"}'),
        "load",
        "name: field required",
    ),
    ("wrong input size", lambda path: tiny_model(path, size=48), "load", "the manifest says input uint8 (32, 32, 3)"),
    (
        "wrong output names",
        lambda path: tiny_model(path, output_names=("a", "b", "c")),
        "load",
        "needs outputs boxes, scores, labels",
    ),
    ("another task", lambda path: tiny_model(path, task="classify", head="classify"), "load", ""),
    (
        "another class",
        lambda path: tiny_model(path, classes=("person", "dog")),
        "load",
        "class 'dog' is not among those",
    ),
    (
        "a class less",
        lambda path: tiny_model(path, classes=("person",), labels=(0, 0)),
        "load",
        "class 'car' of the model that runs would never be seen again",
    ),
    (
        "a class that does not exist",
        lambda path: tiny_model(path, labels=(0, 7)),
        "golden",
        "class 7 is not among the 2",
    ),
    (
        "NaN in every score",
        lambda path: tiny_model(path, scores=(np.nan, 0.8)),
        "golden",
        "output 'scores' is not finite",
    ),
    (
        "infinite boxes",
        lambda path: tiny_model(path, boxes=((0, 0, np.inf, 9), (0, 0, 9, 9))),
        "golden",
        "output 'boxes' is not finite",
    ),
    ("NaN for bright frames", lambda path: tiny_model(path, nan_from_level=150), "golden", "is not finite"),
    ("scores above one", lambda path: tiny_model(path, scores=(7.0, 0.8)), "golden", "scores go from"),
    (
        "more boxes than scores",
        lambda path: tiny_model(path, boxes=((1, 2, 3, 4), (1, 2, 3, 4), (1, 2, 3, 4))),
        "golden",
        "golden frame 0",
    ),
    ("blind", lambda path: tiny_model(path, scores=(0.0, 0.0)), "shadow", "both models agree on 0% of what they saw"),
    (
        "sees things elsewhere",
        lambda path: tiny_model(path, boxes=((20, 20, 31, 31), (0, 0, 5, 5))),
        "shadow",
        "both models agree on 0%",
    ),
    ("far too slow", lambda path: tiny_model(path, num_loops=12), "shadow", "ms per frame where the old one takes"),
]


@pytest.mark.parametrize(("name", "make", "phase", "words"), BROKEN, ids=[row[0] for row in BROKEN])
def test_a_broken_model_never_takes_over(
    name: str, make: Callable[[Path], Path], phase: str, words: str, good: Path, tmp_path: Path
) -> None:
    report, running = swap(good, make(tmp_path / "new.onnx"))
    assert report.outcome == "refused"
    assert report.phase == phase
    assert words in report.reason
    assert running == "good"


def test_a_model_that_fails_after_it_took_over_is_rolled_back(good: Path, folder: Path) -> None:
    """NaN comes only for frames that neither the golden frames nor the shadow run showed."""
    new = tiny_model(folder / "later.onnx", nan_from_level=100)
    original = Swap._prepare

    def unchecked(self: Swap) -> None:
        self._new = open_model(new, threads=1)
        self._times_ms = (1.0, 1.0)

    try:
        Swap._prepare = unchecked  # type: ignore[method-assign]
        report, running = swap(good, new, probation_s=5)
    finally:
        Swap._prepare = original  # type: ignore[method-assign]
    assert (report.outcome, report.phase, running) == ("rolled back", "probation", "good")
    assert "not finite" in report.reason


def test_cameras_that_give_nothing_end_the_swap(good: Path, folder: Path) -> None:
    new = tiny_model(folder / "waiting.onnx")
    report, running = swap(good, new, shadow_frames=100_000, shadow_timeout_s=0.3)
    assert report.outcome == "refused"
    assert "live frames came within 0.3 s; are the cameras on?" in report.reason
    assert running == "good"


# the trial in a process of its own


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
            "was ended by SIGSEGV; the model crashes its engine",
        ),
        ("import os; os.abort()", "was ended by SIGABRT"),
        ("import os; os._exit(3)", "ended with code 3 and no verdict"),
        ("print('all is well'); print('[1]')", "no verdict"),
        ("import time; time.sleep(60)", "took longer than 1 s"),
    ],
)
def test_a_model_that_crashes_or_hangs_costs_only_the_trial_process(
    code: str, words: str, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine's library misbehaves as soon as it is loaded; nothing else can be relied on to crash."""
    (tmp_path / "edge" / "pipeline" / "swap").mkdir(parents=True)
    for folder in ("edge", "edge/pipeline", "edge/pipeline/swap"):
        (tmp_path / folder / "__init__.py").write_text("")
    (tmp_path / "edge" / "pipeline" / "swap" / "trial.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    report, running = swap(good, good, has_trial=True, trial_timeout_s=1 if "sleep" in code else 30)
    assert (report.outcome, report.phase, running) == ("refused", "trial", "good")
    assert words in report.reason


# classes


@pytest.mark.parametrize(
    ("new", "renamed", "expected"),
    [
        (("person", "car"), {}, None),
        (("car", "person"), {}, [1, 0]),
        (("pedestrian", "car"), {"pedestrian": "person"}, [0, 1]),
        (("person", "car", "dog"), {"dog": ""}, [0, 1, -1]),
        (("person", "car", "van"), {"van": "car"}, [0, 1, 1]),
    ],
)
def test_classes_are_mapped_by_name(new: tuple[str, ...], renamed: dict[str, str], expected: list[int] | None) -> None:
    table = mapping_table(CLASSES, new, renamed)
    assert (None if table is None else table.tolist()) == expected


def test_a_mapped_model_speaks_as_the_old_one(good: Path, tmp_path: Path) -> None:
    new = tiny_model(tmp_path / "turned.onnx", classes=("car", "pedestrian", "dog"), labels=(1, 0))
    report, running = swap(good, new, renamed={"pedestrian": "person", "dog": ""})
    assert (report.outcome, report.agreement.share, running) == ("kept", 1.0, "turned")


def test_every_kind_of_prediction_is_mapped() -> None:
    box = Frame("a", 0, 0, 0, None, np.zeros((4, 4, 3), np.uint8))
    assert box.width == 4
    from edge.types import Letterbox

    letterbox = Letterbox(1, 1, 0, 0, 4, 4, 4, 4)
    given: list[Prediction] = [
        Detections(np.zeros((3, 4), np.float32), np.ones(3, np.float32), np.array([0, 1, 2], np.int32)),
        Segmentation(np.array([[0, 1], [2, 0]], np.uint8), letterbox),
        Classification(np.array([0.5, 0.3, 0.2], np.float32)),
    ]

    class Fixed:
        def decode(self, outputs: Any, letterboxes: Any) -> list[Prediction]:
            return given

    table = mapping_table(CLASSES, ("car", "person", "dog"), {"dog": ""})
    assert table is not None
    objects, cells, whole = MappedHead(Fixed(), table, 2).decode({}, [])
    assert isinstance(objects, Detections)
    assert objects.class_id.tolist() == [1, 0]
    assert isinstance(cells, Segmentation)
    assert cells.class_map.tolist() == [[1, 0], [0, 1]]
    assert isinstance(whole, Classification)
    assert whole.score.tolist() == pytest.approx([0.3, 0.5])


# agreement


def objects(*rows: tuple[float, float, float, float, float, int]) -> Detections:
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].astype(np.int32))


def test_agreement_counts_matched_objects_of_both_sides() -> None:
    comparison = Comparison(0.5)
    old = objects((0, 0, 10, 10, 0.9, 0), (50, 50, 60, 60, 0.8, 1), (0, 0, 5, 5, 0.1, 0))
    comparison.add(old, objects((1, 0, 11, 10, 0.7, 0), (50, 50, 60, 60, 0.8, 0), (90, 90, 99, 99, 0.2, 0)))
    found = comparison.result()
    assert (found.num_old, found.num_new) == (2, 2)
    # one pair of four objects; the other overlaps but has another class
    assert found.share == 0.5
    assert found.score_delta == pytest.approx(-0.2)


def test_empty_streets_agree() -> None:
    comparison = Comparison(0.5)
    comparison.add(Detections.empty(), Detections.empty())
    assert comparison.result().share == 1.0


@pytest.mark.parametrize(
    "prediction",
    [
        objects((10, 0, 0, 10, 0.5, 0)),
        objects((0, 0, np.nan, 10, 0.5, 0)),
        objects((0, 0, 9, 10, 1.5, 0)),
        objects((0, 0, 9, 10, 0.5, -1)),
        Classification(np.array([0.5, np.nan], np.float32)),
        Classification(np.array([1.0], np.float32)),
    ],
)
def test_what_cannot_be_true_is_refused(prediction: Prediction) -> None:
    with pytest.raises(EngineError):
        check_sane(prediction, 2)


# in the pipeline


@pytest.fixture
def running(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipeline]:
    # nothing is slow next to an engine that does nothing
    monkeypatch.setattr("edge.pipeline.swap.swap.FAST_ENOUGH_MS", 10_000)
    raw = {
        "model": {"path": str(good), "threads": 1, "engine": "null", "max_batch": 4},
        "streams": [
            {
                "name": name,
                "source": f"synthetic://street?seed={number}&size=96x64&frames=1000000&objects=1",
                "sinks": [f"jsonl:{tmp_path}/{name}.jsonl"],
            }
            for number, name in enumerate(("a", "b"))
        ],
        "swap": {"shadow_frames": 1, "probation_s": 0, "max_slowdown": 1000},
    }
    pipeline = Pipeline(parse_config(raw, where="x"))
    pipeline.start()
    yield pipeline
    assert pipeline.stop()


def check_nothing_lost(pipeline: Pipeline, folder: Path) -> int:
    """Every captured frame came out exactly once, in order; how many there were."""
    total = 0
    for name, stream in pipeline.streams.items():
        lines = [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
        assert [line["seq"] for line in lines] == list(range(len(lines)))
        counts = stream.metrics.counters.snapshot()
        drops = sum(count for cause, count in counts.items() if cause.startswith("drop_"))
        assert counts["captured"] == counts["emitted"] + drops
        # only what came in the moment of the stop
        assert drops <= 2
        assert counts["emitted"] == len(lines)
        total += len(lines)
    return total


def swap_often(pipeline: Pipeline, models: list[Path], count: int) -> None:
    for number in range(count):
        before = {name: stream.metrics.counters["emitted"] for name, stream in pipeline.streams.items()}
        report = pipeline.swap_model("model", models[number % len(models)], has_trial=False)
        assert report.outcome == "kept", report.reason
        # a swap may take less time than the outputs need for one frame
        deadline = time.monotonic() + 10
        while any(pipeline.streams[name].metrics.counters["emitted"] <= count for name, count in before.items()):
            assert time.monotonic() < deadline, "both streams go on after the swap"
            time.sleep(0.0005)


@pytest.mark.parametrize("count", [200, pytest.param(1000, marks=[pytest.mark.soak, pytest.mark.timeout(1800)])])
def test_swaps_lose_no_frame_and_count_none_twice(
    count: int, running: Pipeline, good: Path, folder: Path, tmp_path: Path
) -> None:
    swap_often(running, [tiny_model(folder / "other.onnx"), good], count)
    assert running.stop()
    assert not running.failures()
    assert check_nothing_lost(running, tmp_path) > count


def test_frames_on_which_a_new_model_fails_are_seen_by_the_old_one(good: Path, tmp_path: Path) -> None:
    """The real inference thread, the real engines, and a model that breaks in the middle of its probation."""
    raw = {
        "model": {"path": str(good), "threads": 1},
        "streams": [
            {
                "name": "a",
                "source": "synthetic://street?seed=1&size=96x64&frames=1000000&objects=1",
                "sinks": [f"jsonl:{tmp_path}/a.jsonl"],
            }
        ],
        "swap": {"shadow_frames": 2, "probation_s": 20, "max_slowdown": 1000},
    }
    pipeline = Pipeline(parse_config(raw, where="x"))
    pipeline.start()
    new = tiny_model(tmp_path / "new.onnx")

    def spoilt(name: str, values: Array) -> Array:
        return np.full_like(values, np.nan) if name == "scores" else values

    def spoil(phase: str) -> None:
        if phase == "probation":
            engine: Any = pipeline._inference._models["model"].engine
            collect = engine.collect
            engine.collect = lambda: {name: spoilt(name, values) for name, values in collect().items()}

    report = pipeline.swap_model("model", new, has_trial=False, on_phase=spoil)
    before = pipeline.streams["a"].metrics.counters["emitted"]
    deadline = time.monotonic() + 20
    while pipeline.streams["a"].metrics.counters["emitted"] < before + 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert pipeline.stop()
    assert not pipeline.failures()
    assert report.outcome == "rolled back"
    assert pipeline.models["model"].manifest.name == "good"
    check_nothing_lost(pipeline, tmp_path)


def test_a_wrong_name_or_a_second_swap_is_refused(running: Pipeline, good: Path) -> None:
    with pytest.raises(ConfigError, match="no model is called 'other'; running: model"):
        running.swap_model("other", good)
    with running._swapping, pytest.raises(EdgeError, match="another model swap is under way"):
        running.swap_model("model", good)


def test_a_stop_in_the_middle_of_a_swap_ends_both(running: Pipeline, folder: Path, tmp_path: Path) -> None:
    settings = running.config.swap.model_copy(update={"probation_s": 60})
    running.config = running.config.model_copy(update={"swap": settings})
    reached = threading.Event()
    reports = []

    def run() -> None:
        new = tiny_model(folder / "stopped.onnx")
        tell = lambda phase: reached.set() if phase == "probation" else None  # noqa: E731
        reports.append(running.swap_model("model", new, has_trial=False, on_phase=tell))

    thread = threading.Thread(target=run)
    thread.start()
    assert reached.wait(20)
    assert running.stop()
    thread.join(10)
    assert reports[0].outcome == "kept"
    check_nothing_lost(running, tmp_path)


def test_a_manifest_beside_the_new_model_is_used(good: Path, tmp_path: Path) -> None:
    new = tiny_model(tmp_path / "named.onnx", has_sidecar=False)
    write_sidecar(manifest("told-by-manifest"), new)
    report, running = swap(good, new)
    assert (report.outcome, running) == ("kept", "told-by-manifest")


def test_the_line_needs_no_more_than_the_protocol(good: Path) -> None:
    model = open_model(good, threads=1)
    with pytest.raises(ModelError, match="no such model file"):
        open_model(good.with_name("nothing.onnx"))
    model.close()
    assert replace(
        Order(
            parse_config({"models": [{"path": "m"}], "streams": [{"name": "a", "source": "x"}]}, where="x").models[0],
            good,
            {},
        )
    ).has_trial


def test_a_model_without_the_points_of_the_one_that_runs_is_refused() -> None:
    spec = InputSpec(name="x", width=64, height=64, layout="nchw", dtype="float32", colour="rgb")
    box = Manifest(name="b", task="detect", head="yolov8", input=spec, classes=("person",))
    pose = box.model_copy(update={"head": "yolov8-pose", "kpt_shape": (17, 3)})
    other = pose.model_copy(update={"keypoints": tuple(reversed(pose.keypoint_names))})
    check_points(box, pose)
    check_points(pose, pose)
    for new in (box, other):
        with pytest.raises(ModelError, match="has the key points nose, left_eye"):
            check_points(pose, new)
    with pytest.raises(ModelError, match="the new one has none"):
        check_points(box.model_copy(update={"head": "end2end-seg"}), box)
