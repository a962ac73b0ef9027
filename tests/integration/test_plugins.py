"""Parts of an installed package: an example is built, installed and used; what its parts do wrong is contained."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import edge
from edge.cli import run_command
from edge.config.load import parse_config
from edge.diagnose.explain import explain
from edge.errors import ConfigError, EdgeError, ManifestError, PartError, SinkError, SourceError, UsageError
from edge.packages.plugins import find, make
from edge.pipeline.pipeline import Pipeline
from edge.server.metrics import prometheus_text

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "tests" / "plugin_package"
SPEC = {"name": "frames", "width": 64, "height": 64, "layout": "nhwc", "dtype": "uint8", "colour": "bgr"}
EDGENET = {"schema": 1, "name": "null", "task": "detect", "head": "edgenet", "classes": ["x"], "input": SPEC}
# stretched: the padding of a letterbox would count as brightness
BLOCKS = {
    **EDGENET,
    "name": "blocks",
    "head": "blocks",
    "classes": ["block"],
    "input": {**SPEC, "resize": "stretch"},
}
SCENE = "synthetic://street?size=128x96&objects=2&live=1&fps=30"
Start = Callable[..., Pipeline]


def pip(*arguments: str | Path) -> None:
    offline = ("--no-index", "--no-deps", "--disable-pip-version-check", "--quiet")
    done = subprocess.run(
        [sys.executable, "-m", "pip", arguments[0], *offline, *arguments[1:]],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder that the package was installed into; this process and its children import from it."""
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copytree(PACKAGE, folder / "package")
    pip("wheel", "--no-build-isolation", "--wheel-dir", folder / "wheels", folder / "package")
    (wheel,) = (folder / "wheels").glob("edge_example-1.0-*.whl")
    pip("install", "--target", folder / "site", wheel)
    path, before = str(folder / "site"), os.environ.get("PYTHONPATH")
    sys.path.insert(0, path)
    os.environ["PYTHONPATH"] = os.pathsep.join([path, *([before] if before else [])])
    yield folder / "site"
    sys.path.remove(path)
    os.environ.pop("PYTHONPATH")
    if before is not None:
        os.environ["PYTHONPATH"] = before
    for name in [name for name in sys.modules if name.split(".")[0] == "edge_example"]:
        del sys.modules[name]


def model_of(folder: Path, name: str, facts: dict[str, Any], engine: str, mood: str = "") -> dict[str, Any]:
    """A ``[[models]]`` table and its files."""
    (folder / f"{name}.onnx").write_text(mood)
    (folder / f"{name}.json").write_text(json.dumps(facts))
    return {"name": name, "path": folder / f"{name}.onnx", "engine": engine, "manifest": folder / f"{name}.json"}


@pytest.fixture
def start(tmp_path: Path, site: Path) -> Iterator[Start]:
    """Starts a pipeline of these streams; ``null`` finds nothing, ``blocks`` runs in the package's engine and head."""
    started: list[Pipeline] = []

    def start_one(*streams: dict[str, Any], mood: str = "") -> Pipeline:
        models = [
            model_of(tmp_path, "null", EDGENET, "null"),
            model_of(tmp_path, "blocks", BLOCKS, "bright", mood),
        ]
        tables = [{"name": f"cam{n}", "retry_base_s": 0.2, "model": "null", **one} for n, one in enumerate(streams)]
        pipeline = Pipeline(parse_config({"models": models, "streams": tables}, where="test"))
        started.append(pipeline)
        pipeline.start()
        return pipeline

    yield start_one
    for pipeline in started:
        pipeline.stop()


