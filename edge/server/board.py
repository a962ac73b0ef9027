"""The board between the output workers, which publish results, and the server, which shows them.

Every viewer has one slot: it takes the newest picture whenever it is ready, what it missed is counted, and nobody waits
for it. A picture is drawn and encoded once however many look, and not at all while nobody does. The page draws for
itself: it takes plain pictures, made at the width that it shows them in, and lines with all that is to be drawn. Video
is made elsewhere: ``listen_pictures`` gives the pictures as they are.
Shape letters: H W frame pixels.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edge.metrics.delay import Delay
from edge.server.published import DRAWN, JPEG_QUALITY, NEVER_NS, NOBODY, Demand, Made, Plain, make, width_step

if TYPE_CHECKING:
    from edge.pictures.planes import Planes
    from edge.types import UInt8
    from edge.video.packets import PacketTap

MAX_EVENTS = 200
# fits the integers of JavaScript with room to count
NUMBER_BITS = 48


@dataclass(frozen=True, slots=True)
class Shown:
    """One published frame.

    Attributes:
        number: on the board, from 1.
        result: the JSONL line.
        jpegs: its pictures by width, see ``Made``.
        marks: the line for who draws for itself; empty where nobody does.
        time_ns: when it was shown, monotonic: the time that its picture has in a video.
    """

    number: int
    result: bytes
    jpegs: Mapping[int, bytes] = field(default_factory=dict)
    marks: bytes = b""
    time_ns: int = 0

    @property
    def jpeg(self) -> bytes | None:
        """The annotated picture, if it was drawn."""
        return self.jpegs.get(DRAWN)


@dataclass(slots=True, eq=False)
class Viewer:
    """Somebody who watches one stream. Taken from ``LiveBoard.watch`` and given back with ``LiveBoard.leave``.

    Attributes:
        stream: what is watched.
        has_pictures: whether pictures are wanted as well as the results.
        is_video: whether the pictures go to ``listen_pictures`` instead of being taken as JPEG.
        period_ns: least time between two frames, 0 for every frame.
        width: 0 for annotated pictures; who draws for itself gets plain ones, at about this width in pixels.
        num_taken, num_missed: frames since the viewer came.
    """

    stream: str
    has_pictures: bool
    period_ns: int
    is_video: bool = False
    width: int = DRAWN
    num_taken: int = 0
    num_missed: int = 0
    last_number: int = 0
    next_ns: int = 0


@dataclass(slots=True)
class _Channel:
    """What the board knows of one stream. ``num_events`` counts all events ever."""

    info: Mapping[str, Any]
    viewers: set[Viewer] = field(default_factory=set)
    latest: Shown | None = None
    pictures: dict[int, Shown] = field(default_factory=dict)
    events: deque[tuple[int, bytes]] = field(default_factory=lambda: deque(maxlen=MAX_EVENTS))
    num_published: int = 0
    num_encoded: int = 0
    num_missed: int = 0
    num_events: int = 0
    sound: PacketTap | None = None
    delay: Delay = field(default_factory=Delay)


class LiveBoard:
    """Thread-safe. Streams are added before anything is published or watched.

    Events and revisions are numbered on from a random number of the run: a client that comes back after a restart names
    what it has seen of the run before, and must not be taken for one of this run.

    Args:
        clock_ns: monotonic clock.
        quality: of the JPEG pictures, 1 to 100.
    """

    def __init__(self, *, clock_ns: Callable[[], int] = time.monotonic_ns, quality: int = JPEG_QUALITY) -> None:
        self._clock_ns = clock_ns
        self._quality = quality
        self._lock = threading.Lock()
        self._channels: dict[str, _Channel] = {}
        self._on_change: Callable[[str], None] | None = None
        self._on_picture: Callable[[str, UInt8 | Planes, int], None] | None = None
        self._on_demand: Callable[[str, Demand], None] | None = None
        self._removed: frozenset[str] = frozenset()
        # not the time: without a battery clock a device may begin every run at the same one
        self._num_before = secrets.randbits(NUMBER_BITS)
        self.revision = self._num_before

    @property
    def streams(self) -> tuple[str, ...]:
        return tuple(name for name in self._channels if name not in self._removed)

    def add_stream(self, name: str, info: Mapping[str, Any]) -> None:
        """Announce a stream; of one that is known, other facts.

        Args:
            name: of the stream.
            info: JSON values for the page, without credentials: ``source``, ``width``, ``height``, ``fps``,
                ``model``, a table that is shown as the model card, and ``roi`` and ``rotate`` as they are configured,
                from which the page tells where a mask that is drawn lies in the camera's own picture.
        """
        with self._lock:
            self._removed -= {name}
            self.revision += 1
            if name in self._channels:
                self._channels[name].info = info
            else:
                self._channels[name] = _Channel(info)

    def remove_stream(self, name: str) -> None:
        """Show a stream no more; who watches it sees nothing new."""
        with self._lock:
            self._removed |= {name}
            self.revision += 1

    def info(self, stream: str) -> Mapping[str, Any]:
        return self._channels[stream].info

    def set_sound(self, stream: str, sound: PacketTap | None) -> None:
        """Where a stream's sound is to be had; None: nobody may hear it."""
        with self._lock:
            if stream in self._channels:
                self._channels[stream].sound = sound

    def sound(self, stream: str) -> PacketTap | None:
        """Gives the sound of a stream that is shown; None where nobody may hear it."""
        return self._channels[stream].sound if stream in self.streams else None

    def delay_ns(self, stream: str) -> int:
        """How long after it was captured a picture is shown."""
        return self._channels[stream].delay.ns

    def listen(self, on_change: Callable[[str], None] | None) -> None:
        """Call this with the stream's name, from the publishing thread, after every frame that somebody watches."""
        self._on_change = on_change

    def listen_pictures(self, on_picture: Callable[[str, UInt8 | Planes, int], None] | None) -> None:
        """Call this from the publishing thread with the pictures of streams that a video viewer watches.

        It gets the stream's name, the picture, which it may keep and not change, and the monotonic time in ns; it must
        not wait. The annotated picture is (H, W, 3) uint8 BGR, the plain one has the planes of its decoder.
        """
        self._on_picture = on_picture

    def listen_demand(self, on_demand: Callable[[str, Demand], None] | None) -> None:
        """Call this, from any thread and under the board's lock, whenever what viewers of a stream want has changed."""
        self._on_demand = on_demand

    def demand(self, stream: str) -> Demand:
        """What the viewers of a stream want now."""
        with self._lock:
            return self._demand_of(self._channels[stream])

    def wants_picture(self, stream: str) -> bool:
        """Whether some viewer would take a picture now."""
        return self.demand(stream).wants_picture(self._clock_ns())

    def publish(
        self,
        stream: str,
        result_json: bytes,
        picture: Callable[[], UInt8] | None = None,
        events: Sequence[bytes] = (),
        plain: Plain | None = None,
        captured_ns: int = 0,
        has_video: bool = True,
    ) -> int:
        """Show one frame; the time by which its picture is known in a video, monotonic.

        Args:
            stream: announced before.
            result_json: its JSONL line.
            picture: gives the annotated (H, W, 3) uint8 BGR picture; not called while nobody wants it.
            events: what happened in this frame, one JSON object each.
            plain: for viewers that draw for themselves; without it they get the annotated picture.
            captured_ns: when it was captured, monotonic: its sound is played by that; 0: not known.
            has_video: false: the pictures of its video come by ``put_video``.

        Raises:
            SinkError: the picture cannot be encoded as JPEG.
        """
        demand = self.demand(stream)
        demand = demand if has_video else demand.without_video()
        made = make(demand, self._clock_ns(), picture, plain, self._quality)
        return self.show(stream, result_json, made, events, captured_ns=captured_ns)

    def put_video(self, stream: str, picture: UInt8 | Planes, time_ns: int) -> None:
        """Show a picture in video that belongs to no frame; see ``listen_pictures``."""
        if self._on_picture is not None:
            self._on_picture(stream, picture, time_ns)

    def show(
        self,
        stream: str,
        result_json: bytes,
        made: Made,
        events: Sequence[bytes] = (),
        *,
        captured_ns: int = 0,
        shown_ns: int = 0,
    ) -> int:
        """Show one frame whose pictures were made elsewhere; see ``publish``. ``shown_ns``: its time; 0: now."""
        now_ns = shown_ns or self._clock_ns()
        if self._on_picture is not None:
            for video in (made.video, made.plain_video):
                if video is not None:
                    self._on_picture(stream, video, now_ns)
        with self._lock:
            channel = self._channels[stream]
            channel.num_published += 1
            shown = Shown(channel.num_published, result_json, made.jpegs, made.marks, now_ns)
            channel.latest = shown
            if captured_ns:
                channel.delay.note(now_ns - captured_ns)
            if made.jpegs:
                channel.num_encoded += made.num_encoded
                channel.pictures |= dict.fromkeys(made.jpegs, shown)
            self._add_events(channel, events)
            is_watched = bool(channel.viewers)
        if is_watched and self._on_change is not None:
            self._on_change(stream)
        return now_ns

    def tell(self, stream: str, events: Sequence[bytes]) -> None:
        """Show events of a frame that is not shown itself."""
        with self._lock:
            self._add_events(self._channels[stream], events)
            is_watched = bool(self._channels[stream].viewers)
        if is_watched and self._on_change is not None:
            self._on_change(stream)

    def watch(
        self, stream: str, *, has_pictures: bool, max_fps: float = 0.0, is_video: bool = False, width: int = DRAWN
    ) -> Viewer:
        """Begin to watch a stream; ``max_fps`` 0 takes every frame. What was published before is not taken.

        ``width`` is that of the place in which the viewer shows plain pictures and draws for itself.
        """
        period_ns = int(1e9 / max_fps) if max_fps > 0 else 0
        viewer = Viewer(stream, has_pictures, period_ns, is_video, width_step(width))
        with self._lock:
            channel = self._channels[stream]
            viewer.last_number = channel.num_published
            channel.viewers.add(viewer)
            self._note_demand(stream)
        return viewer

    def leave(self, viewer: Viewer) -> None:
        """Stop watching; what came since the last frame that was taken is missed. May be called twice."""
        with self._lock:
            channel = self._channels[viewer.stream]
            if viewer in channel.viewers and not viewer.period_ns and not viewer.is_video:
                viewer.num_missed += channel.num_published - viewer.last_number
                channel.num_missed += channel.num_published - viewer.last_number
            channel.viewers.discard(viewer)
            self._note_demand(viewer.stream)

    def take(self, viewer: Viewer) -> Shown | None:
        """The newest frame, once; None if there is none yet or it is not time for this viewer's next one."""
        now_ns = self._clock_ns()
        with self._lock:
            channel = self._channels[viewer.stream]
            shown = channel.pictures.get(viewer.width) if viewer.has_pictures else channel.latest
            if shown is None or shown.number <= viewer.last_number or now_ns < viewer.next_ns:
                return None
            if not viewer.period_ns:
                missed = shown.number - viewer.last_number - 1
                viewer.num_missed += missed
                channel.num_missed += missed
            viewer.last_number = shown.number
            viewer.num_taken += 1
            # half a period of slack: frames do not come at exact times, and waiting for the next one halves the rate
            viewer.next_ns = now_ns + viewer.period_ns - min(viewer.period_ns // 2, 15_000_000)
            self._note_demand(viewer.stream)
            return shown

    def last_picture(self, stream: str) -> Shown | None:
        """The annotated picture that was drawn last, however old."""
        return self._channels[stream].pictures.get(DRAWN)

    def last_seen(self, stream: str) -> tuple[Shown, int] | None:
        """The newest frame that has a picture of any kind, and the width of its largest; a plain one comes first."""
        with self._lock:
            newest = max(self._channels[stream].pictures.values(), key=lambda shown: shown.number, default=None)
        return None if newest is None else (newest, max(newest.jpegs))

    def events_after(self, stream: str, number: int) -> list[tuple[int, bytes]]:
        """The events that came after this number, each with its own; all that are kept for a number of another run."""
        with self._lock:
            channel = self._channels[stream]
            is_of_this_run = number <= self._num_before + channel.num_events
            return [event for event in channel.events if event[0] > number or not is_of_this_run]

    def counts(self) -> dict[str, dict[str, int]]:
        """Per stream: frames published and encoded, viewers now, frames missed by slow viewers, events."""
        with self._lock:
            return {
                name: {
                    "published": channel.num_published,
                    "encoded": channel.num_encoded,
                    "viewers": sum(viewer.has_pictures for viewer in channel.viewers),
                    "missed": channel.num_missed,
                    "events": channel.num_events,
                }
                for name, channel in self._channels.items()
            }

    def _add_events(self, channel: _Channel, events: Sequence[bytes]) -> None:
        for event in events:
            channel.num_events += 1
            channel.events.append((self._num_before + channel.num_events, event))

    def _note_demand(self, stream: str) -> None:
        if self._on_demand is not None:
            self._on_demand(stream, self._demand_of(self._channels[stream]))

    @staticmethod
    def _demand_of(channel: _Channel) -> Demand:
        if not channel.viewers:
            return NOBODY
        due = dict[int, int]()
        for viewer in channel.viewers:
            if viewer.has_pictures and not viewer.is_video:
                due[viewer.width] = min(due.get(viewer.width, NEVER_NS), viewer.next_ns)
        videos = {viewer.width != DRAWN for viewer in channel.viewers if viewer.is_video}
        plain = {width: next_ns for width, next_ns in due.items() if width != DRAWN}
        draws_all = any(viewer.width != DRAWN and not viewer.has_pictures for viewer in channel.viewers)
        return Demand(len(channel.viewers), due.get(DRAWN, NEVER_NS), False in videos, True in videos, draws_all, plain)
