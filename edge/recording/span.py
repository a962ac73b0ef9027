"""Any span of time from the recordings of one stream: one MP4 file of the packets that lie there, nothing encoded.

Files that follow each other are joined; where two overlap, the later one is shown. A gap is not filled: what comes
after it follows at once, and the plan says where it is. A time lapse has a part of the key pictures alone.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timezone
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.bitstream import BitStreamFilterContext

from edge.errors import SinkError
from edge.recording.index import Recorded
from edge.recording.names import NS_PER_S
from edge.recording.seek import Layout, layout_of
from edge.video.encoder import TICKS_PER_S, TIME_BASE

log = logging.getLogger(__name__)
# files that follow each other are that far apart at most, in seconds of a slow camera's pictures
GAP_NS = NS_PER_S
MOVFLAGS = "frag_keyframe+empty_moov+default_base_moof"
LAPSE_FPS = 25
CHUNK_BYTES = 256 << 10
# what separates pictures of a stream as cameras send them
_START_CODE = re.compile(rb"\x00?\x00\x00\x01")


@dataclass(frozen=True, slots=True)
class Part:
    """What is taken of one file: wall clock of its own beginning, and from when until when it is shown.

    ``is_cut``: whether the file goes on after that.
    """

    path: Path
    file_ns: int
    start_ns: int
    end_ns: int
    is_cut: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """What a span consists of.

    Attributes:
        parts: in the order of their times.
        gaps: beginnings and ends of what is not recorded, wall clock, those at both ends of the span included.
        num_bytes: about so many, by the shares of the files.
        size: width and height of the pictures.
    """

    parts: tuple[Part, ...]
    gaps: tuple[tuple[int, int], ...]
    num_bytes: int
    size: tuple[int, int]

    @property
    def recorded_s(self) -> float:
        return sum(part.end_ns - part.start_ns for part in self.parts) / NS_PER_S


def planned(folder: Path, entries: Sequence[Recorded], start_ns: int, end_ns: int) -> Plan:
    """Which parts of which files show a span.

    Raises:
        SinkError: nothing of it is recorded, or the size of the pictures changes within.
    """
    within = [one for one in entries if one.end_ns > start_ns and one.start_ns < end_ns]
    within.sort(key=lambda one: one.start_ns)
    parts: list[Part] = []
    num_bytes = 0.0
    for place, entry in enumerate(within):
        later = within[place + 1].start_ns if place + 1 < len(within) else end_ns
        begin, end = max(entry.start_ns, start_ns), min(entry.end_ns, end_ns, later)
        if end > begin:
            parts.append(Part(folder / entry.file, entry.start_ns, begin, end, end < entry.end_ns))
            num_bytes += entry.num_bytes * (end - begin) / max(1, entry.end_ns - entry.start_ns)
    if not parts:
        raise SinkError("nothing is recorded of this span; the newest file may not be finished yet")
    changes = [entry for entry in within if (entry.width, entry.height) != (within[0].width, within[0].height)]
    if changes:
        when = _utc(changes[0].start_ns)
        raise SinkError(f"the size of the pictures changes at {when}; export what is before it and after it")
    return Plan(tuple(parts), _gaps(parts, start_ns, end_ns), round(num_bytes), (within[0].width, within[0].height))


def _gaps(parts: Sequence[Part], start_ns: int, end_ns: int) -> tuple[tuple[int, int], ...]:
    edges = [start_ns, *(edge for part in parts for edge in (part.start_ns, part.end_ns)), end_ns]
    pairs = zip(edges[::2], edges[1::2], strict=True)
    return tuple((begin, end) for begin, end in pairs if end - begin > GAP_NS)


def joined(plan: Plan) -> Iterator[bytes]:
    """The bytes of one MP4 file; it begins with the key picture that the first one needs.

    Raises:
        SinkError: a file cannot be read, or the kind of its packets changes within.
    """
    writer = _Writer(plan)
    with closing(writer):
        for part, layout in writer.readable():
            yield from writer.copy(part, layout)
        yield from writer.finish()


def lapse(plan: Plan, seconds: float) -> Iterator[bytes]:
    """The same span in so many seconds, of its key pictures; shorter, where it has not enough of them. Without sound.

    Raises:
        SinkError: as ``joined``.
    """
    step_s = plan.recorded_s / max(1.0, seconds * LAPSE_FPS)
    writer = _Writer(plan, has_sound=False)
    with closing(writer):
        shown_s, next_s = 0.0, 0.0
        for part, layout in writer.readable():
            first_s, last_s = (part.start_ns - part.file_ns) / NS_PER_S, (part.end_ns - part.file_ns) / NS_PER_S
            chosen = []
            for number, fragment in enumerate(layout.fragments):
                at_s = shown_s + fragment.start_s - first_s
                if first_s <= fragment.start_s < last_s and at_s >= next_s - 1e-6:
                    chosen.append(number)
                    next_s = max(next_s + step_s, at_s)
            shown_s += last_s - first_s
            if chosen:
                yield from writer.add_keys(part, layout, chosen)
        yield from writer.finish()


class _Chunks:
    """What PyAV writes to."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes) -> int:
        self.data += data
        return len(data)

    def take(self, at_least: int = 1) -> Iterator[bytes]:
        if len(self.data) >= at_least:
            data, self.data = bytes(self.data), bytearray()
            yield data


