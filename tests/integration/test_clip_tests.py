"""Clips as tests: 25 regressions are each found before they take over, and what loses nothing passes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge.cliptests.add import accept, add_test
from edge.cliptests.case import Case
from edge.cliptests.child import run_apart
from edge.cliptests.report import junit, page
from edge.cliptests.run import Verdict, judge
from edge.config.load import parse_config
from edge.config.schema import Config
from edge.errors import ClipTestError, DataError, UsageError
from edge.models.shipped import FOLDER
from edge.pipeline.replay import capture
from edge.sources.synthetic import open_synthetic

SCENE = "synthetic://street?seed=3&size=480x270&objects=10&frames=40&fps=10"
MODEL = FOLDER / "street-nano-int8.onnx"
MIDDLE = {"name": "mid", "points_share": [(0.5, 0.3), (0.5, 1.0)]}
YARD = {"name": "yard", "points_share": [(0.1, 0.5), (0.45, 0.5), (0.45, 1.0), (0.1, 1.0)]}


def configured(model: Path = MODEL, lines: Any = (MIDDLE,), zones: Any = (YARD,), **stream: Any) -> Config:
    watched = {"lines": list(lines), "zones": list(zones)}
    door = {"name": "door", "source": "rtsp://127.0.0.1:9/1", "analytics": watched, **stream}
    return parse_config({"model": {"path": str(model), "engine": "ort", "threads": 1}, "streams": [door]}, where="test")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds of the street as H.264."""
    path = tmp_path_factory.mktemp("clip") / "evening.mp4"
    scene = open_synthetic(SCENE)
    with av.open(str(path), "w") as film:
        stream = film.add_stream("libx264", rate=10, options={"crf": "18", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = 480, 270, "yuv420p"
        while (picture := scene.read()) is not None:
            film.mux(stream.encode(av.VideoFrame.from_ndarray(picture[0], format="bgr24")))
        film.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def evening(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test made of it."""
    folder, case = add_test(clip, configured(), tmp_path_factory.mktemp("tests"), "door")
    assert case.frames == 40
    assert sum(event.kind == "line_crossed" for event in case.events) >= 2
    assert len({one[1] for one in case.objects}) == 3
    return folder


def lost(verdict: Verdict) -> list[str]:
    return [one.text for one in verdict.differences]


# models


def changed_model(folder: Path, change: Callable[[onnx.GraphProto], None], **manifest: Any) -> Path:
    """The shipped model with a change of its graph or of its manifest."""
    model = onnx.load(MODEL)
    change(model.graph)
    del model.metadata_props[:]
    onnx.save(model, folder / "new.onnx")
    facts = json.loads(MODEL.with_suffix(".json").read_text())
    (folder / "new.json").write_text(json.dumps({**facts, "sha256": "", **manifest}))
    return folder / "new.onnx"


def after(output: str, operation: str, constant: Any, dtype: Any = np.float32) -> Callable[[onnx.GraphProto], None]:
    """Put an operation with a constant behind an output."""

    def change(graph: onnx.GraphProto) -> None:
        renamed(graph, output)
        graph.initializer.append(numpy_helper.from_array(np.array(constant, dtype), f"{output}_constant"))
        graph.node.append(helper.make_node(operation, [f"{output}_before", f"{output}_constant"], [output]))

    return change


def renamed(graph: onnx.GraphProto, output: str) -> None:
    for node in graph.node:
        for names in (node.output, node.input):
            for index, name in enumerate(names):
                if name == output:
                    names[index] = f"{output}_before"


def without_class(number: int) -> Callable[[onnx.GraphProto], None]:
    def change(graph: onnx.GraphProto) -> None:
        renamed(graph, "scores")
        graph.initializer.append(numpy_helper.from_array(np.array(number, np.int32), "its_number"))
        graph.node.extend(
            [
                helper.make_node("Equal", ["labels", "its_number"], ["is_it"]),
                helper.make_node("Not", ["is_it"], ["is_other"]),
                helper.make_node("Cast", ["is_other"], ["kept"], to=TensorProto.FLOAT),
                helper.make_node("Mul", ["scores_before", "kept"], ["scores"]),
            ]
        )

    return change


def rounded(output: str, step: float) -> Callable[[onnx.GraphProto], None]:
    """An engine that rounds: what comes out are multiples of ``step``."""

    def change(graph: onnx.GraphProto) -> None:
        renamed(graph, output)
        graph.initializer.append(numpy_helper.from_array(np.array(step, np.float32), f"{output}_step"))
        graph.node.extend(
            [
                helper.make_node("Div", [f"{output}_before", f"{output}_step"], [f"{output}_share"]),
                helper.make_node("Floor", [f"{output}_share"], [f"{output}_whole"]),
                helper.make_node("Mul", [f"{output}_whole", f"{output}_step"], [output]),
            ]
        )

    return change


def other_classes(graph: onnx.GraphProto) -> None:
    renamed(graph, "labels")
    graph.initializer.append(numpy_helper.from_array(np.array([2, 1, 0], np.int32), "other_numbers"))
    graph.node.append(helper.make_node("Gather", ["other_numbers", "labels_before"], ["labels"]))


def noisy(graph: onnx.GraphProto) -> None:
    """Weights that were quantized badly."""
    rng = np.random.default_rng(3)
    for tensor in graph.initializer:
        weights = numpy_helper.to_array(tensor)
        if weights.dtype == np.int8 and weights.ndim == 4:
            spoilt = np.clip(weights + rng.normal(0, 24, weights.shape), -127, 127).astype(np.int8)
            tensor.CopyFrom(numpy_helper.from_array(spoilt, tensor.name))


def unchanged(_: onnx.GraphProto) -> None:
    pass


FACTS = json.loads(MODEL.with_suffix(".json").read_text())
MODELS: dict[str, tuple[Callable[[onnx.GraphProto], None], dict[str, Any]]] = {
    "a worse model": (after("scores", "Mul", 0.6), {}),
    "a model quantized badly": (noisy, {}),
    "a lost class: bicycle": (without_class(1), {}),
    "a lost class: person": (without_class(0), {}),
    "exchanged classes": (other_classes, {}),
    "an engine that rounds boxes": (rounded("boxes", 32), {}),
    "an engine that rounds scores": (rounded("scores", 0.5), {}),
    "boxes next to their objects": (after("boxes", "Add", [40, 0, 40, 0]), {}),
    "boxes too large": (after("boxes", "Add", [-30, -30, 30, 30]), {}),
    "few objects at a time": (after("scores", "Mul", np.repeat([[1, 0]], (2, 98), axis=1).astype(np.float32)), {}),
    "a manifest with the other order of colours": (unchanged, {"input": {**FACTS["input"], "colour": "rgb"}}),
    "a manifest with another threshold": (unchanged, {"thresholds": {**FACTS["thresholds"], "score": 0.85}}),
    "a manifest with the classes in another order": (unchanged, {"classes": ["bicycle", "person", "car"]}),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_loses_something_is_found(name: str, evening: Path, tmp_path: Path) -> None:
    change, manifest = MODELS[name]
    verdict = judge(evening, configured(changed_model(tmp_path, change, **manifest)))
    assert lost(verdict), f"{name} was not found"


def test_the_same_model_in_full_precision_loses_nothing(evening: Path) -> None:
    assert lost(judge(evening, configured(FOLDER / "street-nano.onnx"))) == []


# configurations

SETTINGS: dict[str, Callable[[], Config]] = {
    "a shifted line": lambda: configured(lines=[{**MIDDLE, "points_share": [(0.7, 0.3), (0.7, 1.0)]}]),
    "a lost line": lambda: configured(lines=[]),
    "a line turned round": lambda: configured(lines=[{**MIDDLE, "points_share": [(0.5, 1.0), (0.5, 0.3)]}]),
    "a line for persons alone": lambda: configured(lines=[{**MIDDLE, "classes": ["person"]}]),
    "a score too high": lambda: configured(score=0.9),
    "a mask over the street": lambda: configured(masks=[[(0.4, 0.0), (0.9, 0.0), (0.9, 1.0), (0.4, 1.0)]]),
    "too few pictures": lambda: configured(max_fps=2),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_configuration_that_loses_something_is_found(name: str, evening: Path) -> None:
    assert lost(judge(evening, SETTINGS[name]())), f"{name} was not found"


# versions: a child of another version is this one with a bug

BUGS = {
    "a reader that drops pictures": (
        "import edge.sources.prepared as m\n"
        "read = m.PreparedSource.read_planes\n"
        "def broken(self):\n"
        "    self.n = getattr(self, 'n', 0) + 1\n"
        "    return (read(self), read(self))[1] if self.n % 3 == 0 else read(self)\n"
        "m.PreparedSource.read_planes = broken\n"
    ),
    "a reader with the wrong clock": (
        "import edge.sources.prepared as m\n"
        "read = m.PreparedSource.read_planes\n"
        "def broken(self):\n"
        "    found = read(self)\n"
        "    return found and (found[0], found[1] * 2)\n"
        "m.PreparedSource.read_planes = broken\n"
    ),
    "a decoder with wrong colours": (
        "import edge.sources.prepared as m\n"
        "read = m.PreparedSource.read_planes\n"
        "def broken(self):\n"
        "    found = read(self)\n"
        "    return found and (m.Planes.of(found[0].bgr[:, :, [1, 2, 0]].copy() // 2), found[1])\n"
        "m.PreparedSource.read_planes = broken\n"
    ),
    "a tracker that forgets": (
        "import edge.trackers.tracker as m\n"
        "update = m.MotionTracker.update\n"
        "def broken(self, *a, **k):\n"
        "    self.n = getattr(self, 'n', 0) + 1\n"
        "    found = update(self, *a, **k)\n"
        "    return found[found.track_id < 0] if self.n % 4 else found\n"
        "m.MotionTracker.update = broken\n"
    ),
    "analytics that count nobody": (
        "import edge.pipeline.analysis as m\n"
        "update = m.StreamAnalysis.update\n"
        "def broken(self, *a, **k):\n"
        "    import dataclasses\n"
        "    return dataclasses.replace(update(self, *a, **k), events=())\n"
        "m.StreamAnalysis.update = broken\n"
    ),
}


def as_version(folder: Path, bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Children run this version with a bug."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(f"import sys\nif 'edge.cliptests.child' in sys.argv:\n{_indented(bug)}")
    monkeypatch.setenv("PYTHONPATH", str(folder))


def _indented(text: str) -> str:
    return "".join(f"    {line}\n" for line in (text or "pass\n").splitlines())


@pytest.mark.parametrize("name", BUGS)
def test_a_version_that_loses_something_is_found(
    name: str, evening: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_version(tmp_path / "site", BUGS[name], monkeypatch)
    (verdict,) = run_apart(configured(), evening.parent, 300)
    assert lost(verdict), f"{name} was not found"
    assert not any("cannot be run" in text for text in lost(verdict)), lost(verdict)


def test_there_are_25_regressions() -> None:
    assert len(MODELS) + len(SETTINGS) + len(BUGS) == 25


def test_an_upgrade_without_a_regression_passes(evening: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_version(tmp_path / "site", "", monkeypatch)
    (verdict,) = run_apart(configured(), evening.parent, 300)
    assert verdict.differences == ()


# what people see, and how tests are made


def test_a_difference_is_shown_in_pictures_and_to_ci(evening: Path) -> None:
    config = SETTINGS["a score too high"]()
    verdict = judge(evening, config)
    xml = junit([verdict]).decode()
    assert '<testsuite name="edge test" tests="1" failures="1"' in xml
    assert "lost: line_crossed" in xml
    shown = page(evening.parent, [verdict], config)
    assert shown.startswith("<!doctype html>")
    assert "1 of 1 clips differ" in shown
    assert shown.count("data:image/jpeg;base64,") >= 4
    assert "<figcaption>expected, " in shown
    passed = judge(evening, configured())
    assert "failure" not in junit([passed]).decode().replace("failures", "")
    assert "1 clips as expected" in page(evening.parent, [passed], configured())


def test_what_differs_can_be_accepted(evening: Path, tmp_path: Path) -> None:
    shutil.copytree(evening, tmp_path / "evening")
    config = SETTINGS["a shifted line"]()
    assert lost(judge(tmp_path / "evening", config))
    accept(tmp_path, [tmp_path / "evening"], config)
    assert lost(judge(tmp_path / "evening", config)) == []
    assert lost(judge(tmp_path / "evening", configured()))


def test_tolerances_are_for_hands(evening: Path, tmp_path: Path) -> None:
    shutil.copytree(evening, tmp_path / "evening")
    case = Case.read(tmp_path / "evening")
    counts = {**case.counts, "line_crossed mid out": 7}
    case.model_copy(update={"counts": counts}).write(tmp_path / "evening")
    (text,) = lost(judge(tmp_path / "evening", configured()))
    assert text == f"line_crossed mid out: counted {case.counts.get('line_crossed mid out', 0)} times, expected 7"
    loose = case.tolerances.model_copy(update={"lost_events": 7})
    case.model_copy(update={"counts": counts, "tolerances": loose}).write(tmp_path / "evening")
    assert lost(judge(tmp_path / "evening", configured())) == []
    (tmp_path / "evening" / "test.json").write_text('{"schema": 1, "stream": 3}')
    assert lost(judge(tmp_path / "evening", configured()))[0].startswith("cannot be run: ")


def test_a_raw_capture_becomes_a_test(tmp_path: Path) -> None:
    config = configured(source=SCENE.replace("frames=40", "frames=8"))
    capture(config, tmp_path / "raw", 60)
    folder, case = add_test(tmp_path / "raw", config, tmp_path / "tests", "door", "from-raw")
    assert (folder.name, case.frames, case.is_prepared) == ("from-raw", 8, True)
    assert lost(judge(folder, config)) == []


@pytest.mark.parametrize(
    ("source", "stream", "name", "message"),
    [
        ("missing.mp4", "door", "", "expected a film, a clip, or a folder made by"),
        ("evening.mp4", "gate", "", "there is no stream 'gate'"),
        ("evening.mp4", "door", "../x", "expected a plain name"),
    ],
)
def test_what_cannot_be_a_test_leaves_nothing(
    source: str, stream: str, name: str, message: str, clip: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        add_test(clip.parent / source, configured(), tmp_path / "tests", stream, name)
    assert not any((tmp_path / "tests").glob("*"))


def test_a_clip_with_boxes_drawn_in_is_refused(clip: Path, tmp_path: Path) -> None:
    config = configured(record={"folder": str(clip.parent), "content": "annotated"})
    with pytest.raises(DataError, match="boxes are drawn into it"):
        add_test(clip, config, tmp_path / "tests", "door")


def test_a_child_that_is_too_slow_passes_nothing(evening: Path) -> None:
    with pytest.raises(ClipTestError, match="took longer than"):
        run_apart(configured(), evening.parent, 0.01)