def wait_until(condition: Callable[[], bool], what: str, limit_s: float = 20.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {limit_s} s: {what}"
        time.sleep(0.01)


def num_emitted(pipeline: Pipeline, stream: str) -> int:
    return pipeline.streams[stream].metrics.counters["emitted"]


def goes_on(pipeline: Pipeline, *streams: str, num: int = 15) -> None:
    """Frames of these streams still come out."""
    for stream in streams:
        begin = num_emitted(pipeline, stream)
        wait_until(lambda stream=stream, begin=begin: num_emitted(pipeline, stream) >= begin + num, f"{stream} goes on")


def part(pipeline: Pipeline, stream: str, name: str) -> Any:
    parts: Any = pipeline.streams[stream].stats()["parts"]
    return parts[f"{stream}: {name}"]


# what the package brings is used


def test_a_configuration_runs_parts_of_every_kind(tmp_path: Path, site: Path) -> None:
    model = model_of(tmp_path, "blocks", BLOCKS, "bright")
    (tmp_path / "edge.toml").write_text(
        f"""
        [model]
        path = "{model["path"]}"
        manifest = "{model["manifest"]}"
        engine = "bright"
        [[streams]]
        name = "door"
        source = "counter://12?live=0"
        frames = "every"
        sinks = ["lines:{tmp_path}/{{stream}}.txt", "jsonl:{tmp_path}/door.jsonl"]
        [streams.track]
        method = "nearest"
        [[streams.stages]]
        name = "bright"
        levels = 5
        word = "light"
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", "from edge.cli import main; main()", "run", str(tmp_path / "edge.toml")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "door.txt").read_text().splitlines()
    assert lines == [f"door {n} (64, 96, 3) ['block']" for n in range(12)]
    results = [json.loads(line) for line in (tmp_path / "door.jsonl").read_text().splitlines()]
    assert [line["objects"][0]["track_id"] for line in results] == [100] * 12
    assert results[8]["objects"][0]["xyxy"] == [24.0, 16.0, 48.0, 32.0]
    bright = {line["seq"]: line["events"] for line in results if line["events"]}
    assert list(bright) == list(range(6, 12))
    assert bright[6][0]["kind"] == "picture_bright" and bright[6][0]["data"] == {"mean": 6.0}
    assert results[6]["objects"][0]["labels"] == [{"class": "light", "score": 1.0}]


def test_a_program_names_them_as_the_configuration_does(site: Path, tmp_path: Path) -> None:
    model = model_of(tmp_path, "blocks", BLOCKS, "bright")
    with (
        edge.open_model(model["path"], manifest=model["manifest"], engine="bright") as loaded,
        edge.open_source("counter://3?live=0") as source,
    ):
        tracker = edge.open_tracker("nearest")
        found = [(loaded(frame.image), frame.time_ns) for frame in source]
        tracks = [tracker.update(one, time_ns) for one, time_ns in found if isinstance(one, edge.Detections)]
    assert [one.track_id.tolist() for one in tracks] == [[100]] * 3
    results = list(edge.track("counter://4?live=0", model=model["path"], engine="bright", frames="every"))
    assert [len(one.detections) for one in results] == [1] * 4


def test_a_source_runs_in_a_process_of_its_own_unless_it_is_told_otherwise(start: Start) -> None:
    pipeline = start({"source": "counter://100000"}, {"source": "counter://100000", "isolation": "thread"})
    goes_on(pipeline, "cam0", "cam1")
    assert "edge_example.sources" in sys.modules


def test_names_that_are_built_in_always_win(site: Path, tmp_path: Path) -> None:
    assert type(edge.open_tracker("edge")).__module__ == "edge.trackers.tracker"
    sink = edge.open_sink(f"jsonl:{tmp_path}/x.jsonl", stream="door", classes=(), fps=25)
    assert type(sink).__module__ == "edge.sinks.jsonl"
    sink.close()
    with edge.open_source("synthetic://street?size=64x64&frames=1") as source:
        assert source.info.decoder != "counter"


# what is wrong with a name or a part is a sentence


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        ({"stages": [{"name": "brigth", "levels": 3}]}, "no stage is called 'brigth'; did you mean 'bright'?"),
        ({"stages": [{"name": "smoke"}]}, "the entry point 'smoke' of edge.stages; run: pip install PACKAGE"),
        ({"track": {"method": "nearst"}}, "no tracker is called 'nearst'; did you mean 'nearest'?"),
        ({"source": "conter://3"}, "no source is called 'conter'; did you mean 'counter'?"),
        ({"source": "rstp://camera/1"}, "no source is called 'rstp'; did you mean 'rtsp'?"),
        ({"stages": [{"name": "bright", "limit_ms": 0}]}, "input should be greater than 0"),
    ],
)
def test_a_name_that_nobody_brings_is_refused_with_the_nearest(
    site: Path, stream: dict[str, Any], expected: str
) -> None:
    raw = {"model": {"path": "m.onnx"}, "streams": [{"name": "door", "source": SCENE, **stream}]}
    with pytest.raises(ConfigError) as caught:
        parse_config(raw, where="edge.toml")
    assert expected in str(caught.value)


def test_unknown_engines_sinks_and_heads_are_refused_too(site: Path, tmp_path: Path) -> None:
    raw = {"model": {"path": "m.onnx", "engine": "brigth"}, "streams": [{"name": "door", "source": SCENE}]}
    with pytest.raises(
        ConfigError, match=r"model.engine = 'brigth': no engine is called 'brigth'; did you mean 'bright'"
    ):
        parse_config(raw, where="edge.toml")
    with pytest.raises(UsageError, match=r"'line' is no sink; expected one of jsonl:FILE.* did you mean 'lines'"):
        edge.open_sink("line:x", stream="door", classes=(), fps=0)
    model = model_of(tmp_path, "m", {**BLOCKS, "head": "block"}, "bright")
    with pytest.raises(ManifestError, match="head: no head is called 'block'; did you mean 'blocks'"):
        edge.open_model(model["path"], manifest=model["manifest"], engine="bright")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "not-importable",
            "'not-importable' of edge-example 1.0 cannot be imported: ModuleNotFoundError: No module named",
        ),
        ("wrong-arguments", "expected edge_example.stages:no_arguments(options, *, stream, classes), found ()"),
        ("no-stage", "edge_example.stages:make_nothing lacks close, update; see edge.interfaces.Stage"),
        (
            "moody",
            "stage 'moody' of edge-example 1.0 cannot be opened: ValueError: mood: expected a better one (stages.py:",
        ),
    ],
)
def test_a_part_that_cannot_be_made_is_a_sentence(site: Path, name: str, expected: str) -> None:
    with pytest.raises(PartError) as caught:
        make("edge.stages", name, {"mood": "refuse"}, stream="door", classes=())
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_a_part_says_itself_is_kept(site: Path) -> None:
    with pytest.raises(SinkError, match="no line is taken today; come back tomorrow"):
        edge.open_sink("lines:refuse", stream="door", classes=(), fps=0)
    with pytest.raises(SourceError, match="expected counter://PICTURES"):
        edge.open_source("counter://many")


def test_a_stage_that_cannot_be_opened_keeps_nothing_running(start: Start) -> None:
    with pytest.raises(EdgeError, match=r"cam0: stage 'moody'.* expected a better one"):
        start({"source": SCENE, "stages": [{"name": "moody", "mood": "refuse"}]})


def test_edge_check_opens_the_parts(site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = model_of(tmp_path, "blocks", BLOCKS, "bright")
    stages = "".join(f'[[streams.stages]]\nname = "moody"\nmood = "{mood}"\n' for mood in ("slow", "refuse"))
    text = f'[model]\npath = "{model["path"]}"\nmanifest = "{model["manifest"]}"\nengine = "bright"\n'
    text += f'[[streams]]\nname = "door"\nsource = "counter://9"\ntrack.method = "nearest"\n{stages}'
    (tmp_path / "edge.toml").write_text(text)
    assert run_command(["check", "--json", str(tmp_path / "edge.toml")]) == 2
    found = {row["kind"]: row for row in json.loads(capsys.readouterr().out)}
    assert found["model"]["result"] == "ok" and "blocks, 64x64, bright 1.0" in found["model"]["detail"]
    assert "door: stage 'moody'" in found["stream"]["detail"]
    assert "mood: expected a better one" in found["stream"]["detail"]


def test_finding_a_part_imports_nothing_of_its_package(site: Path) -> None:
    script = "from edge.packages.plugins import find; find('edge.sinks', 'lines')"
    code = f"import sys; {script}; print('edge_example' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "False"
    assert find("edge.sinks", "lines").value == "edge_example.sinks:LinesSink"


# a part that raises, hangs or is slow costs its own stream only


@pytest.mark.parametrize(
    "mood", ["raise", "hang", "another stream", "no JSON", "wrong kind", "wrong labels", "no answer"]
)
def test_a_stage_that_always_fails_is_switched_off_with_one_line(
    start: Start, mood: str, caplog: pytest.LogCaptureFixture
) -> None:
    stages = [{"name": "moody", "mood": mood, "limit_ms": 50}, {"name": "bright", "levels": -1}]
    pipeline = start({"source": SCENE, "stages": stages}, {"source": SCENE})
    wait_until(lambda: part(pipeline, "cam0", "stage 'moody'")["state"] == "off", "the stage is switched off")
    goes_on(pipeline, "cam0", "cam1")
    facts = part(pipeline, "cam0", "stage 'moody'")
    assert facts["failures"] == 5
    assert part(pipeline, "cam0", "stage 'bright'")["failures"] == 0
    off = [record.message for record in caplog.records if "switched off" in record.message]
    assert off == [facts["reason"]] and off[0].startswith("cam0: stage 'moody': ")
    stats = {"streams": {name: stream.stats() for name, stream in pipeline.streams.items()}}
    assert stats["streams"]["cam1"]["parts"] == {}
    assert any(remark.level == "wrong" and remark.text.startswith("stage 'moody' is off") for remark in explain(stats))
    assert b'edgeloop_part_failures_total{part="stage \'moody\'",stream="cam0"} 5.0' in prometheus_text(stats)


def test_a_late_answer_is_counted_and_the_stage_goes_on(start: Start) -> None:
    pipeline = start({"source": SCENE, "stages": [{"name": "moody", "mood": "slow once", "limit_ms": 200}]})
    goes_on(pipeline, "cam0", num=20)
    facts = part(pipeline, "cam0", "stage 'moody'")
    assert facts["state"] == "on" and 1 <= facts["late"] == facts["failures"] < 5


def test_failures_that_are_not_in_a_row_switch_nothing_off(start: Start) -> None:
    pipeline = start({"source": SCENE, "stages": [{"name": "moody", "mood": "raise sometimes"}]})
    goes_on(pipeline, "cam0", num=40)
    facts = part(pipeline, "cam0", "stage 'moody'")
    assert facts["state"] == "on" and facts["failures"] >= 10


@pytest.mark.parametrize("place", ["raise", "hang"])
def test_a_sink_that_always_fails_is_switched_off_and_its_stream_goes_on(
    start: Start, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.pipeline.guarded.SINK_LIMIT_S", 0.1)
    pipeline = start({"source": SCENE, "sinks": [f"lines:{place}"]}, {"source": SCENE})
    wait_until(lambda: part(pipeline, "cam0", "sink 'lines'")["state"] == "off", "the sink is switched off")
    goes_on(pipeline, "cam0", "cam1")
    assert pipeline.streams["cam0"].metrics.counters["sink_errors"] == 5


def test_a_tracker_that_hangs_stops_no_other_stream(start: Start) -> None:
    pipeline = start(
        {"source": SCENE, "track": {"method": "moody-tracker"}},
        {"source": SCENE},
    )
    wait_until(lambda: part(pipeline, "cam0", "tracker 'moody-tracker'")["state"] == "off", "the tracker is off")
    goes_on(pipeline, "cam0", "cam1")
    # inference waited for it once, 200 ms of 1 s and more
    assert num_emitted(pipeline, "cam1") >= 15
    assert part(pipeline, "cam0", "tracker 'moody-tracker'")["skipped"] > 0


def test_a_head_that_fails_costs_that_picture_of_that_stream(start: Start, tmp_path: Path) -> None:
    pipeline = start(
        {
            "source": "counter://30?live=0",
            "frames": "every",
            "model": "blocks",
            "track": {"method": "off"},
            "sinks": [f"jsonl:{tmp_path}/0.jsonl"],
        },
        {"source": SCENE, "model": "blocks"},
    )
    wait_until(lambda: num_emitted(pipeline, "cam0") == 30, "the counter is at its end")
    lines = [json.loads(line) for line in (tmp_path / "0.jsonl").read_text().splitlines()]
    assert [line["seq"] for line in lines if not line["objects"]] == [13]
    assert part(pipeline, "cam0", "head 'blocks'")["failures"] == 1
    assert part(pipeline, "cam1", "head 'blocks'")["failures"] == 0
    goes_on(pipeline, "cam1")


@pytest.mark.parametrize("mood", ["raise", "hang", "misname"])
def test_an_engine_that_fails_costs_the_streams_of_its_model_alone(
    start: Start, mood: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.model.ENGINE_LIMIT_S", 0.1)
    pipeline = start({"source": SCENE, "model": "blocks"}, {"source": SCENE}, mood=mood)

    def engine() -> Any:
        parts: Any = pipeline.streams["cam0"].stats()["parts"]
        return parts["blocks.onnx: engine 'bright'"]

    wait_until(lambda: bool(engine()["state"] == "off"), "the engine is switched off")
    goes_on(pipeline, "cam0", "cam1")
    assert pipeline.streams["cam1"].stats()["parts"] == {}


@pytest.mark.parametrize("isolation", ["process", "thread"])
@pytest.mark.parametrize("fault", ["raise=5", "hang=5"])
def test_a_source_that_breaks_is_opened_again_and_stops_no_other(
    start: Start, isolation: str, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    pipeline = start(
        {"source": f"counter://100000?{fault}", "isolation": isolation, "stall_timeout_s": 0.5},
        {"source": SCENE},
    )
    wait_until(lambda: pipeline.streams["cam0"].metrics.counters["reconnects"] >= 2, "it is opened again")
    goes_on(pipeline, "cam1")
    if fault == "raise=5":
        assert "ZeroDivisionError: the counter is broken (sources.py:" in caplog.text


def test_a_stream_without_parts_of_packages_has_no_guard_and_no_thread_for_one(start: Start) -> None:
    # those of parts that hung in other tests are left behind
    before = set(threading.enumerate())
    pipeline = start({"source": SCENE})
    goes_on(pipeline, "cam0")
    assert pipeline.streams["cam0"].stats()["parts"] == {}
    names = {thread.name for thread in set(threading.enumerate()) - before}
    assert names >= {"capture cam0", "inference", "output cam0"}
    assert not [name for name in names if name.startswith("cam0: ")]
