"""Reload, what is kept over a restart, the watchdog's judgement, and what explain says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tiny_models import tiny_model
from waiting import wait_until

from edge.config.load import parse_config
from edge.config.schema import Config
from edge.daemon.reload import Reloader, changes_between
from edge.daemon.state import CrashLoopGuard, keep_good, keep_swapped, load_or_last_good, with_swapped
from edge.daemon.watchdog import Watchdog
from edge.diagnose.explain import CAUSES, explain, loads
from edge.errors import ConfigError, EdgeError
from edge.metrics.stages import CAPTURE_STAGES, DROP_CAUSES, INFERENCE_STAGES, OUTPUT_STAGES, STAGES
from edge.pipeline import Pipeline
from edge.pipeline.progress import Progress, progress_of
from edge.pipeline.stream import Stream

SCENE = "synthetic://street?seed=1&size=96x64&fps=50&objects=1&live=1"


def config(streams: dict[str, Any], **more: Any) -> Config:
    tables = [{"name": name, "source": "0", **keys} for name, keys in streams.items()]
    return parse_config({"model": {"path": "m.onnx"}, "streams": tables, **more}, where="x")


# what differs


def test_streams_come_go_and_change() -> None:
    found = changes_between(config({"a": {}, "b": {}, "c": {}}), config({"a": {}, "c": {"score": 0.5}, "d": {}}))
    assert [stream.name for stream in found.added] == ["d"]
    assert found.removed == ("b",)
    assert [stream.name for stream in found.changed] == ["c"]
    assert not found.needs_restart


def test_nothing_differs_from_itself() -> None:
    assert changes_between(config({"a": {}}), config({"a": {}})).is_empty


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"server": {"enabled": True}}, "server is read at the start"),
        ({"state_dir": "/x"}, "state_dir is read at the start"),
        ({"model": {"path": "m.onnx", "threads": 3}}, "models.model: engine, threads and batches are set at the start"),
        ({"governor": {"enabled": True}}, "governor is read at the start"),
        ({"memory_budget_mb": 500}, "memory_budget_mb is read at the start"),
    ],
)
def test_what_needs_a_restart_is_said(more: dict[str, Any], words: str) -> None:
    assert changes_between(config({"a": {}}), config({"a": {}}, **more)).needs_restart == (words,)


def test_another_model_file_is_a_swap() -> None:
    found = changes_between(config({"a": {}}), config({"a": {}}, model={"path": "other.onnx"}))
    assert [str(model.path) for model in found.swapped] == ["other.onnx"]
    assert not found.needs_restart


def of_models(*names: str, streams: Any = None, paths: Any = None) -> Config:
    models = [{"name": name, "path": (paths or {}).get(name, f"{name}.onnx")} for name in names]
    tables = [{"source": "0", **stream} for stream in streams or [{"name": "a"}]]
    return parse_config({"models": models, "streams": tables}, where="x")


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (("m", "n"), ("n", "m"), ("streams.a: m runs it until the start, then the first model, n",)),
        (("m", "n"), ("m",), ("models.n: a model that is gone is let go at the start",)),
        (
            ("m",),
            ("n", "m"),
            (
                "models.n: new models are loaded at the start",
                "streams.a: m runs it until the start, then the first model, n",
            ),
        ),
    ],
)
def test_models_that_come_go_or_change_places_need_a_restart(before: Any, after: Any, words: Any) -> None:
    assert changes_between(of_models(*before), of_models(*after)).needs_restart == words


def test_a_stream_that_names_its_model_minds_no_order() -> None:
    streams = ({"name": "a", "model": "m"},)
    assert changes_between(of_models("m", "n", streams=streams), of_models("n", "m", streams=streams)).is_empty


@pytest.mark.parametrize(
    "stream", [{"second_stage": {"model": "n"}}, {"track": {"appearance_model": "n"}}, {}], ids=str
)
def test_another_file_of_a_model_that_no_frames_go_to_needs_a_restart(stream: dict[str, Any]) -> None:
    streams = ({"name": "a", **stream},)
    found = changes_between(
        of_models("m", "n", streams=streams), of_models("m", "n", streams=streams, paths={"n": "other.onnx"})
    )
    assert not found.swapped
    assert found.needs_restart == ("models.n: only a model that frames alone go to is changed while it runs",)


# applying it


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[Pipeline, Reloader, Path]]:
    path = tmp_path / "edge.toml"
    tiny_model(tmp_path / "m.onnx")
    path.write_text(text_of(tmp_path, a=SCENE, b=SCENE))
    from edge.config.load import load_config

    loaded = load_config(path)
    pipeline = Pipeline(loaded)
    pipeline.start()
    yield pipeline, Reloader(path, loaded, pipeline), path
    assert pipeline.stop()
    assert not pipeline.failures()


def text_of(folder: Path, *, more: str = "", **sources: str) -> str:
    streams = "".join(f'[[streams]]\nname = "{name}"\nsource = "{source}"\n' for name, source in sources.items())
    return f'[model]\npath = "{folder}/m.onnx"\nthreads = 1\n{streams}{more}'


def wait_for_frames(pipeline: Pipeline, name: str, count: int = 3) -> None:
    counters = pipeline.streams[name].metrics.counters
    wanted = counters["emitted"] + count
    wait_until(lambda: counters["emitted"] >= wanted)


def test_only_the_changed_stream_begins_anew(running: tuple[Pipeline, Reloader, Path], tmp_path: Path) -> None:
    pipeline, reloader, path = running
    stream = pipeline.streams["a"]
    path.write_text(text_of(tmp_path, a=SCENE, b=SCENE.replace("seed=1", "seed=2"), c=SCENE))
    report = reloader.reload()
    assert report.applied == ["stream b was started again", "stream c was added"]
    assert pipeline.streams["a"] is stream
    for name in ("a", "b", "c"):
        wait_for_frames(pipeline, name)
    assert reloader.reload().applied == []


def test_every_stream_can_be_replaced(running: tuple[Pipeline, Reloader, Path], tmp_path: Path) -> None:
    """The line goes on even while no stream is left."""
    pipeline, reloader, path = running
    path.write_text(text_of(tmp_path, c=SCENE))
    assert reloader.reload().failed == []
    wait_for_frames(pipeline, "c")
    assert set(pipeline.streams) == {"c"}


def test_a_stream_that_cannot_begin_leaves_the_old_one(
    running: tuple[Pipeline, Reloader, Path], tmp_path: Path
) -> None:
    pipeline, reloader, path = running
    path.write_text(text_of(tmp_path, a=SCENE, b="nowhere.mp4", c="nothing.mp4"))
    report = reloader.reload()
    assert [sentence.partition(":")[0] for sentence in report.failed] == [
        "stream b was not started again",
        "stream c was not added",
    ]
    wait_for_frames(pipeline, "b")
    # it is tried again, as the file still asks for it
    assert len(reloader.reload().failed) == 2


@pytest.mark.parametrize("text", ["[model", "version = 1", '[model]\npath = "m"\n[[streams]]\nnam = "a"\n', "\x00"])
def test_a_broken_file_changes_nothing(text: str, running: tuple[Pipeline, Reloader, Path]) -> None:
    pipeline, reloader, path = running
    streams = dict(pipeline.streams)
    path.write_text(text)
    report = reloader.reload()
    assert report.refused
    assert not report.applied
    assert dict(pipeline.streams) == streams


def test_a_class_that_the_model_does_not_know_is_refused_and_the_line_goes_on(
    running: tuple[Pipeline, Reloader, Path], tmp_path: Path
) -> None:
    pipeline, reloader, path = running
    line = '[[streams.analytics.lines]]\nname = "gate"\npoints_share = [[0, 0.5], [1, 0.5]]\nclasses = ["persn"]\n'
    path.write_text(text_of(tmp_path, a=SCENE, b=SCENE, c=SCENE, more=line))
    failed = reloader.reload().failed
    assert failed == ["stream c was not added: c: line 'gate': unknown class 'persn'; did you mean 'person'?"]
    wait_for_frames(pipeline, "a")
    assert not pipeline.failures()


def test_a_size_in_which_a_zone_cannot_work_stops_no_camera(
    running: tuple[Pipeline, Reloader, Path], tmp_path: Path
) -> None:
    pipeline, reloader, path = running
    zone = '[[streams.analytics.zones]]\nname = "z"\npoints_px = [[200, 200], [300, 200], [300, 300]]\n'
    path.write_text(text_of(tmp_path, a=SCENE, b=SCENE, c=SCENE, more=zone))
    assert reloader.reload().applied == ["stream c was added"]
    for name in ("a", "b", "c"):
        wait_for_frames(pipeline, name)
    assert "must lie in the frame of 96x64 pixels" in str(pipeline.streams["c"].stats()["analytics_fault"])


def test_a_reload_whose_counts_cannot_be_written_loses_no_camera(
    running: tuple[Pipeline, Reloader, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(target: Path, data: str) -> None:
        raise OSError(28, "No space left on device")

    pipeline, reloader, path = running
    pipeline.config = pipeline.config.model_copy(update={"state_dir": tmp_path})
    line = '[[streams.analytics.lines]]\nname = "gate"\npoints_share = [[0, 0.5], [1, 0.5]]\n'
    path.write_text(text_of(tmp_path, a=SCENE, b=SCENE, c=SCENE, more=line))
    assert reloader.reload().applied == ["stream c was added"]
    wait_for_frames(pipeline, "c")
    monkeypatch.setattr("edge.pipeline.analysis.write_atomic", full)
    path.write_text(text_of(tmp_path, a=SCENE, b=SCENE, c=SCENE, more="score = 0.4\n" + line))
    assert reloader.reload().applied == ["stream c was started again"]
    wait_for_frames(pipeline, "c")


def test_what_needs_a_restart_is_told_until_there_was_one(
    running: tuple[Pipeline, Reloader, Path], tmp_path: Path
) -> None:
    _, reloader, path = running
    path.write_text("memory_budget_mb = 5000\n" + text_of(tmp_path, a=SCENE, b=SCENE).replace("= 1\n", "= 2\n", 1))
    told = [reloader.reload().needs_restart for _ in range(2)]
    assert told[0] == told[1] and len(told[0]) == 2
    path.write_text(text_of(tmp_path, a=SCENE, b=SCENE))
    assert reloader.reload().needs_restart == []


def test_the_first_camera_that_turns_needs_a_restart(running: tuple[Pipeline, Reloader, Path], tmp_path: Path) -> None:
    _, reloader, path = running
    turns = '[streams.ptz]\nhome = "Street"\nonvif = "127.0.0.1:1"\n'
    path.write_text(text_of(tmp_path, a=SCENE, b=SCENE, more=turns))
    told = [reloader.reload().needs_restart for _ in range(2)]
    assert told == [["streams.b.ptz: the first camera that turns needs a start"]] * 2


# over a restart


def test_the_last_good_configuration_starts_where_the_file_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, state = tmp_path / "edge.toml", tmp_path / "state"
    path.write_text(text_of(tmp_path, a="0"))
    keep_good(path, state)
    assert (state / "last-good.toml").stat().st_mode & 0o077 == 0
    path.write_text("nonsense")
    with pytest.raises(ConfigError):
        load_or_last_good(path)
    monkeypatch.setenv("STATE_DIRECTORY", str(state))
    found, reason = load_or_last_good(path)
    assert [stream.name for stream in found.streams] == ["a"]
    assert "no valid TOML" in reason


def test_a_swapped_model_is_forgotten_when_the_file_names_another_or_it_changed(tmp_path: Path) -> None:
    new = tmp_path / "new.onnx"
    new.write_text("one")
    before = config({"a": {}})
    keep_swapped("model", before.models[0].path, new, tmp_path)
    assert with_swapped(before, tmp_path).models[0].path == new
    assert str(with_swapped(config({"a": {}}, model={"path": "x.onnx"}), tmp_path).models[0].path) == "x.onnx"
    new.write_text("two")
    assert str(with_swapped(before, tmp_path).models[0].path) == "m.onnx"
    (tmp_path / "swapped-models.json").write_text("{damaged")
    assert str(with_swapped(before, tmp_path).models[0].path) == "m.onnx"


def test_a_crash_loop_becomes_slow_and_a_clean_end_forgets_it(tmp_path: Path) -> None:
    now = [1000.0]
    delays = []
    for _ in range(12):
        delays.append(CrashLoopGuard(tmp_path, lambda: now[0]).begin())
        now[0] += 2
    assert delays == [0, 0, 0, 2, 4, 8, 16, 32, 64, 120, 120, 120]
    CrashLoopGuard(tmp_path, lambda: now[0]).end()
    assert CrashLoopGuard(tmp_path, lambda: now[0]).begin() == 0
    # rare crashes are no loop
    for _ in range(10):
        now[0] += 600
        assert CrashLoopGuard(tmp_path, lambda: now[0]).begin() == 0


# watchdog


class Stages:
    """Stages whose marks the test sets, on a clock that it turns."""

    def __init__(self, **marks: Progress) -> None:
        self.marks = dict(marks)
        self.now_s = 100.0
        self.watchdog = Watchdog(lambda: self.marks, lambda: self.now_s)

    def after(self, seconds: float, **marks: Progress) -> bool:
        self.now_s += seconds
        self.marks.update(marks)
        return self.watchdog.may_feed()


def test_progress_of_every_stage_feeds() -> None:
    stages = Stages(a=Progress(0, True), b=Progress(0, True))
    assert stages.after(0.25, a=Progress(1, True), b=Progress(1, True))
    assert not stages.after(0.25, a=Progress(2, True))
    assert stages.after(0.25, b=Progress(2, True))


def test_one_stuck_stage_is_enough_whatever_the_others_do() -> None:
    stages = Stages(a=Progress(0, True), b=Progress(0, True))
    stages.after(0.25, a=Progress(1, True), b=Progress(1, True))
    assert not any(stages.after(0.25, a=Progress(number, True)) for number in range(2, 100))
    assert stages.watchdog.stuck() == "b has made no progress for 24 s"
    assert stages.after(0.25, b=Progress(2, False), a=Progress(100, False))
    assert stages.watchdog.stuck() is None


def test_idle_stages_and_those_that_have_gone_keep_nobody_from_feeding() -> None:
    stages = Stages(a=Progress(0, False), b=Progress(0, True))
    stages.after(1.0)
    assert not stages.after(50.0)
    del stages.marks["b"]
    assert all(stages.after(1.0) for _ in range(100))
    assert stages.watchdog.stuck() is None


def test_a_stage_may_take_as_long_as_it_was_given() -> None:
    stages = Stages(camera=Progress(0, True, limit_s=15))
    stages.after(1.0)
    assert stages.after(14.0)
    assert not stages.after(2.0)
    assert stages.watchdog.stuck() == "camera has made no progress for 16 s"


def watched_stream(**settings: Any) -> Stream:
    found = config({"a": {"source": "rtsp://x/1", **settings}}).streams[0]
    stream = Stream(found, "m", SimpleNamespace(classes=()), SimpleNamespace())  # type: ignore[arg-type]
    stream.status.state = "streaming"
    return stream


@pytest.mark.parametrize(
    ("stream", "gap_s"),
    [
        ({}, 5),
        ({"max_fps": 1 / 60}, 60),
        ({"motion_gate": {"enabled": True, "floor_fps": 0.1}}, 12),
        ({"max_fps": 0.1, "motion_gate": {"enabled": True, "floor_fps": 0.1}, "stall_timeout_s": 1}, 20),
    ],
)
def test_pictures_that_are_held_back_as_configured_are_no_reason_to_starve(stream: Any, gap_s: float) -> None:
    """A camera that is well gives a picture every ``gap_s``; one that gives none for three times as long hangs."""
    watched, now_s = watched_stream(**stream), [0.0]
    watchdog = Watchdog(lambda: progress_of({"a": watched}, 0, {}), lambda: now_s[0])
    for _ in range(4):
        watched.metrics.counters.add("captured")
        assert watchdog.may_feed()
        now_s[0] += gap_s
        assert watchdog.may_feed()
    now_s[0] += 2 * gap_s + 15
    assert not watchdog.may_feed()


# explain


def stream(**changes: Any) -> dict[str, Any]:
    stages = {
        "infer": {"median_ms": 30.0},
        "letterbox": {"median_ms": 1.0},
        "output": {"median_ms": 2.0},
        "read": {"median_ms": 30},
    }
    facts = {"state": "streaming", "fps_in": 25.0, "fps_out": 10.0, "stages": stages, "age_median_ms": 50.0}
    return {**facts, "counts": {"captured": 100, "emitted": 40, "drop_replaced": 60}, **changes}


def test_the_busiest_thread_is_the_bottleneck() -> None:
    streams = {"a": stream(), "b": stream(), "c": stream()}
    assert (loads(streams)[0].thread, round(loads(streams)[0].share, 2)) == ("inference", 0.93)
    first = explain({"streams": streams})[0]
    assert first.level == "wrong"
    assert "the busiest thread is inference: 93% of its time; it is the bottleneck" in first.text
    assert "INT8" in first.advice


def test_a_second_stage_that_waits_for_its_answers_is_work_of_the_inference_thread() -> None:
    stages = {"infer": {"median_ms": 20.0}, "second_stage": {"median_ms": 80.0}}
    assert loads({"a": stream(stages=stages)})[0].share == 1.0


def test_every_stage_belongs_to_a_thread_and_every_cause_of_a_drop_has_words() -> None:
    assert sorted((*CAPTURE_STAGES, *INFERENCE_STAGES, *OUTPUT_STAGES)) == sorted(STAGES)
    assert set(CAUSES) == set(DROP_CAUSES)


def test_drops_are_told_with_their_cause_and_intended_ones_are_no_fault() -> None:
    remarks = explain({"streams": {"a": stream(counts={"captured": 100, "drop_replaced": 60, "drop_max_fps": 30})}})
    texts = {remark.text: remark.level for remark in remarks}
    cause = "a newer frame came before inference had time: the camera is faster than the model"
    assert texts[f"60 of 100 frames dropped (60.0%): {cause}"] == "wrong"
    assert texts["30 of 100 frames dropped (30.0%): above max_fps, as configured"] == "note"


@pytest.mark.parametrize(
    "stats", [{}, {"streams": {}}, {"streams": {"a": {}}}, {"streams": {"a": {"stages": None, "counts": None}}}]
)
def test_explain_copes_with_little(stats: dict[str, Any]) -> None:
    assert explain(stats)


def test_other_troubles_are_told() -> None:
    stats = {
        "streams": {"a": stream(state="backing_off", reason="no route")},
        "stuck": "inference has made no progress for 9 s",
        "gpu": {"temperature_c": 90, "is_throttled": True},
        "config": {"state": "safe", "reason": "edge.toml: unknown key"},
    }
    wrong = {remark.topic for remark in explain(stats) if remark.level == "wrong"}
    assert {"a", "watchdog", "GPU", "configuration"} <= wrong


def test_a_stream_that_does_not_count_is_told() -> None:
    found = explain({"streams": {"a": stream(analytics_fault="a: line 'gate': draw it again")}})
    assert [remark.text for remark in found if "counted" in remark.text] == [
        "nothing is counted: a: line 'gate': draw it again"
    ]


def test_an_edge_error_is_what_a_reload_without_a_file_gives(running: tuple[Pipeline, Reloader, Path]) -> None:
    from edge.daemon.operations import Operations

    with pytest.raises(EdgeError, match="started from arguments"):
        Operations(running[0], None, None, None).order_reload()


def test_explain_says_what_waits_and_what_recordings_lack() -> None:
    stats = {
        "streams": {},
        "events": {
            "desk": {"written": 9, "dropped": 1},
            "outbox": {"kept": 9, "lost": 2, "waiting_mqtt": 4},
            "targets": {"mqtt": {"error": "broker away", "delivered": 5}},
        },
        "recordings": {
            "door": {"error": "", "files": 3, "frames": 70, "packets_lost": 2},
            "yard": {"error": "disk full", "files": 1, "frames": 5},
        },
    }
    said = {(remark.topic, remark.level): remark.text for remark in explain(stats)}
    assert said["events", "wrong"] == "9 events kept, 3 lost"
    assert said["to mqtt", "wrong"] == "5 delivered, 4 waiting: broker away"
    assert said["door", "note"] == "recording: 3 files, 70 pictures, 2 lost"
    assert said["yard", "wrong"] == "recording: 1 files, 5 pictures, 0 lost: disk full"
