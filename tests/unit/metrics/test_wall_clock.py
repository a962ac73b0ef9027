"""Wall times follow a clock that is corrected while the daemon runs, and tremble for nothing less."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from edge.events.outbox import Outbox
from edge.events.schema import Envelope, EnvelopeMaker
from edge.events.stored import OutboxLimits
from edge.metrics.clock import WallClock
from edge.types import Event

S = 1_000_000_000
DAY = 86_400 * S
BOOT_1971, NTP_2026 = 366 * DAY, 20_666 * DAY


class Device:
    """A device whose wall clock is set by the test; ``mono_ns`` goes on by itself only when told."""

    def __init__(self) -> None:
        self.mono_ns = 5 * S
        self.offset_ns = BOOT_1971

    def wall_ns(self) -> int:
        return self.mono_ns + self.offset_ns

    def clock(self) -> WallClock:
        return WallClock(now_ns=lambda: self.mono_ns, measure_ns=lambda: self.offset_ns)


def test_times_follow_a_clock_that_ntp_has_set() -> None:
    device = Device()
    clock = device.clock()
    assert clock.iso(device.mono_ns).startswith("1971-")
    device.offset_ns = NTP_2026
    device.mono_ns += 2 * S
    assert clock.iso(device.mono_ns).startswith("2026-")
    # what was captured before the step gets the right time too
    assert clock.iso(6 * S).startswith("2026-")


@pytest.mark.parametrize("jitter_ns", [-90_000_000, 3_000, 90_000_000])
def test_what_is_no_step_moves_no_time(jitter_ns: int) -> None:
    device = Device()
    clock = device.clock()
    before = clock.iso(6 * S)
    device.offset_ns += jitter_ns
    device.mono_ns += 10 * S
    assert clock.iso(6 * S) == before


def test_the_offset_of_a_replay_stays() -> None:
    clock = WallClock(0)
    assert clock.offset_ns == 0
    assert clock.iso(time.monotonic_ns()).startswith("1970-")


def test_events_are_dated_by_the_corrected_clock() -> None:
    device = Device()
    maker = EnvelopeMaker("run", device.clock())
    device.offset_ns = NTP_2026
    device.mono_ns += 2 * S
    envelope = maker.make(Event("camera_offline", "door", device.mono_ns), None, 0, None, {})
    assert json.loads(envelope.body)["time"].startswith("2026-")
    assert envelope.time_ns == device.wall_ns()


def test_the_history_of_a_device_that_booted_in_1971_does_not_empty_itself(tmp_path: Path) -> None:
    device = Device()
    limits = OutboxLimits(max_age_days=14)
    outbox = Outbox(tmp_path / "e.db", ["a"], limits, device.wall_ns, lambda: device.mono_ns)
    outbox.put([Envelope(f"old-{n}", "tick", "door", device.wall_ns(), "{}") for n in range(3)])
    outbox.acknowledge("a", 3)
    device.offset_ns = NTP_2026
    for minutes in range(5):
        device.mono_ns += 61 * S
        outbox.put([Envelope(f"new-{minutes}", "tick", "door", device.wall_ns(), "{}")])
    assert outbox.counts()["kept"] == 8
    # and they grow old as others do
    device.mono_ns += 15 * DAY
    outbox.put([Envelope("late", "tick", "door", device.wall_ns(), "{}")])
    assert [event.id for event in outbox.recent(9)] == ["late", *[f"new-{n}" for n in range(4, -1, -1)]]
    outbox.close()
