"""What ``edge bench`` measures besides the pipeline's own clocks, and the picture of it."""

from __future__ import annotations

import gc
from pathlib import Path

import cv2
import pytest

from edge.bench.loop import GcPauses, measure_loop
from edge.bench.picture import draw_report
from edge.config.load import config_from_arguments


def test_pauses_of_the_collector_are_counted_while_it_is_asked() -> None:
    num_callbacks = len(gc.callbacks)
    with GcPauses() as pauses:
        gc.collect()
    gc.collect()
    assert pauses.as_dict()["pauses"] >= 1
    assert pauses.as_dict()["longest_ms"] <= pauses.as_dict()["sum_ms"] + 0.1
    assert len(gc.callbacks) == num_callbacks


def test_a_loop_is_measured_and_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    config = config_from_arguments(
        ["synthetic://street?seed=3&size=320x180&frames=100000"],
        Path("edge/models/street-nano-int8.onnx"),
        ["jsonl:/dev/null"],
        for_model={"engine": "null"},
        for_stream={"frames": "every", "name": "street"},
    )
    loop = measure_loop(config, 1.5)
    assert loop["fps"] > 0
    assert len(loop["ages_ms"]["street"]) > 10
    # the windows of figures still fill; a leak of a picture or a dict per frame would be more
    assert loop["blocks_per_frame"] < 100
    draw_report({"cores": 2, "loop": loop}, tmp_path / "bench.png")
    picture = cv2.imread(str(tmp_path / "bench.png"))
    assert picture is not None
    assert picture.shape[1] == 1200
    assert picture.std() > 20
