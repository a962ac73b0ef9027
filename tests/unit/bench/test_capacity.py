"""The capacity answer: what it makes of a measurement."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edge.bench.capacity import Capacity

CAPACITY = Capacity(
    num_cores=2,
    fps=100.0,
    cpu_ms_per_frame=15.0,
    shares={"the processor": 0.8, "inference": 0.95, "output of a": 0.2},
    others=0.0,
    streams={},
    mb_per_camera=200.0,
    mb_left=3000.0,
)


@pytest.mark.parametrize(("fps", "num_cameras"), [(5, 15), (10, 8), (15, 5), (25, 3), (30, 2), (90, 0)])
def test_cameras_fit_by_time_with_headroom_and_by_memory(fps: float, num_cameras: int) -> None:
    assert CAPACITY.num_cameras(fps) == num_cameras
    assert CAPACITY.is_bound_by_memory(fps) is (fps == 5)


def test_what_is_busiest_is_the_bottleneck() -> None:
    assert CAPACITY.bottleneck == "inference"
    assert "INT8" in CAPACITY.advice
    slow = replace(CAPACITY, shares={**CAPACITY.shares, "output of a": 0.99})
    assert slow.bottleneck == "output of a"
    assert "sinks" in slow.advice


def test_a_model_server_is_counted_in_servers() -> None:
    """100 frames/s keep it 60 % busy: 40 cameras at 10 fps are 400, and 15 % stay free."""
    measured = replace(CAPACITY, shares={**CAPACITY.shares, "server of street": 0.6})
    assert measured.servers == ["server of street"]
    assert measured.num_servers("server of street", 40, 10) == pytest.approx(2.4 / 0.85)
    assert measured.as_json()["servers"]["server of street"]["10 fps"] == 2.82
    full = replace(measured, shares={"server of street": 0.99, "inference": 0.2})
    assert full.bottleneck == "server of street"
    assert "instances" in full.advice


def test_no_memory_is_no_camera() -> None:
    assert replace(CAPACITY, mb_left=0.0).num_cameras(5) == 0


LARGE = replace(CAPACITY, num_cores=16, cpu_ms_per_frame=10.0, mb_left=1e6, mb_per_worker=300.0)


def test_workers_take_what_the_processor_has_left() -> None:
    # 16 cores give 16 * 100 / 1.22 frames per second, of which 85 % are planned with; one process takes 100
    assert LARGE.with_workers(10) == (111, 14)
    assert LARGE.with_workers(30) == (37, 19)


def test_workers_end_where_the_gpu_or_the_memory_does() -> None:
    assert replace(LARGE, gpu_load=0.25).with_workers(10) == (34, 5)
    cameras, workers = replace(LARGE, mb_left=5000.0).with_workers(10)
    assert 5000 - 200 < 200 * cameras + 300 * (workers + 1) <= 5000


def test_where_one_process_fills_the_machine_there_is_one() -> None:
    assert replace(CAPACITY, num_cores=1).with_workers(10) == (CAPACITY.num_cameras(10), 1)
