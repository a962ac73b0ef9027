"""One time for what two openings of the same camera send: that at which the analysed packets arrive.

Where the camera states when it took each picture (RTCP sender reports), both are placed by its own clock. Where it does
not, a picture is placed where its packet would have arrived without delay: the least lag of the last minute.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from edge.video.packets import PacketForm, PacketTaker, SoundLevel, SourcePacket, Wanted

NS_PER_S = 1_000_000_000
TICKS_PER_S = 90_000
# the lag of one packet counts so little that a late one moves nobody
SMOOTHING = 16
# a larger difference is no lag: the camera's clock was set, or its times began again
STEP_NS = NS_PER_S
# what is placed farther than this from its arrival is placed by that: no camera's clock sends a recording elsewhere
MAX_LAG_NS = 5 * NS_PER_S
WINDOW_NS = 30 * NS_PER_S
# between the decoder and the recording
MAX_PICTURES = 256
# pictures over which it is averaged how late they are
NUM_LATE = 64


class EventClock:
    """The camera's clock against ``time.monotonic_ns()``. Its writer is the thread of the analysed packets."""

    def __init__(self) -> None:
        self._offset_ns: int | None = None
        self._last: SourcePacket | None = None
        # of the newest pictures: when each came from the decoder, and when it was taken
        self._taken: deque[tuple[int, int]] = deque(maxlen=MAX_PICTURES)

    def note(self, packet: SourcePacket) -> None:
        """A packet of what is analysed has arrived; its picture follows it."""
        self._last = packet
        if not packet.camera_ns:
            return
        offset_ns, known_ns = packet.arrived_ns - packet.camera_ns, self._offset_ns
        if known_ns is None or abs(offset_ns - known_ns) > STEP_NS:
            self._offset_ns = offset_ns
        else:
            self._offset_ns = known_ns + (offset_ns - known_ns) // SMOOTHING

    def note_picture(self, captured_ns: int) -> None:
        """A picture of what is analysed came from the decoder: that of the last packet."""
        packet = self._last
        if packet is not None:
            stated_ns = self.at(packet.camera_ns)
            self._taken.append((captured_ns, packet.arrived_ns if stated_ns is None else stated_ns))

    def taken_ns(self, captured_ns: int) -> int:
        """When the picture that came then was taken, however long the decoder took for it; any thread may ask."""
        return next((taken for captured, taken in reversed(tuple(self._taken)) if captured == captured_ns), captured_ns)

    def at(self, camera_ns: int) -> int | None:
        """The monotonic time of a moment of the camera's clock (0: not said); None where it is not known."""
        return None if self._offset_ns is None or not camera_ns else camera_ns + self._offset_ns


class AnalysedTimes(PacketTaker):
    """Takes the packets that are analysed, for their times alone."""

    def __init__(self, clock: EventClock) -> None:
        self._clock = clock

    @property
    def wanted(self) -> Wanted:
        return Wanted.PICTURES

    @property
    def is_patient(self) -> bool:
        # it comes with its picture at the latest
        return True

    def begin(self, form: PacketForm) -> None:
        pass

    def take(self, packet: SourcePacket) -> None:
        self._clock.note(packet)


class PlacedPackets(PacketTaker):
    """Takes the packets of another opening and passes them on with the times of the analysed one.

    Args:
        taker: gets them, ``time_ns`` and ``arrived_ns`` set.
        clock: of the camera.
    """

    def __init__(self, taker: PacketTaker, clock: EventClock) -> None:
        self._taker = taker
        self._clock = clock
        self._lag = LeastLag()

    @property
    def wanted(self) -> Wanted:
        return self._taker.wanted

    @property
    def is_patient(self) -> bool:
        return self._taker.is_patient

    def begin(self, form: PacketForm) -> None:
        self._lag = LeastLag()
        self._taker.begin(form)

    def hear(self, level: SoundLevel) -> None:
        self._taker.hear(level)

    def take(self, packet: SourcePacket) -> None:
        self._taker.take(self._placed(packet))

    def take_group(self, packets: Sequence[SourcePacket]) -> None:
        self._taker.take_group([self._placed(packet) for packet in packets])

    def _placed(self, packet: SourcePacket) -> SourcePacket:
        time_ns = self._lag.place(packet.pts, packet.arrived_ns)
        stated_ns = self._clock.at(packet.camera_ns)
        if stated_ns is not None and abs(stated_ns - packet.arrived_ns) <= MAX_LAG_NS:
            time_ns = stated_ns
        # for every packet of a camera: dataclasses.replace takes three times as long
        facts = packet.lost_before, packet.camera_ns, packet.is_sound
        return SourcePacket(packet.data, packet.pts, packet.dts, packet.is_key, time_ns, time_ns, *facts)


class LeastLag:
    """How far arrivals lie behind media time at least, over the last 30 to 60 s: clocks drift, so old ones go."""

    def __init__(self) -> None:
        self._before_ns: int | None = None
        self._least_ns: int | None = None
        self._since_ns = 0

    def place(self, pts: int, arrived_ns: int) -> int:
        """When a packet with this time would have arrived without delay, monotonic ns. Args: ticks; when it arrived."""
        self.note(pts, arrived_ns)
        placed_ns = self.at(pts)
        assert placed_ns is not None
        return placed_ns

    def note(self, pts: int, arrived_ns: int) -> None:
        """A packet with this time arrived then."""
        lag_ns = arrived_ns - _media_ns(pts)
        if self._least_ns is None or abs(lag_ns - self._least_ns) > MAX_LAG_NS:
            self._before_ns, self._least_ns, self._since_ns = None, lag_ns, arrived_ns
        elif arrived_ns - self._since_ns > WINDOW_NS:
            self._before_ns, self._least_ns, self._since_ns = self._least_ns, lag_ns, arrived_ns
        self._least_ns = min(self._least_ns, lag_ns)

    def at(self, pts: int) -> int | None:
        """When a packet with this time would arrive without delay; None before any arrived."""
        if self._least_ns is None:
            return None
        return _media_ns(pts) + min(self._least_ns, self._least_ns if self._before_ns is None else self._before_ns)


class PictureLag(LeastLag):
    """When what was taken with a picture is due, if it is to come with it: jitter and decoding are in that."""

    def __init__(self) -> None:
        super().__init__()
        self._late_ns = self._num = 0

    def note_picture(self, pts: int, now_ns: int) -> None:
        """The picture with this time came from the decoder now."""
        placed_ns = self.at(pts)
        if placed_ns is not None and 0 <= now_ns - placed_ns <= MAX_LAG_NS:
            # the mean of the last seconds: one that is late moves no sound
            self._num = min(self._num + 1, NUM_LATE)
            self._late_ns += (now_ns - placed_ns - self._late_ns) // self._num

    def with_picture(self, pts: int) -> int | None:
        """When a picture with this time comes from the decoder, as a rule; None before any packet arrived."""
        placed_ns = self.at(pts)
        return None if placed_ns is None else placed_ns + self._late_ns


def _media_ns(pts: int) -> int:
    return pts * NS_PER_S // TICKS_PER_S
