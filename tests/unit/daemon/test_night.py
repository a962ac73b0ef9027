"""When a shift begins, waits and ends: by the clock, the heat, and orders. The process is the real one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from waiting import wait_until

from edge.config.load import parse_config
from edge.config.night import NightSettings
from edge.daemon.night import ORDER, Around, NightShift
from edge.diagnose.gpu_stats import DeviceFacts
from edge.files import load_object
from edge.night.shift import MAX_TRIES, Job, Progress, report_of, write_json
from edge.types import Event


@dataclass
class Site:
    """A daemon's surroundings: the clock and the heat are the test's."""

    folder: Path
    clock: datetime = datetime(2026, 11, 30, 12, 0)
    heat_c: float = 40.0
    events: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        config = parse_config(
            {
                "model": {"path": str(self.folder / "m.onnx")},
                "streams": [{"name": "door", "source": "rtsp://camera"}],
                "night": {"teachers": ["t.onnx"], "sealed": ["coco:s.json"], "window": "23:00-04:00"},
            },
            where="edge.toml",
        )
        operations: Any = SimpleNamespace(configured_model=lambda _: self.folder / "m.onnx")
        run: Any = SimpleNamespace(config=config)
        around = Around(lambda: self.clock, lambda: DeviceFacts(temperature_c=self.heat_c), self.events.append)
        self.night = self.folder / "night"
        self.night.mkdir()
        self.shift = NightShift(run, operations, self.night, around)
        self.never = threading.Event()

    def look(self, at: str = "", heat_c: float | None = None) -> str:
        """Look once; what is done then."""
        if at:
            self.clock = datetime.fromisoformat(f"2026-{at}")
        self.heat_c = self.heat_c if heat_c is None else heat_c
        self.shift.look(self.never)
        return str(load_object(self.night / "state.json").get("phase", ""))

    def order(self, order: str) -> None:
        write_json(self.night / ORDER, {"order": order})

    @property
    def process_state(self) -> str:
        """R, S, D, T (held) as the kernel has it."""
        process = self.shift._process
        assert process is not None
        return Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2][0]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    if made.shift._process is not None:
        made.shift._process.stop()


def test_a_shift_begins_with_its_window_and_ends_with_it(site: Site) -> None:
    assert site.look("11-30T22:59:00") == "waiting"
    assert Job.read(site.night) is None
    assert site.look("11-30T23:00:00") == "working"
    assert site.look("12-01T04:00:00") == "waiting"
    assert load_object(site.night / "state.json")["reason"] == "the window has closed"
    job = Job.read(site.night)
    assert job is not None
    # what was begun goes on in the next window
    assert site.look("12-01T23:30:00") == "working"
    assert Job.read(site.night) == job


def test_a_hot_device_holds_the_shift_until_it_is_cool(site: Site) -> None:
    site.look("11-30T23:00:00")
    assert site.look(heat_c=90) == "paused"
    # a signal reaches a process that runs a moment later
    wait_until(lambda: site.process_state == "T")
    assert site.look(heat_c=80) == "paused"
    assert site.look(heat_c=70) == "working"
    wait_until(lambda: site.process_state != "T")


def test_orders_begin_and_end_a_shift_outside_the_window(site: Site) -> None:
    assert site.look("11-30T12:00:00") == "waiting"
    site.order("run")
    assert site.look() == "working"
    assert site.look() == "working"
    site.order("stop")
    assert site.look() == "waiting"
    assert site.look() == "waiting"
    site.order("dance")
    assert site.look() == "waiting"
    assert not (site.night / ORDER).exists()


def test_one_window_is_one_shift(site: Site) -> None:
    site.look("11-30T23:10:00")
    site.order("stop")
    site.look()
    (site.night / "work" / "job.json").unlink()
    assert site.look("12-01T03:00:00") == "waiting"
    assert Job.read(site.night) is None
    assert site.look("12-01T23:00:00") == "working"


def test_a_shift_that_kills_its_process_again_and_again_is_given_up(site: Site) -> None:
    site.look("11-30T23:00:00")
    job = Job.read(site.night)
    assert job is not None
    for tries in (1, MAX_TRIES):
        site.look()
        process = site.shift._process
        assert process is not None
        process.stop()
        Progress(tries).write(site.night)
        site.look()
    found = report_of(site.night, job.night)
    assert found is not None
    assert found["outcome"] == "dropped"
    assert [(event.kind, event.stream) for event in site.events] == [("night_report", "door")]
    assert not (site.night / "work").exists()


@pytest.mark.parametrize(
    ("window", "at", "is_open"),
    [
        ("01:00-05:00", time(1, 0), True),
        ("01:00-05:00", time(5, 0), False),
        ("23:00-04:00", time(23, 30), True),
        ("23:00-04:00", time(3, 59), True),
        ("23:00-04:00", time(12, 0), False),
        ("00:00-00:00", time(12, 0), True),
    ],
)
def test_windows_may_pass_midnight(window: str, at: time, is_open: bool) -> None:
    settings = NightSettings(teachers=(Path("t.onnx"),), sealed=("coco:s.json",), window=window)
    assert settings.is_open(at) == is_open
