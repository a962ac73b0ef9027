"""A stream whose analysis is switched off goes on to be shown and recorded, in order, and nothing is told of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import pytest
from tiny_models import tiny_model

from edge.config.load import parse_config
from edge.errors import ConfigError
from edge.pipeline import Pipeline
from edge.types import Result

FRAMES = 40


def pipeline(folder: Path, on_result: Callable[[Result], object]) -> Pipeline:
    source = f"synthetic://street?seed=1&size=160x96&fps=20&frames={FRAMES}"
    sinks = [f"mp4:{folder}/out.mp4", f"jsonl:{folder}/out.jsonl"]
    raw = {
        "model": {"path": tiny_model(folder / "tiny.onnx"), "threads": 1},
        "streams": [{"name": "door", "source": source, "sinks": sinks}],
    }
    return Pipeline(parse_config(raw, where="test"), on_result=on_result)


def num_pictures(path: Path) -> int:
    with av.open(str(path)) as film:
        return sum(1 for _ in film.decode(video=0))


def test_pictures_come_out_and_no_result(tmp_path: Path) -> None:
    results: list[Result] = []
    running = pipeline(tmp_path, results.append)
    running.switch("door", "analysis", is_on=False)
    running.run()
    assert results == [] and (tmp_path / "out.jsonl").read_text() == ""
    assert num_pictures(tmp_path / "out.mp4") == FRAMES
    counts = running.streams["door"].metrics.counters.snapshot()
    assert counts["drop_switched_off"] == FRAMES and counts.get("inferred", 0) == 0


def test_it_is_switched_between_two_frames_and_none_is_lost(tmp_path: Path) -> None:
    results: list[Result] = []

    def switch_at(result: Result) -> None:
        results.append(result)
        running.switch("door", "analysis", is_on=len(results) < 5)

    running = pipeline(tmp_path, switch_at)
    running.run()
    assert num_pictures(tmp_path / "out.mp4") == FRAMES
    numbers = [result.frame.seq for result in results]
    assert numbers == sorted(numbers) and 5 <= len(results) < FRAMES


def test_a_stream_that_is_not_there_cannot_be_switched(tmp_path: Path) -> None:
    running = pipeline(tmp_path, lambda result: None)
    with pytest.raises(ConfigError, match="yard"):
        running.switch("yard", "analysis", is_on=False)
    running.stop()
