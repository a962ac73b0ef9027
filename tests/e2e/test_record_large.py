"""The small picture of a camera is analysed, the large one recorded: one clock, and neither goes with the other."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from camera_rig import (
    TwoProfiles,
    emitted,
    find_squares,
    holdings,
    memory_growth,
    null_pipeline,
    started_pipelines,
    wait_for,
)
from chaos_proxy import ChaosProxy

from edge.pipeline import Pipeline
from edge.types import Event

pytestmark = pytest.mark.real_server
CUE = re.compile(r"(\d+):(\d+):(\d+\.\d+) --> (\d+):(\d+):(\d+\.\d+)\n(\{.*\})")
CROSSING_S, SIDE_SHARE = 4.0, 0.125
SPEED = (1 - SIDE_SHARE) / CROSSING_S


def cues_of(path: Path) -> list[tuple[float, float, Any]]:
    """(begin, end, what was found) of each cue, seconds of the file."""
    found = []
    for hour, minute, second, hour2, minute2, second2, text in CUE.findall(path.read_text(encoding="utf-8")):
        begin = int(hour) * 3600 + int(minute) * 60 + float(second)
        found.append((begin, int(hour2) * 3600 + int(minute2) * 60 + float(second2), json.loads(text)))
    return found


def squares_in(path: Path) -> list[tuple[float, tuple[float, float, float, float]]]:
    """(second, box in shares of the picture) of the square in each picture of a file."""
    squares = []
    with av.open(str(path)) as file:
        for frame in file.decode(video=0):
            luma = frame.to_ndarray(format="gray")
            is_bright = luma > 130
            columns, rows = np.flatnonzero(is_bright.any(axis=0)), np.flatnonzero(is_bright.any(axis=1))
            height, width = luma.shape
            box = columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height
            squares.append((frame.time, box))
    return squares


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Pipeline]]:
    """Starts a pipeline that analyses one address and records another."""
    with started_pipelines() as started:

        def begin(source: str, record_source: str, **more: Any) -> Pipeline:
            record = {"folder": tmp_path, "content": "source", "reserve_mb": 0, **more.pop("record", {})}
            pipeline = null_pipeline(
                tmp_path, [source], input_size=(320, 180), record_source=record_source, record=record, **more
            )
            find_squares(pipeline)
            return started(pipeline)

        yield begin


def packets_of(pipeline: Pipeline) -> int:
    queue = pipeline.streams["cam0"].packets
    assert queue is not None
    return queue.counters["packets"]


def test_a_clip_of_the_large_picture_has_the_boxes_of_the_small_one(
    tmp_path: Path, start: Callable[..., Pipeline]
) -> None:
    camera = TwoProfiles("2560x1440x20", "640x360x10")
    try:
        record = {"mode": "events", "pre_roll_s": 2, "post_roll_s": 2}
        pipeline = start(camera.sub, camera.main, record=record)
        stream = pipeline.streams["cam0"]
        # the sender reports of both have come
        wait_for(lambda: packets_of(pipeline) > 140 and emitted(pipeline)["cam0"] > 60, 60, "both pictures run")
        stream.queue_event(Event("tick", "cam0", time.monotonic_ns()), 0, 0)
        recording = pipeline.outputs.recordings["cam0"]
        wait_for(lambda: len(recording.entries()) == 1, 30, "the clip is whole")
        assert pipeline.stop()
    finally:
        camera.kill()
    (entry,) = recording.entries()
    assert (entry.width, entry.height) == (2560, 1440)
    assert entry.events[0][0] - entry.start_ns >= 2e9
    path = tmp_path / "cam0" / entry.file
    cues = cues_of(path.with_suffix(".vtt"))
    worst, shifts = 0.0, []
    for second, square in squares_in(path):
        shown = [found for begin, end, found in cues if begin <= second <= end]
        if not shown:
            continue
        (box,) = [found["xyxy"] for found in shown[0]["objects"]]
        size = (shown[0]["width"], shown[0]["height"]) * 2
        shares = [value / full for value, full in zip(box, size, strict=True)]
        worst = max(worst, *(abs(ours - theirs) for ours, theirs in zip(shares, square, strict=True)))
        # of the side that no edge of the picture holds back
        shifts.append(abs(shares[0] - square[0]) / SPEED)
    print(f"\nboxes: at most {worst:.2%} of the picture, {max(shifts) * 1e3:.0f} ms apart, {len(shifts)} pictures")
    # of 80; none is drawn on where the analysis was late
    assert len(shifts) > 40
    assert worst <= 0.02
    assert max(shifts) <= 0.08


def test_the_large_picture_is_opened_for_an_event_only(start: Callable[..., Pipeline]) -> None:
    camera = TwoProfiles("640x360x20", "320x180x10")
    try:
        record = {"mode": "events", "pre_roll_s": 0, "post_roll_s": 2}
        pipeline = start(camera.sub, camera.main, record=record, record_open="needed")
        stream = pipeline.streams["cam0"]
        wait_for(lambda: emitted(pipeline)["cam0"] > 20, 30, "the small picture runs")
        assert packets_of(pipeline) == 0
        assert stream.stats()["record_source"]["state"] == "waiting"  # type: ignore[index]
        stream.queue_event(Event("tick", "cam0", time.monotonic_ns()), 0, 0)
        recording = pipeline.outputs.recordings["cam0"]
        wait_for(lambda: len(recording.entries()) == 1, 30, "the clip is whole")
        assert recording.entries()[0].width == 640
        wait_for(lambda: stream.stats()["record_source"]["state"] == "waiting", 30, "it is let go")  # type: ignore[index]
    finally:
        camera.kill()


def reconnected(start: Callable[..., Pipeline], times: int) -> dict[str, float]:
    """Cut one of the two connections and then the other, so often; the other one must not notice.

    Returns:
        Reconnects of each, and how the memory grew, as a share.
    """
    camera = TwoProfiles("320x180x20", "160x90x10")
    main, sub = (ChaosProxy("127.0.0.1", camera.port) for _ in range(2))
    try:
        addresses = [f"rtsp://127.0.0.1:{proxy.port}/{path}" for proxy, path in ((sub, "sub"), (main, "main"))]
        pipeline = start(*addresses, retry_base_s=0.05, retry_cap_s=0.1)
        stream = pipeline.streams["cam0"]
        counts: dict[str, Callable[[], int]] = {
            "main": lambda: packets_of(pipeline),
            "sub": lambda: emitted(pipeline)["cam0"],
        }
        wait_for(lambda: all(count() > 20 for count in counts.values()), 30, "both pictures run")
        before, held = holdings(), []
        for number in range(times):
            for name, proxy in (("main", main), ("sub", sub)):
                other = "sub" if name == "main" else "main"
                reconnects = _reconnects(pipeline)
                proxy._cut()
                # what was on its way still comes
                wait_for(lambda: _reconnects(pipeline)[name] > reconnects[name], 120, f"{name} is cut, {number}")  # noqa: B023
                at, unharmed = counts[name](), counts[other]()
                wait_for(lambda: counts[name]() > at + 2, 120, f"{name} is back, {number}")  # noqa: B023
                wait_for(lambda: counts[other]() > unharmed + 2, 120, f"{other} goes on, {number}")  # noqa: B023
                assert _reconnects(pipeline)[other] == reconnects[other]
            held.append(holdings())
            if number % 50 == 49:
                print(f"{number + 1} of each: {held[-1]}", flush=True)
        assert stream.record_source is not None
        found = _reconnects(pipeline)
        assert min(found.values()) >= times
        after = holdings()
        assert after["threads"] <= before["threads"]
        assert after["fds"] <= before["fds"] + 2
        assert after["children"] <= before["children"]
        return {**found, "memory_growth": round(memory_growth(held), 4)}
    finally:
        main.close()
        sub.close()
        camera.kill()


def _reconnects(pipeline: Pipeline) -> dict[str, int]:
    stream = pipeline.streams["cam0"]
    assert stream.record_source is not None
    return {"main": stream.record_source.counters["reconnects"], "sub": stream.metrics.counters["reconnects"]}


def test_either_picture_reconnects_without_the_other(start: Callable[..., Pipeline]) -> None:
    reconnected(start, 2)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_a_thousand_reconnects_of_either_harm_neither(start: Callable[..., Pipeline]) -> None:
    # pytest keeps every log record of a test, which would be measured as growth
    logging.disable(logging.CRITICAL)
    try:
        found = reconnected(start, 1000)
    finally:
        logging.disable(logging.NOTSET)
    print(f"\n{found}")
    assert found["memory_growth"] < 0.02
