"""No event is lost on its way out: dropped, late and waiting results are reported like those that come out."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.config.load import parse_config
from edge.config.schema import Config
from edge.errors import ConfigError
from edge.models.manifest import Manifest
from edge.overlay import Overlay
from edge.pipeline.build import Shared
from edge.pipeline.latest_frames import LatestFrames
from edge.pipeline.output import OutputWorker
from edge.pipeline.shared_outputs import SharedOutputs
from edge.pipeline.stream import Stream
from edge.second_stage.models import CropModels
from edge.types import Detections, Event, Frame, Result

DEAD = "http://127.0.0.1:9/hook"
MANIFEST = Manifest.model_validate(
    {
        "schema": 1,
        "name": "street",
        "task": "detect",
        "head": "edgenet",
        "input": {"name": "frames", "width": 64, "height": 64, "layout": "nhwc", "dtype": "uint8", "colour": "bgr"},
        "classes": ["person"],
    }
)


def config(folder: Path, **tables: Any) -> Config:
    stream = {"name": "door", "source": "rtsp://camera.invalid/1", "max_age_ms": 60_000}
    raw = {"model": {"path": "m.onnx"}, "streams": [stream | tables.pop("stream", {})], "state_dir": folder, **tables}
    return parse_config(raw, where="test")


def shared_outputs(chosen: Config) -> SharedOutputs:
    return SharedOutputs(chosen, lambda: [stream.name for stream in chosen.streams])


def stream_of(outputs: SharedOutputs, chosen: Config) -> Stream:
    shared = Shared(
        chosen.model_copy(update={"state_dir": None}), LatestFrames(), outputs, CropModels(chosen), None, bool
    )
    return shared.make(chosen.streams[0], chosen.models[0], MANIFEST)


def result(seq: int, age_s: float = 0.0) -> Result:
    captured_ns = time.monotonic_ns() - int(age_s * 1e9)
    frame = Frame("door", 0, seq, captured_ns, None, np.zeros((48, 64, 3), np.uint8))
    return Result(frame, Detections.empty(), events=(Event("line_crossed", "door", captured_ns, seq),))


def run_output(stream: Stream, outputs: SharedOutputs, stopping: threading.Event) -> None:
    OutputWorker(stream, outputs.sinks(stream), Overlay(["person"]), lambda: None).run(stopping)


def reported(outputs: SharedOutputs) -> list[dict[str, Any]]:
    """The bodies in the outbox, in order of their frames, once everything is written."""
    assert outputs.writer is not None
    assert outputs.outbox is not None
    outputs.writer.close()
    outputs.writer.run(threading.Event())
    bodies = [json.loads(event.body) for event in outputs.outbox.recent(99)]
    outputs.outbox.close()
    return sorted(bodies, key=lambda body: body["seq"])


def put_all(stream: Stream, results: list[Result]) -> None:
    for one in results:
        stream.results.put(one)
    stream.results.close()


def test_results_that_are_dropped_because_the_output_is_slow_keep_their_events(tmp_path: Path) -> None:
    chosen = config(tmp_path, events={"snapshots": str(tmp_path / "pictures")})
    outputs = shared_outputs(chosen)
    stream = stream_of(outputs, chosen)
    put_all(stream, [result(seq) for seq in range(5)])
    run_output(stream, outputs, threading.Event())
    bodies = reported(outputs)
    assert [body["seq"] for body in bodies] == [0, 1, 2, 3, 4]
    assert stream.metrics.counters["drop_output_full"] == 3
    # what came out has a picture, what was dropped has none
    assert ["snapshot" in body["links"] for body in bodies] == [False, False, False, True, True]
    assert {body["model"]["name"] for body in bodies} == {"street"}


@pytest.mark.parametrize("age_s", [0.0, 120.0], ids=["stopped", "too old"])
def test_results_that_never_come_out_keep_their_events(tmp_path: Path, age_s: float) -> None:
    chosen = config(tmp_path, events={})
    outputs = shared_outputs(chosen)
    stream = stream_of(outputs, chosen)
    put_all(stream, [result(0, age_s), result(1, age_s)])
    stopping = threading.Event()
    if not age_s:
        stopping.set()
    run_output(stream, outputs, stopping)
    assert [body["seq"] for body in reported(outputs)] == [0, 1]
    assert stream.metrics.counters["emitted"] == 0


def test_an_event_names_the_clip_that_shows_it(tmp_path: Path) -> None:
    record = {"folder": str(tmp_path), "mode": "events", "reserve_mb": 0, "post_roll_s": 0}
    chosen = config(tmp_path, events={}, stream={"record": record})
    outputs = shared_outputs(chosen)
    stream = stream_of(outputs, chosen)
    put_all(stream, [result(0)])
    run_output(stream, outputs, threading.Event())
    (body,) = reported(outputs)
    assert Path(body["links"]["clip"]).is_file()
    assert outputs.recordings["door"].entries()[0].file == Path(body["links"]["clip"]).name
    assert outputs.stats()["recordings"]["door"]["files"] == 1  # type: ignore[index]


def test_dead_targets_hold_up_neither_the_frames_nor_the_end(tmp_path: Path) -> None:
    chosen = config(tmp_path, webhooks=[{"name": "a", "url": DEAD}, {"name": "b", "url": DEAD}])
    outputs = shared_outputs(chosen)
    stream = stream_of(outputs, chosen)
    outputs.start()
    put_all(stream, [result(0)])
    began = time.monotonic()
    run_output(stream, outputs, threading.Event())
    assert outputs.stop(time.monotonic() + 10)
    assert time.monotonic() - began < 8
    again = shared_outputs(chosen)
    assert again.outbox is not None
    assert again.outbox.counts() == {"kept": 1, "lost": 0, "waiting_a": 1, "waiting_b": 1}
    assert again.stop(0)


def test_without_events_in_the_configuration_nothing_is_opened(tmp_path: Path) -> None:
    chosen = config(tmp_path)
    outputs = shared_outputs(chosen)
    stream = stream_of(outputs, chosen)
    outputs.start()
    assert outputs.sinks(stream) == []
    outputs.report_lost(stream, result(0))
    assert outputs.stats() == {"events": {}, "recordings": {}}
    assert outputs.stop(0)
    assert not list(tmp_path.iterdir())


def homeless(raw: dict[str, Any]) -> None:
    raw["state_dir"] = None


def twins(raw: dict[str, Any]) -> None:
    raw["mqtt"] = {"name": "webhook", "host": "broker"}


def half_tls(raw: dict[str, Any]) -> None:
    raw["mqtt"] = {"host": "broker", "tls": True, "tls_cert_file": "a.pem"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (homeless, "there is no place for events; set it, or state_dir"),
        (twins, "two event targets are called 'webhook'"),
        (half_tls, "tls_cert_file and tls_key_file are expected together"),
    ],
)
def test_what_does_not_fit_is_said_at_the_start(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    raw: dict[str, Any] = {
        "model": {"path": "m.onnx"},
        "streams": [{"name": "door", "source": "0"}],
        "webhooks": [{"url": DEAD}],
        "state_dir": tmp_path,
    }
    change(raw)
    with pytest.raises(ConfigError, match=message):
        shared_outputs(parse_config(raw, where="test"))
