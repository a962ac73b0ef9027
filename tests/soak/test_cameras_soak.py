"""Cameras for many minutes: a thousand reconnects, a thousand cameras that come and go, faults for a quarter hour.

Shorter: EDGE_SOAK_SHARE=0.1 runs a tenth of each.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from camera_rig import (
    SYNTHETIC,
    RtspServer,
    emitted,
    holdings,
    memory_growth,
    null_pipeline,
    unaccounted,
    wait_for,
)

from edge.chaos.camera import FAULTS, ChaosCamera
from edge.chaos.drills import run_drills
from edge.pipeline import Pipeline
from edge.sources.deadlines import Deadlines
from edge.sources.isolation.source import IsolatedSource

pytestmark = [pytest.mark.soak, pytest.mark.timeout(7200)]
SHARE = float(os.environ.get("EDGE_SOAK_SHARE", "1"))


@pytest.fixture(autouse=True)
def no_log() -> Iterator[None]:
    """Pytest keeps every log record of a test, which would be measured as growth."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def server() -> Iterator[RtspServer]:
    running = RtspServer()
    yield running
    running.kill()


def report(name: str, **figures: object) -> None:
    """For docs/guarantees.md."""
    print(f"\n{name}: {json.dumps(figures)}", flush=True)


def dropped(pipeline: Pipeline) -> int:
    counts = [stream.metrics.counters.snapshot() for stream in pipeline.streams.values()]
    return sum(number for count in counts for cause, number in count.items() if cause.startswith("drop_"))


def grown(first: dict[str, int], last: dict[str, int]) -> list[str]:
    return [name for name in ("threads", "fds", "children") if last[name] > first[name]]


def slope_per_hour(seconds: list[float], values: list[float]) -> tuple[float, float]:
    """Growth per hour of a straight line through the values, and its standard error."""
    x = np.array(seconds) / 3600
    (slope, _), covariance = np.polyfit(x, values, 1, cov=True)
    return float(slope), float(np.sqrt(covariance[0, 0]))


class Machine:
    """Processor time since it was made: ours, and that of everybody."""

    def __init__(self) -> None:
        self._process_s, self._started = time.process_time(), time.monotonic()
        self._times = psutil.cpu_times()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    @property
    def our_cores(self) -> float:
        return (time.process_time() - self._process_s) / self.seconds

    @property
    def other_cores(self) -> float:
        """What other programs and our children took; where that is much, a clock on the wall measures them."""
        now, then = psutil.cpu_times(), self._times
        busy_s = sum(now) - sum(then) - (now.idle - then.idle) - (now.iowait - then.iowait)
        return busy_s / self.seconds - self.our_cores


