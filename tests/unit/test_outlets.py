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
from edge.overlay.overlay import Overlay
from edge.pipeline.build import make_lane
from edge.pipeline.output import OutputWorker
from edge.pipeline.shared_outputs import Outlets
from edge.pipeline.stream import Lane
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


def lane_of(outlets: Outlets, chosen: Config) -> Lane:
    return outlets.attach(make_lane(chosen.streams[0], chosen.models[0], MANIFEST, None, CropModels(chosen)))


def result(seq: int, age_s: float = 0.0) -> Result:
    captured_ns = time.monotonic_ns() - int(age_s * 1e9)
    frame = Frame("door", 0, seq, captured_ns, None, np.zeros((48, 64, 3), np.uint8))
    return Result(frame, Detections.empty(), events=(Event("line_crossed", "door", captured_ns, seq),))


def run_output(lane: Lane, outlets: Outlets, stopping: threading.Event) -> None:
    worker = OutputWorker(
        lane,
        outlets.sinks(lane),
        Overlay(["person"]),
        lambda: None,
        lambda lost: outlets.lost(lane, lost),
    )
    worker.run(stopping)


def reported(outlets: Outlets) -> list[dict[str, Any]]:
    """The bodies in the outbox, in order of their frames, once everything is written."""
    assert outlets.desk is not None
    assert outlets.outbox is not None
    outlets.desk.close()
    outlets.desk.run(threading.Event())
    bodies = [json.loads(event.body) for event in outlets.outbox.recent(99)]
    outlets.outbox.close()
    return sorted(bodies, key=lambda body: body["seq"])


def put_all(lane: Lane, results: list[Result]) -> None:
    for one in results:
        lane.results.put(one)
    lane.results.close()


def test_results_that_are_dropped_because_the_output_is_slow_keep_their_events(tmp_path: Path) -> None:
    chosen = config(tmp_path, events={"snapshots": str(tmp_path / "pictures")})
    outlets = Outlets(chosen)
    lane = lane_of(outlets, chosen)
    put_all(lane, [result(seq) for seq in range(5)])
    run_output(lane, outlets, threading.Event())
    bodies = reported(outlets)
    assert [body["seq"] for body in bodies] == [0, 1, 2, 3, 4]
    assert lane.counters["drop_output_full"] == 3
    # what came out has a picture, what was dropped has none
    assert ["snapshot" in body["links"] for body in bodies] == [False, False, False, True, True]
    assert {body["model"]["name"] for body in bodies} == {"street"}


@pytest.mark.parametrize("age_s", [0.0, 120.0], ids=["stopped", "too old"])
def test_results_that_never_come_out_keep_their_events(tmp_path: Path, age_s: float) -> None:
    chosen = config(tmp_path, events={})
    outlets = Outlets(chosen)
    lane = lane_of(outlets, chosen)
    put_all(lane, [result(0, age_s), result(1, age_s)])
    stopping = threading.Event()
    if not age_s:
        stopping.set()
    run_output(lane, outlets, stopping)
    assert [body["seq"] for body in reported(outlets)] == [0, 1]
    assert lane.counters["emitted"] == 0


def test_an_event_names_the_clip_that_shows_it(tmp_path: Path) -> None:
    record = {"folder": str(tmp_path), "mode": "events", "reserve_mb": 0, "post_roll_s": 0}
    chosen = config(tmp_path, events={}, stream={"record": record})
    outlets = Outlets(chosen)
    lane = lane_of(outlets, chosen)
    put_all(lane, [result(0)])
    run_output(lane, outlets, threading.Event())
    (body,) = reported(outlets)
    assert Path(body["links"]["clip"]).is_file()
    assert outlets.recordings["door"].entries()[0].file == Path(body["links"]["clip"]).name
    assert outlets.stats()["recordings"]["door"]["files"] == 1  # type: ignore[index]


def test_dead_targets_hold_up_neither_the_frames_nor_the_end(tmp_path: Path) -> None:
    chosen = config(tmp_path, webhooks=[{"name": "a", "url": DEAD}, {"name": "b", "url": DEAD}])
    outlets = Outlets(chosen)
    lane = lane_of(outlets, chosen)
    outlets.start()
    put_all(lane, [result(0)])
    began = time.monotonic()
    run_output(lane, outlets, threading.Event())
    assert outlets.stop(time.monotonic() + 10)
    assert time.monotonic() - began < 8
    again = Outlets(chosen)
    assert again.outbox is not None
    assert again.outbox.counts() == {"kept": 1, "lost": 0, "waiting_a": 1, "waiting_b": 1}
    assert again.stop(0)


def test_without_events_in_the_configuration_nothing_is_opened(tmp_path: Path) -> None:
    chosen = config(tmp_path)
    outlets = Outlets(chosen)
    lane = lane_of(outlets, chosen)
    outlets.start()
    assert outlets.sinks(lane) == []
    outlets.lost(lane, result(0))
    assert outlets.stats() == {"events": {}, "recordings": {}}
    assert outlets.stop(0)
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
        Outlets(parse_config(raw, where="test"))
