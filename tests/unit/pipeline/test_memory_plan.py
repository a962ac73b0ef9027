"""The memory plan: what it adds up, the budget that is kept before anything runs, the ring limit that it counts on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge.config.load import parse_config
from edge.config.schema import Config
from edge.errors import ConfigError
from edge.models.manifest import Manifest
from edge.pictures.planes import PlaneForm
from edge.pipeline import Pipeline
from edge.pipeline.memory_plan import GATE_MB, LARGEST_PX, MemoryPlan, is_isolated, plan_memory, size_of
from edge.sources.isolation.ring import MAX_RINGS, NUM_SLOTS, RingLimit, RingReader, sealed_memory

SPEC = {"name": "frames", "width": 64, "height": 64, "layout": "nhwc", "dtype": "uint8", "colour": "bgr"}
FACTS = {"schema": 1, "name": "null", "task": "detect", "head": "edgenet", "classes": ["x"], "input": SPEC}


def config(folder: Path, *streams: dict[str, Any], **top: Any) -> Config:
    (folder / "null.json").write_text(json.dumps(FACTS))
    (folder / "null.onnx").touch()
    named = [{"name": f"cam{index}", **stream} for index, stream in enumerate(streams)]
    model = {"path": folder / "null.onnx", "engine": "null"}
    return parse_config({"model": model, "streams": named, **top}, where="test")


def plan(loaded: Config) -> MemoryPlan:
    return plan_memory(loaded, {"model": Manifest.model_validate(FACTS)})


@pytest.mark.parametrize(
    ("stream", "size", "isolated"),
    [
        ({"source": "rtsp://h/x"}, LARGEST_PX, True),
        ({"source": "rtsp://h/x", "size": (640, 360)}, (640, 360), True),
        ({"source": "synthetic://street?size=800x600"}, (800, 600), False),
        ({"source": "film.mp4", "isolation": "process"}, LARGEST_PX, True),
        ({"source": "0", "isolation": "thread"}, LARGEST_PX, False),
    ],
)
def test_the_plan_knows_size_and_place_of_a_stream(
    tmp_path: Path, stream: dict[str, Any], size: tuple[int, int], isolated: bool
) -> None:
    (found,) = config(tmp_path, stream).streams
    assert (size_of(found), is_isolated(found)) == (size, isolated)


def test_a_camera_costs_its_rings_and_its_child(tmp_path: Path) -> None:
    one = plan(config(tmp_path, {"source": "rtsp://h/x"}))
    two = plan(config(tmp_path, {"source": "rtsp://h/x"}, {"source": "rtsp://h/y", "size": (640, 360)}))
    shared = next(row for row in one.rows if "shared memory" in row.what)
    assert shared.mb == pytest.approx(MAX_RINGS * NUM_SLOTS * 1920 * 1080 * 3 / 1e6)
    small = next(row for row in two.rows if row.owner == "cam1" and "shared memory" in row.what)
    assert small.mb == pytest.approx(shared.mb / 9)
    assert two.total_mb > one.total_mb


def outlets(found: MemoryPlan) -> dict[str, float]:
    plain = ("drawing", "14 pictures", "capture child")
    return {row.what: row.mb for row in found.rows if row.owner == "cam0" and not row.what.startswith(plain)}


FRAME_MB = 1280 * 720 * 3 / 1e6
ENCODER = 1280 * 720 * 30 / 1e6 + 5
# what is pushed has the camera's sound
SOUND = {"sound of the camera under way": 4.19}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, {}),
        ({"sinks": ["jsonl:-", "snapshot:/tmp"]}, {}),
        (
            {"record": {"folder": "/x", "fragment_s": 1}},
            {"recording: waiting pictures and encoder": 8 * FRAME_MB + ENCODER, "recording: a fragment": 11.06},
        ),
        (
            {"record": {"folder": "/x", "fragment_s": 1, "mode": "events", "pre_roll_mb": 100}},
            {
                "pre-roll": 104.86,
                "recording: waiting pictures and encoder": 8 * FRAME_MB + ENCODER,
                "recording: a fragment": 11.06,
            },
        ),
        ({"sinks": ["rtsp://h/out"]}, {**SOUND, "restream: pictures, encoder and sender": 2 * FRAME_MB + ENCODER + 65}),
        ({"sinks": ["hls:/x"]}, {**SOUND, "restream: pictures, encoder and sender": 2 * FRAME_MB + ENCODER + 65}),
        ({"sinks": ["mp4:/x.mp4"]}, {"mp4: encoder": ENCODER}),
    ],
)
def test_recordings_and_restreams_are_in_the_plan(
    tmp_path: Path, change: dict[str, Any], expected: dict[str, float]
) -> None:
    found = plan(config(tmp_path, {"source": "rtsp://h/x", "size": (1280, 720), **change}))
    assert outlets(found) == pytest.approx(expected, abs=0.01)


def test_pictures_of_events_and_viewers_are_in_the_plan(tmp_path: Path) -> None:
    camera = {"source": "rtsp://h/x", "size": (1280, 720)}
    events = {"outbox": tmp_path / "o.db", "snapshots": tmp_path}
    base = plan(config(tmp_path, camera)).total_mb
    assert plan(config(tmp_path, camera, events=events)).total_mb == pytest.approx(base + 8 * FRAME_MB)
    assert plan(config(tmp_path, camera, server={"enabled": True})).total_mb > base + ENCODER


def test_the_process_that_looks_for_tokens_is_in_the_plan(tmp_path: Path) -> None:
    server = {"enabled": True, "token_file": "token"}
    with_gate = plan(config(tmp_path, {"source": "rtsp://h/x"}, server=server)).total_mb
    without = plan(config(tmp_path, {"source": "rtsp://h/x"}, server={"enabled": True})).total_mb
    assert with_gate - without == pytest.approx(GATE_MB)


def test_a_configuration_over_its_budget_is_refused_before_it_runs(tmp_path: Path) -> None:
    loaded = config(tmp_path, {"source": "rtsp://h/x"}, memory_budget_mb=400)
    with pytest.raises(ConfigError, match=r"memory_budget_mb = 400: .* can need \d+ MB; the largest part is 19\d MB"):
        Pipeline(loaded)
    fitting = loaded.model_copy(update={"memory_budget_mb": plan(loaded).total_mb + 1})
    assert Pipeline(fitting).streams


def reader(limit: RingLimit) -> RingReader:
    return RingReader(sealed_memory("test", 2 * 4 * 4 * 3), PlaneForm("bgr", 4, 4), 2, lambda _: None, limit)


def test_no_more_rings_live_than_planned_however_long_pictures_are_held() -> None:
    limit = RingLimit()
    held = []
    for _ in range(MAX_RINGS):
        assert limit.wait_for_room(lambda: False, 0.1)
        held.append(reader(limit).picture(0))
    assert len(limit) == MAX_RINGS
    assert not limit.wait_for_room(lambda: False, 0.05)
    held.pop()
    assert limit.wait_for_room(lambda: False, 0.05)


def test_a_model_with_masks_costs_its_maps_in_every_stream_and_tile(tmp_path: Path) -> None:
    loaded = config(tmp_path, {"source": "rtsp://h/x"}, {"source": "rtsp://h/y", "tiles": (2, 2)})
    masks = Manifest.model_validate({**FACTS, "head": "yolov8-seg", "input": {**SPEC, "width": 640, "height": 640}})
    rows = [row for row in plan_memory(loaded, {"model": masks}).rows if "masks" in row.what]
    assert [row.owner for row in rows] == ["cam0", "cam1"]
    assert [row.mb for row in rows] == pytest.approx([9 * 32 * 160 * 160 * 4 / 1e6, 5 * 9 * 32 * 160 * 160 * 4 / 1e6])
    assert not [row for row in plan(loaded).rows if "masks" in row.what]