@pytest.mark.real_server
def test_a_thousand_reconnects_leave_everything_flat(server: RtspServer, tmp_path: Path) -> None:
    """All consumers: results (JSONL), a snapshot, and a recording, which must grow again each time."""
    pipeline = null_pipeline(
        tmp_path,
        [server.url],
        stall_timeout_s=2,
        retry_base_s=0.05,
        retry_cap_s=0.1,
        sinks=[f"jsonl:{tmp_path}/out.jsonl", f"snapshot:{tmp_path}"],
        record={"folder": tmp_path / "recordings", "segment_s": 60, "max_gb": 0.01},
    )
    pipeline.start()
    (stream,) = pipeline.streams.values()
    recording = pipeline.outputs.recordings["cam0"]

    def num_recorded() -> int:
        return int(str(recording.stats().get("frames", 0)))

    wait_for(lambda: stream.metrics.counters["emitted"] > 3 and num_recorded() > 3, 30, "first pictures")
    held, back_s, recorded_s = [], [], []
    for _ in range(round(1000 * SHARE)):
        server.kill()
        wait_for(lambda: stream.status.state in ("backing_off", "connecting"), 20, "the loss is noticed")
        last, last_recorded = stream.metrics.counters["emitted"], num_recorded()
        server.start()
        back_s.append(
            wait_for(lambda last=last: stream.metrics.counters["emitted"] > last, 30, "pictures after the restart")
        )
        more_s = wait_for(lambda last=last_recorded: num_recorded() > last, 30, "the recording goes on")
        recorded_s.append(back_s[-1] + more_s)
        held.append(holdings())
        if len(held) % 100 == 0:
            report("reconnects so far", count=len(held), back_median_s=round(float(np.median(back_s)), 2), **held[-1])
    warm, growth = held[len(held) // 10], memory_growth(held)
    median_s, high_s = (round(float(value), 2) for value in np.percentile(back_s, (50, 99)))
    report(
        "reconnects",
        count=len(held),
        back_median_s=median_s,
        back_p99_s=high_s,
        recorded_median_s=round(float(np.median(recorded_s)), 2),
        first=warm,
        last=held[-1],
        rss_growth=round(growth, 4),
    )
    assert pipeline.stop()
    assert not any(unaccounted(pipeline).values())
    assert not grown(warm, held[-1])
    assert growth < 0.02
    assert np.median(back_s) < 2
    assert np.median(recorded_s) < 2


def test_a_thousand_cameras_come_and_go(tmp_path: Path) -> None:
    pipeline = null_pipeline(tmp_path, [SYNTHETIC.format(seed=0, fps=20)])
    pipeline.start()
    guest = pipeline.config.streams[0].model_copy(update={"name": "guest"})
    held = []
    for _ in range(round(1000 * SHARE)):
        stream = pipeline.add_stream(guest)
        wait_for(lambda stream=stream: stream.metrics.counters["emitted"] > 0, 20, "a picture of the guest")
        assert pipeline.remove_stream("guest")
        held.append(holdings())
    warm, growth = held[len(held) // 10], memory_growth(held)
    report("add_remove", count=len(held), first=warm, last=held[-1], rss_growth=round(growth, 4))
    assert pipeline.stop()
    assert not grown(warm, held[-1])
    assert growth < 0.02


def test_faults_for_a_quarter_of_an_hour_leave_the_memory_flat() -> None:
    """All faults again and again, each round with a new pipeline; a new pipeline must not need more than the last.

    What is free goes back to the system before it is weighed: threads that come and go spread over the allocator's
    arenas (eight per core), and each of them keeps once what the cameras' encoders took, which is no leak.
    """
    warm_s, soak_s = 120 * SHARE, 1080 * SHARE
    give_back = ctypes.CDLL(None).malloc_trim
    faults = FAULTS if SHARE >= 1 else ("refuse", "flood", "size_change")
    machine, seconds, rss_mb, untrimmed_mb, verdicts, first = Machine(), [], [], [], [], {}
    while machine.seconds < soak_s or len(rss_mb) < 6:
        verdicts += run_drills(faults, seconds=3.0)
        untrimmed_mb.append(holdings()["rss_kb"] / 1024)
        give_back(0)
        last = holdings()
        first = first or last
        seconds.append(machine.seconds)
        rss_mb.append(last["rss_kb"] / 1024)
    num_warm = min(sum(second < warm_s for second in seconds), len(seconds) - 5)
    slope, error = slope_per_hour(seconds[num_warm:], rss_mb[num_warm:])
    failures = [str(verdict) for verdict in verdicts if not verdict.has_passed]
    others = machine.other_cores
    report(
        "soak",
        minutes=round((seconds[-1] - seconds[num_warm]) / 60, 1),
        rounds=len(rss_mb),
        drills=len(verdicts),
        failures=failures,
        cores_of_others=round(others, 2),
        rss_mb=[round(value, 1) for value in rss_mb],
        untrimmed_mb=[round(value, 1) for value in untrimmed_mb],
        slope_mb_per_h=round(slope, 2),
        error=round(error, 2),
        first=first,
        last=last,
    )
    assert not grown(first, last)
    grown_mb = slope * (seconds[-1] - seconds[num_warm]) / 3600
    assert slope < 2 * error or grown_mb < 0.005 * rss_mb[-1]
    # a machine that others use to the full starves a neighbour now and then
    assert len(failures) <= (0 if others < 0.5 else 0.02 * len(verdicts))


def test_sixteen_cameras_of_720p15_lose_no_frame(tmp_path: Path) -> None:
    """On two cores; where other programs leave less than that, by the processor time of a frame."""
    num, fps, window_s = 16, 15, 20.0
    source = "synthetic://street?size=1280x720&objects=2&live=1&fps=15&seed={seed}"
    pipeline = null_pipeline(tmp_path, [source.format(seed=index) for index in range(num)], max_batch=16)
    pipeline.start()
    wait_for(lambda: min(emitted(pipeline).values()) >= fps, 120, "all cameras deliver")
    before, lost, machine = emitted(pipeline), dropped(pipeline), Machine()
    time.sleep(window_s)
    spent_s, cores, others = machine.seconds, machine.our_cores, machine.other_cores
    counts = {name: count - before[name] for name, count in emitted(pipeline).items()}
    rates = [count / spent_s for count in counts.values()]
    drops = dropped(pipeline) - lost
    pipeline.stop()
    cores_needed = cores * spent_s / sum(counts.values()) * num * fps
    report(
        "sixteen_720p15",
        least_fps=round(min(rates), 2),
        drops=drops,
        cores_used=round(cores, 2),
        cores_needed=round(cores_needed, 2),
        cores_of_others=round(others, 2),
    )
    assert not any(unaccounted(pipeline).values())
    if cores < 0.5 and others > 1:
        pytest.skip(f"other programs left {cores:.2f} cores, on which threads mostly wait for each other")
    assert cores_needed < 2
    if others < 0.2:
        assert min(rates) > 0.99 * fps
        assert not drops


def test_the_hand_over_of_a_1080p_picture_takes_half_a_millisecond() -> None:
    """From the end of decoding in the child to an array in the parent; on a busy machine, of the least disturbed."""
    camera = ChaosCamera((1920, 1080))
    source = IsolatedSource(camera.url, deadlines=Deadlines(open_s=30))
    spent_ms, machine = [], Machine()
    for _ in range(200):
        # giving the last one back is no part of it: in the line another thread does so
        picture = None
        picture = source.read()
        assert picture is not None
        spent_ms.append((time.monotonic_ns() - source.captured_ns) / 1e6)
    others = machine.other_cores
    source.close()
    camera.close()
    low_ms, median_ms, high_ms = (round(float(value), 3) for value in np.percentile(spent_ms, (5, 50, 90)))
    report("hand_over_1080p", p5_ms=low_ms, median_ms=median_ms, p90_ms=high_ms, cores_of_others=round(others, 2))
    assert (median_ms if others < 0.5 else low_ms) < 0.5