class _Writer:
    """Writes one MP4 file into memory, piece by piece. Times in it are ticks of 1/90000 s."""

    def __init__(self, plan: Plan, *, has_sound: bool = True) -> None:
        self._plan = plan
        self._chunks = _Chunks()
        self._container: Any = av.open(
            self._chunks, "w", format="mp4", options={"movflags": MOVFLAGS, "max_interleave_delta": "500000"}
        )
        self._container.metadata["comment"] = _told(plan)
        self._has_sound = has_sound
        self._video: Any = None
        self._sound: Any = None
        self._form: tuple[str, bytes] = ("", b"")
        self._sound_form: tuple[str, int, bytes] = ("", 0, b"")
        self._filter: Any = None
        self._is_mixed = self._takes_sound = False
        self._next = 0
        self._last_dts = -1
        self._last_sound = -1

    def close(self) -> None:
        """May be called twice."""
        self._container.close()

    def finish(self) -> Iterator[bytes]:
        """The end of the file."""
        self._container.close()
        yield from self._chunks.take()

    def readable(self) -> Iterator[tuple[Part, Layout]]:
        """The parts whose files are still there."""
        for part in self._plan.parts:
            try:
                yield part, layout_of(part.path)
            except OSError as error:
                log.warning("export: %s cannot be read (%s); it is left out", part.path, error.strerror)

    def copy(self, part: Part, layout: Layout) -> Iterator[bytes]:
        """The packets of a part, from the key picture that its first one needs."""
        first_s = (part.start_ns - part.file_ns) / NS_PER_S
        # the end of a file is the time of its last picture, which is shown
        last_s = (part.end_ns - part.file_ns) / NS_PER_S if part.is_cut else math.inf
        try:
            with layout.opened_at(layout.last_before(first_s)) as source:
                self._begin(source)
                yield from self._copy(source, first_s, last_s)
        except (av.error.FFmpegError, OSError) as error:
            raise SinkError(f"export: {part.path} cannot be read ({error.strerror})") from None

    def add_keys(self, part: Part, layout: Layout, numbers: Sequence[int]) -> Iterator[bytes]:
        """The key pictures with which these fragments begin, as the next ones."""
        try:
            with layout.keys_of(numbers) as (source, keys):
                self._begin(source)
                for key in keys:
                    self._mux(key, self._next, self._next, TICKS_PER_S // LAPSE_FPS)
                    yield from self._chunks.take(CHUNK_BYTES)
        except (av.error.FFmpegError, OSError) as error:
            raise SinkError(f"export: {part.path} cannot be read ({error.strerror})") from None

    def _begin(self, source: Any) -> None:
        """Take the form of the pictures, or see that another file has the same."""
        video, audio = source.streams.video[0], [*source.streams.audio[:1]]
        form = (video.codec_context.name, bytes(video.codec_context.extradata or b""))
        if self._video is None:
            self._form = form
            self._video = self._container.add_stream_from_template(video)
            if self._has_sound and audio:
                self._sound = self._container.add_stream_from_template(audio[0])
                self._sound_form = _sound_form(audio[0])
        if form[0] != self._form[0]:
            raise SinkError(f"export: pictures are coded as {self._form[0]} and later as {form[0]}; export both apart")
        # from the first other form on, every key picture brings its parameter sets along
        self._is_mixed = self._is_mixed or form != self._form
        self._filter = BitStreamFilterContext(f"{form[0]}_mp4toannexb", video) if self._is_mixed else None
        self._takes_sound = self._sound is not None and bool(audio) and _sound_form(audio[0]) == self._sound_form

    def _copy(self, source: Any, first_s: float, last_s: float) -> Iterator[bytes]:
        # since the last key picture, until the first one that is wanted
        before: list[Any] = []
        shift: int | None = None
        for packet in source.demux(*source.streams.video[:1], *source.streams.audio[: int(self._takes_sound)]):
            if packet.dts is None or not packet.size:
                continue
            if packet.stream.type == "audio":
                self._add_sound(packet, shift)
                continue
            if packet.dts * packet.time_base >= last_s:
                break
            if shift is None and packet.is_keyframe:
                before.clear()
            before.append(packet)
            if shift is None and packet.pts * packet.time_base < first_s:
                continue
            shift = self._shift_of(before[0]) if shift is None else shift
            self._add(before, shift)
            yield from self._chunks.take(CHUNK_BYTES)
        if before:
            self._add(before, self._shift_of(before[0]) if shift is None else shift)

    def _shift_of(self, first: Any) -> int:
        """What makes a part follow at once, and lets no packet come before the last one."""
        return max(self._next - _ticks(first.pts, first), self._last_dts + 1 - _ticks(first.dts, first))

    def _add(self, packets: list[Any], shift: int) -> None:
        for packet in packets:
            length = _ticks(packet.duration, packet) or TICKS_PER_S // LAPSE_FPS
            self._mux(packet, _ticks(packet.pts, packet) + shift, _ticks(packet.dts, packet) + shift, length)
        packets.clear()

    def _mux(self, packet: Any, pts: int, dts: int, length: int) -> None:
        is_key = packet.is_keyframe
        coded = av.Packet(bytes(packet) if self._filter is None else _with_parameters(self._filter, packet))
        coded.time_base = TIME_BASE
        coded.pts, coded.dts, coded.duration = pts, dts, length
        coded.is_keyframe = is_key
        coded.stream = self._video
        self._container.mux(coded)
        self._next, self._last_dts = max(self._next, pts + length), dts

    def _add_sound(self, packet: Any, shift: int | None) -> None:
        """What belongs to pictures that are in the file, and goes on in time."""
        if shift is None or _ticks(packet.pts, packet) + shift <= self._last_sound:
            return
        self._last_sound = _ticks(packet.pts, packet) + shift
        by = round(Fraction(shift, TICKS_PER_S) / packet.time_base)
        packet.pts, packet.dts = packet.pts + by, packet.dts + by
        packet.stream = self._sound
        self._container.mux(packet)


def _ticks(time: int | None, packet: Any) -> int:
    """A time of a packet in ticks of 1/90000 s."""
    return 0 if time is None else round(time * packet.time_base * TICKS_PER_S)


def _sound_form(stream: Any) -> tuple[str, int, bytes]:
    context = stream.codec_context
    return context.name, context.sample_rate, bytes(context.extradata or b"")


def _with_parameters(to_stream: Any, packet: Any) -> bytes:
    """A coded picture with the parameter sets of its file before it, in the form that MP4 has them."""
    data = b"".join(bytes(one) for one in to_stream.filter(packet))
    units = [unit for unit in _START_CODE.split(data) if unit]
    return b"".join(len(unit).to_bytes(4, "big") + unit for unit in units)


def _told(plan: Plan) -> str:
    """When it was recorded, and what is missing, for who finds the file later."""
    begin, end = _utc(plan.parts[0].start_ns), _utc(plan.parts[-1].end_ns)
    gaps = ", ".join(f"{_utc(first)} to {_utc(last)}" for first, last in plan.gaps)
    return f"{begin} to {end}" + (f"; not recorded: {gaps}" if gaps else "")


def _utc(wall_ns: int) -> str:
    return datetime.fromtimestamp(wall_ns // NS_PER_S, timezone.utc).isoformat().replace("+00:00", "Z")
