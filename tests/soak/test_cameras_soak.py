"""Cameras for many minutes: a thousand reconnects, a thousand cameras that come and go, faults for a quarter hour.

Shorter: EDGE_SOAK_SHARE=0.1 runs a tenth of each.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge.chaos.camera import FAULTS, ChaosCamera
from edge.chaos.drills import run_drills
from edge.pipeline import Pipeline
from edge.sources.isolated import Deadlines, IsolatedSource

sys.path.insert(0, str(Path(__file__).parents[1] / "servers"))
from camera_rig import SYNTHETIC, RtspServer, emitted, holdings, null_pipeline, unaccounted, wait_for

pytestmark = [pytest.mark.soak, pytest.mark.timeout(7200)]
SHARE = float(os.environ.get("EDGE_SOAK_SHARE", "1"))


@pytest.fixture
def server() -> Iterator[RtspServer]:
    running = RtspServer()
    yield running
    running.kill()


def report(name: str, **figures: object) -> None:
    """For docs/guarantees.md."""
    print(f"\n{name}: {json.dumps(figures)}", flush=True)


def dropped(pipeline: Pipeline) -> int:
    counts = [lane.counters.snapshot() for lane in pipeline.lanes.values()]
    return sum(number for count in counts for cause, number in count.items() if cause.startswith("drop_"))


def grown(first: dict[str, int], last: dict[str, int]) -> list[str]:
    return [name for name in ("threads", "fds", "children") if last[name] > first[name]]


def slope_per_hour(seconds: list[float], values: list[float]) -> tuple[float, float]:
    """Growth per hour of a straight line through the values, and its standard error."""
    x = np.array(seconds) / 3600
    (slope, _), covariance = np.polyfit(x, values, 1, cov=True)
    return float(slope), float(np.sqrt(covariance[0, 0]))


@pytest.mark.real_server
def test_a_thousand_reconnects_leave_everything_flat(server: RtspServer, tmp_path: Path) -> None:
    pipeline = null_pipeline(tmp_path, [server.url], stall_timeout_s=2, retry_base_s=0.05, retry_cap_s=0.1)
    pipeline.start()
    (lane,) = pipeline.lanes.values()
    wait_for(lambda: lane.counters["emitted"] > 3, 30, "first pictures")
    held, back_s = [], []
    for _ in range(round(1000 * SHARE)):
        server.kill()
        wait_for(lambda: lane.state in ("backing_off", "connecting"), 20, "the loss is noticed")
        last = lane.counters["emitted"]
        server.start()
        back_s.append(wait_for(lambda last=last: lane.counters["emitted"] > last, 30, "pictures after the restart"))
        held.append(holdings())
    warm = held[min(20, len(held) // 4)]
    growth = held[-1]["rss_kb"] / warm["rss_kb"] - 1
    median_s, high_s = (round(float(value), 2) for value in np.percentile(back_s, (50, 99)))
    report(
        "reconnects",
        count=len(held),
        back_median_s=median_s,
        back_p99_s=high_s,
        first=warm,
        last=held[-1],
        rss_growth=round(growth, 4),
    )
    assert pipeline.stop()
    assert not any(unaccounted(pipeline).values())
    assert not grown(warm, held[-1])
    assert growth < 0.02
    assert np.median(back_s) < 2


def test_a_thousand_cameras_come_and_go(tmp_path: Path) -> None:
    pipeline = null_pipeline(tmp_path, [SYNTHETIC.format(seed=0, fps=20)])
    pipeline.start()
    stream = pipeline.config.streams[0].model_copy(update={"name": "guest"})
    held = []
    for _ in range(round(1000 * SHARE)):
        lane = pipeline.add_stream(stream)
        wait_for(lambda lane=lane: lane.counters["emitted"] > 0, 20, "a picture of the guest")
        assert pipeline.remove_stream("guest")
        held.append(holdings())
    warm = held[len(held) // 10]
    growth = held[-1]["rss_kb"] / warm["rss_kb"] - 1
    report("add_remove", count=len(held), first=warm, last=held[-1], rss_growth=round(growth, 4))
    assert pipeline.stop()
    assert not grown(warm, held[-1])
    assert growth < 0.02


def test_faults_for_a_quarter_of_an_hour_leave_the_memory_flat() -> None:
    """All faults again and again, each round with a new pipeline; a new pipeline must not need more than the last."""
    started, seconds, rss_mb, failures = time.monotonic(), [], [], []
    first: dict[str, int] = {}
    while time.monotonic() - started < 900 * SHARE or len(rss_mb) < 6:
        faults = FAULTS if SHARE >= 1 else ("refuse", "flood", "size_change")
        failures += [verdict for verdict in run_drills(faults, seconds=3.0) if not verdict.has_passed]
        last = holdings()
        first = first or last
        seconds.append(time.monotonic() - started)
        rss_mb.append(last["rss_kb"] / 1024)
    # the first round fills caches: coded pictures, code, allocator
    slope, error = slope_per_hour(seconds[1:], rss_mb[1:])
    report(
        "soak",
        minutes=round(seconds[-1] / 60, 1),
        rounds=len(rss_mb),
        failures=[str(verdict) for verdict in failures],
        rss_mb=[round(value, 1) for value in rss_mb],
        slope_mb_per_h=round(slope, 2),
        error=round(error, 2),
        first=first,
        last=last,
    )
    assert not grown(first, last)
    assert slope < 2 * error or slope * seconds[-1] / 3600 < 0.01 * rss_mb[-1]
    assert not failures


def test_sixteen_cameras_of_720p15_lose_no_frame(tmp_path: Path) -> None:
    num, fps, window_s = 16, 15, 20.0
    source = "synthetic://street?size=1280x720&objects=2&live=1&fps=15&seed={seed}"
    pipeline = null_pipeline(tmp_path, [source.format(seed=index) for index in range(num)], max_batch=16)
    pipeline.start()
    wait_for(lambda: min(emitted(pipeline).values()) >= fps, 120, "all cameras deliver")
    before, lost, cpu_s, started = emitted(pipeline), dropped(pipeline), time.process_time(), time.monotonic()
    time.sleep(window_s)
    spent_s = time.monotonic() - started
    rates = {name: (count - before[name]) / spent_s for name, count in emitted(pipeline).items()}
    drops, cores = dropped(pipeline) - lost, (time.process_time() - cpu_s) / spent_s
    report("sixteen_720p15", least_fps=round(min(rates.values()), 2), drops=drops, cores_used=round(cores, 2))
    pipeline.stop()
    assert min(rates.values()) > 0.99 * fps
    assert not drops


def test_the_hand_over_of_a_1080p_picture_takes_half_a_millisecond() -> None:
    """From the end of decoding in the child to an array in the parent."""
    camera = ChaosCamera((1920, 1080))
    source = IsolatedSource(camera.url, deadlines=Deadlines(open_s=30))
    spent_ms = []
    for _ in range(200):
        picture = source.read()
        assert picture is not None
        spent_ms.append((time.monotonic_ns() - source.captured_ns) / 1e6)
    source.close()
    camera.close()
    report(
        "hand_over_1080p",
        median_ms=round(float(np.median(spent_ms)), 3),
        p90_ms=round(float(np.percentile(spent_ms, 90)), 3),
    )
    assert np.median(spent_ms) < 0.5
