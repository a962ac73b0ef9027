"""Two openings of one camera on one time: by its own clock where it tells it, else by the least lag."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge.video.event_clock import MAX_LAG_NS, AnalysedTimes, EventClock, PictureLag, PlacedPackets
from edge.video.packets import PacketForm, PacketTaker, SourcePacket

S, MS = 10**9, 10**6
FORM = PacketForm("h264", 64, 48, b"")
# 2026 by the camera's clock at the monotonic time 0
CAMERA_NS = 1_795_000_000 * S


class Collector(PacketTaker):
    def __init__(self) -> None:
        self.times: list[int] = []

    def begin(self, form: PacketForm) -> None:
        pass

    def take(self, packet: SourcePacket) -> None:
        assert packet.time_ns == packet.arrived_ns
        self.times.append(packet.time_ns)


def packet(taken_ns: int, lag_ns: int, *, is_stated: bool) -> SourcePacket:
    """Of a picture that was taken at this monotonic time and arrived so much later."""
    camera_ns = CAMERA_NS + taken_ns if is_stated else 0
    ticks = taken_ns * 90_000 // S
    return SourcePacket(b"", ticks, ticks, True, 0, taken_ns + lag_ns, camera_ns=camera_ns)


@given(st.lists(st.integers(0, 400), min_size=1, max_size=50), st.integers(0, 100))
def test_by_the_cameras_clock_both_are_placed_alike_however_late_one_is(lags_ms: list[int], lag_ms: int) -> None:
    clock, found = EventClock(), Collector()
    analysed, recorded = AnalysedTimes(clock), PlacedPackets(found, clock)
    recorded.begin(FORM)
    for number, late_ms in enumerate(lags_ms):
        taken_ns = S + number * 50 * MS
        analysed.take(packet(taken_ns, lag_ms * MS, is_stated=True))
        recorded.take(packet(taken_ns, late_ms * MS, is_stated=True))
    expected = [S + number * 50 * MS + lag_ms * MS for number in range(len(lags_ms))]
    assert all(abs(ours - right) <= 1000 for ours, right in zip(found.times, expected, strict=True))


def test_without_the_cameras_clock_a_late_packet_is_placed_where_it_would_have_come() -> None:
    clock, found = EventClock(), Collector()
    recorded = PlacedPackets(found, clock)
    recorded.begin(FORM)
    for number, late_ms in enumerate((20, 20, 300, 20)):
        recorded.take(packet(S + number * 50 * MS, late_ms * MS, is_stated=False))
    assert [round(time_ns / MS) for time_ns in found.times] == [1020, 1070, 1120, 1170]


def test_a_clock_that_drifts_is_followed_within_a_minute() -> None:
    clock, found = EventClock(), Collector()
    recorded = PlacedPackets(found, clock)
    recorded.begin(FORM)
    # the camera's crystal is 200 ppm slow: its lag grows by 12 ms a minute
    for second in range(600):
        recorded.take(packet(S + second * S, 20 * MS + second * 200_000, is_stated=False))
    assert abs(found.times[-1] - (600 * S + 20 * MS + 599 * 200_000)) <= 13 * MS


def test_a_camera_whose_clock_is_set_is_followed_at_once() -> None:
    clock, found = EventClock(), Collector()
    analysed, recorded = AnalysedTimes(clock), PlacedPackets(found, clock)
    recorded.begin(FORM)
    for step_ns in (0, 3600 * S):
        for number in range(3):
            taken_ns = S + number * 50 * MS
            stated = CAMERA_NS + taken_ns + step_ns
            analysed.take(SourcePacket(b"", 0, 0, True, 0, taken_ns, camera_ns=stated))
            recorded.take(SourcePacket(b"", 0, 0, True, 0, taken_ns, camera_ns=stated))
            assert found.times[-1] == taken_ns


def test_a_clock_that_lies_moves_no_packet_far_from_its_arrival() -> None:
    clock, found = EventClock(), Collector()
    AnalysedTimes(clock).take(packet(S, 0, is_stated=True))
    recorded = PlacedPackets(found, clock)
    recorded.begin(FORM)
    recorded.take(SourcePacket(b"", 90_000, 90_000, True, 0, S, camera_ns=CAMERA_NS + S + 2 * MAX_LAG_NS))
    assert found.times == [S]


def test_sound_comes_with_the_picture_that_was_taken_with_it_however_long_decoding_takes() -> None:
    lag = PictureLag()
    assert lag.with_picture(0) is None
    for number in range(200):
        taken_ns = number * 40_000_000
        # one in five arrives without delay, and decoding takes 30 ms
        arrived_ns = 10**9 + taken_ns + (number % 5) * 5_000_000
        lag.note(number * 3600, arrived_ns)
        lag.note_picture(number * 3600, arrived_ns + 30_000_000)
    due_ns, shown_ns = lag.with_picture(720_000), 10**9 + 8 * 10**9 + 40_000_000
    assert due_ns is not None and abs(due_ns - shown_ns) < 5_000_000
