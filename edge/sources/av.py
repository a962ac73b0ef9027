"""PyAV as a source: RTSP over TCP or UDP, HTTP MJPEG, HLS, RTMP, SRT and files, with limits on every wait."""

from __future__ import annotations

import logging
import math
import struct
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import av.error
from av.codec.context import Flags

from edge.addresses.uris import kind_of, masked
from edge.errors import SourceError
from edge.interfaces import SourceInfo
from edge.pictures.frames import planes_of
from edge.pictures.planes import Planes
from edge.sources.deadlines import DEFAULT_DEADLINES, Deadlines
from edge.sources.sound import SoundCopy, beginning_of_mp4
from edge.types import UInt8
from edge.video.event_clock import PictureLag
from edge.video.media_time import MediaTime
from edge.video.packets import MAX_GROUP, MAX_WALL_NS, PacketForm, PacketTaker, SoundLevel, SourcePacket, Wanted
from edge.video.srt import SrtError, SrtStream

LATE = "it does not answer in time"
# what a decoder may take memory for; larger pictures are damage, or an attack
MAX_PICTURE_PX = 8192 * 8192
# a lossy network tears some pictures; so many in a row are a broken stream
MAX_BROKEN_PACKETS = 50
# the clock of PacketForm
TICKS_PER_S = 90_000
# FFmpeg's AVProducerReferenceTime: microseconds since 1970, then flags
PRODUCER_TIME, PRODUCER_TIME_FORM = "prft", struct.Struct("=q")
# so many key pictures in a row must come in time before nothing else is decoded; a longer silence looks like a stall
NUM_KEYS = 3
MOST_BETWEEN_KEYS_S = 2.0
# pictures that come a little before their time are those that are wanted: cameras and networks jitter
EARLY_SHARE, LATE_SHARE = 0.8, 1.1
# sound that is placed farther from its arrival belongs to no picture that is known
MAX_APART_NS = 2_000_000_000
# a quarter of the memory through which they go
GROUP_BYTES = 1 << 20
DEVICES = Path("/dev")
# PyAV from 17 on gives frames that stay on the GPU, and says where they lie
KEEPS_ON_GPU = hasattr(av.VideoFrame, "from_dlpack")
# the order in which hardware is tried
HARDWARE = ("cuda", "vaapi", "qsv", "videotoolbox", "drm")
# decoders print what we tell better, and addresses with passwords
logging.getLogger("libav").setLevel(logging.CRITICAL)


class AvSource:
    """One FFmpeg container opened by PyAV; see ``edge.interfaces.Source``, ``PlaneSource`` and ``Skips``."""

    def __init__(
        self,
        uri: str,
        *,
        transport: str = "tcp",
        hardware: str = "off",
        hardware_device: int = 0,
        stays_on_gpu: bool = False,
        packets: PacketTaker | None = None,
        deadlines: Deadlines = DEFAULT_DEADLINES,
        is_decoded: bool = True,
        has_sound: bool = False,
        level_s: float = 0.0,
        group_s: float = 0.0,
    ) -> None:
        """Open it and decode the first picture, which proves the decoder.

        Args:
            uri: the address.
            transport: of RTSP, ``tcp`` or ``udp``.
            hardware: ``off``, ``auto`` or a device type such as ``cuda``; software takes over where it fails.
            hardware_device: number of the GPU that decodes, for ``cuda``.
            stays_on_gpu: with ``cuda``, leave the pictures there (``edge.pictures.on_gpu``).
            packets: takes the coded pictures before they are decoded.
            deadlines: limits of connecting and of the wait for each packet; a file has none.
            is_decoded: whether there are pictures; else the first ``read`` passes packets on until the end.
            has_sound: whether the packets of its sound, if there is one, are wanted as well as those of its pictures.
            level_s: how loud it is is measured over so long; 0: it is not measured.
            group_s: where nothing is decoded, a patient taker gets packets several at a time, this late at most.

        Raises:
            SourceError: it cannot be opened or is no video.
        """
        self._label = masked(uri)
        self._is_file = kind_of(uri) == "file"
        if self._is_file and not Path(uri).is_file():
            raise SourceError(f"{self._label}: no such file; expected a video or an address such as rtsp://…")
        self._srt: SrtStream | None = None
        self._limits_s = (deadlines.open_s, deadlines.stall_s)
        accelerator = _accelerator(hardware, hardware_device, stays_on_gpu)
        self._container = self._open(uri, _options(uri, transport, is_live=not self._is_file), accelerator)
        self._num_broken = 0
        self._is_decoded = is_decoded
        self._skipping: Skipping | None = None
        self._on_skipped: Callable[[], None] = lambda: None
        self._current: Any = None
        self.pts_ns: int | None = None
        try:
            self._stream = self._video()
            sounds = self._container.streams.audio if has_sound and packets is not None else ()
            self._sound = sounds[0] if sounds else None
            self._copies: _Copies | None = None
            if packets is not None:
                sound = None if self._sound is None else SoundCopy(self._sound, level_s)
                is_live = not self._is_file
                held_s = 0.0 if is_decoded else group_s
                self._copies = _Copies(self._stream, packets, is_live=is_live, sound=sound, group_s=held_s)
            self._frames = self._decoded()
            self._first = next(self._frames, None) if is_decoded else None
            if self._first is None and is_decoded:
                raise SourceError(f"{self._label}: opened, but it gives no picture; is it a video that FFmpeg decodes?")
        except SourceError:
            self.close()
            raise
        self.info = self._describe(self._first or self._stream.codec_context)
        self._time = MediaTime(self.info.fps)

    def grab(self) -> bool:
        frame, self._first = (self._first, None) if self._first is not None else (next(self._frames, None), None)
        if frame is None and not self._is_file:
            raise SourceError(f"{self._label}: the stream broke off")
        self._current = frame
        self.pts_ns = None
        if frame is not None and self._copies is not None:
            self._copies.note_picture(frame)
        if frame is not None and self._is_file:
            self.pts_ns = self._time.next_ns(frame.pts, frame.time_base)
        return frame is not None

    def retrieve(self) -> Planes:
        return _upright(planes_of(self._current), self._current)

    def read(self) -> tuple[UInt8, int | None] | None:
        return (self.retrieve().bgr_copy(), self.pts_ns) if self.grab() else None

    def skip_over(self, max_fps: float, on_skipped: Callable[[], None]) -> None:
        if not self._is_file:
            self._skipping, self._on_skipped = Skipping(max_fps), on_skipped

    def close(self) -> None:
        self._frames = iter(())
        self._current = self._first = None
        self._container.close()
        if self._srt is not None:
            self._srt.close()

    def _open(self, uri: str, options: dict[str, str], accelerator: Any) -> Any:
        began_s = time.monotonic()
        try:
            if uri.lower().startswith("srt://"):
                connect_s, read_s = self._limits_s
                self._srt = SrtStream(uri, timeout_s=read_s, connect_timeout_s=connect_s, is_sender=False)
                return av.open(self._srt, format="mpegts", options=options, hwaccel=accelerator)
            limits = None if self._is_file else self._limits_s
            return av.open(uri, options=options, timeout=limits, hwaccel=accelerator)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            if self._srt is not None:
                self._srt.close()
            # what FFmpeg was doing when its time was over says nothing
            is_late = not self._is_file and time.monotonic() - began_s >= self._limits_s[0]
            reason = LATE if is_late and not isinstance(error, SrtError) else reason_of(error)
            if self._is_file:
                raise SourceError(f"{self._label}: cannot be opened; is it a video file? ({reason})") from None
            raise SourceError(f"{self._label}: cannot be opened: {reason}") from None

    def _video(self) -> Any:
        if not self._container.streams.video:
            raise SourceError(f"{self._label}: there is no video in it")
        stream = self._container.streams.video[0]
        context = stream.codec_context
        if context.width * context.height > MAX_PICTURE_PX:
            raise SourceError(
                f"{self._label}: pictures of {context.width}x{context.height}; expected at most {MAX_PICTURE_PX} pixels"
            )
        # it may claim another size later
        context.options = {"max_pixels": str(MAX_PICTURE_PX)}
        # decoding whole pictures on several threads costs one picture of delay each
        stream.thread_type = "AUTO" if self._is_file else "SLICE"
        if not self._is_file:
            context.flags |= Flags.low_delay
        return stream

    def _decoded(self) -> Iterator[Any]:
        """Pictures until the end; packets that are damaged are passed over, but not for ever."""
        try:
            yield from self._demuxed()
        finally:
            if self._copies is not None:
                self._copies.flush()

    def _demuxed(self) -> Iterator[Any]:
        streams = [self._stream, *([] if self._sound is None else [self._sound])]
        packets = iter(self._container.demux(*streams))
        while True:
            try:
                packet = next(packets, None)
                if packet is None:
                    return
                if self._copies is not None and not self._copies.take(packet):
                    continue
                frames = self._pictures_of(packet) if self._is_decoded else ()
            except av.error.InvalidDataError as error:
                self._num_broken += 1
                if self._num_broken > MAX_BROKEN_PACKETS:
                    raise SourceError(f"{self._label}: {self._num_broken} damaged packets in a row: {error}") from None
                continue
            except av.error.EOFError:
                return
            except (av.error.FFmpegError, OSError) as error:
                raise SourceError(f"{self._label}: the stream broke off: {reason_of(error)}") from None
            for frame in frames:
                self._num_broken = 0
                yield frame

    def _pictures_of(self, packet: Any) -> Sequence[Any]:
        """What a packet gives; of a live stream, none where fewer are wanted."""
        if self._skipping is None:
            decoded: Sequence[Any] = packet.decode()
            return decoded
        what = self._skipping.of(packet.is_keyframe, time.monotonic())
        self._stream.codec_context.skip_frame = what
        decoded = packet.decode()
        if packet.size and not decoded and what != "DEFAULT":
            self._on_skipped()
        return decoded

    def _describe(self, picture: Any) -> SourceInfo:
        """Args: the first picture, or where nothing is decoded what the stream says of its size."""
        rate = self._stream.average_rate or self._stream.guessed_rate
        fps = float(rate) if rate else 0.0
        context = self._stream.codec_context
        by = "hardware" if getattr(context, "is_hwaccel", False) else "software"
        upright = _upright(planes_of(picture), picture) if self._is_decoded else picture
        return SourceInfo(
            width=max(upright.width, 1),
            height=max(upright.height, 1),
            fps=fps if 0 < fps < 1000 else 0.0,
            is_live=not self._is_file,
            num_frames=self._stream.frames or None if self._is_file else None,
            decoder=f"PyAV {context.codec.name}, {by if self._is_decoded else 'not decoded'}",
        )


def _upright(planes: Planes, frame: Any) -> Planes:
    """Turned as the file says: a telephone that was held upright films lying down. PyAV counts against the clock."""
    match -int(getattr(frame, "rotation", 0)) % 360:
        case (90 | 180 | 270) as degrees:
            return planes.rotated(degrees)
        case _:
            return planes


class Skipping:
    """Which pictures of a live stream need no decoding where fewer are wanted.

    What no other picture is made of may always be left out; and everything between key pictures, where these come often
    enough by themselves.
    """

    def __init__(self, max_fps: float) -> None:
        self._period_s = 1 / max_fps
        self._key_s: deque[float] = deque(maxlen=NUM_KEYS)
        self._decoded_s = -math.inf

    def of(self, is_key: bool, now_s: float) -> str:
        """What the decoder may leave out of the packet that came now, as FFmpeg's ``skip_frame`` has it."""
        if is_key:
            self._key_s.append(now_s)
        has_keys_enough = self._has_keys_enough(now_s)
        if now_s - self._decoded_s < EARLY_SHARE * self._period_s or (has_keys_enough and not is_key):
            return "ALL" if has_keys_enough else "NONREF"
        self._decoded_s = now_s
        return "DEFAULT"

    def _has_keys_enough(self, now_s: float) -> bool:
        if len(self._key_s) < NUM_KEYS:
            return False
        longest_s = max(after - before for before, after in pairwise([*self._key_s, now_s]))
        return longest_s < min(LATE_SHARE * self._period_s, MOST_BETWEEN_KEYS_S)


class _Copies:
    """Gives the packets of one opening to a taker, with their times in ticks."""

    def __init__(
        self, stream: Any, taker: PacketTaker, *, is_live: bool, sound: SoundCopy | None = None, group_s: float = 0.0
    ) -> None:
        self._taker = taker
        self._waiting = Waiting(group_s)
        self._ready: list[SourcePacket] = []
        self._sound = sound
        self._pictures = stream
        self._lag = PictureLag()
        # of the newest picture: when the camera took it, and its time
        self._stated: tuple[int, int] | None = None
        self._is_live = is_live
        self._period = round(TICKS_PER_S / float(stream.average_rate or 25))
        # asked once: each time is a fraction of Python's own making
        self._scale = float(stream.time_base or 0) * TICKS_PER_S
        self._last_dts = 0
        self._first_pts: int | None = None
        context = stream.codec_context
        header = bytes(context.extradata or b"")
        # packets with lengths: what describes them is not in the packets
        if header[:1] == b"\1":
            header = beginning_of_mp4(stream)
        form = None if self._sound is None else self._sound.form
        taker.begin(PacketForm(context.name, context.width, context.height, header, form))

    def take(self, packet: Any) -> bool:
        """Pass a packet on, or keep it for a moment; whether it is one of the pictures."""
        if packet.size:
            is_full = self._waiting.add(packet, time.monotonic_ns())
            if is_full or not self._taker.is_patient:
                self.flush()
        return self._sound is None or packet.stream is self._pictures

    def note_picture(self, frame: Any) -> None:
        """A picture has come from the decoder."""
        if self._is_live and self._sound is not None and frame.pts is not None:
            self._lag.note_picture(round(frame.pts * self._scale), time.monotonic_ns())

    def flush(self) -> None:
        """Pass on what is kept."""
        wanted = self._taker.wanted
        try:
            for packet, now_ns in self._waiting.taken():
                if self._sound is not None and packet.stream is not self._pictures:
                    self._take_sound(self._sound, packet, now_ns, is_wanted=Wanted.SOUND in wanted)
                else:
                    self._take_picture(packet, now_ns, is_wanted=Wanted.PICTURES in wanted)
        finally:
            ready, self._ready = self._ready, []
            if ready:
                self._taker.take_group(ready)

    def _take_sound(self, sound: SoundCopy, packet: Any, now_ns: int, *, is_wanted: bool) -> None:
        if packet.pts is None:
            return
        ticks = round(packet.pts * float(packet.time_base or 0) * TICKS_PER_S)
        camera_ns = _camera_ns(packet) if self._is_live else 0
        if camera_ns and self._stated is not None:
            # its own times begin where they like; the camera's clock knows where the pictures are
            ticks = self._stated[1] + (camera_ns - self._stated[0]) * TICKS_PER_S // 1_000_000_000
        kept, levels = sound.take(packet, ticks, is_wanted=is_wanted)
        for data, at in kept:
            time_ns = self._sound_ns(at, now_ns)
            self._ready.append(SourcePacket(data, at, at, False, time_ns, now_ns, camera_ns=camera_ns, is_sound=True))
        for dbfs in levels:
            self._taker.hear(SoundLevel(dbfs, self._sound_ns(ticks, now_ns)))

    def _sound_ns(self, ticks: int, now_ns: int) -> int:
        """The stream's time of a piece of sound: of a camera, when the picture that was taken with it comes."""
        if not self._is_live:
            return (ticks - (self._first_pts or 0)) * 1_000_000_000 // TICKS_PER_S
        placed_ns = self._lag.with_picture(ticks)
        return now_ns if placed_ns is None or abs(placed_ns - now_ns) > MAX_APART_NS else placed_ns

    def _take_picture(self, packet: Any, now_ns: int, *, is_wanted: bool) -> None:
        dts, pts = self._ticks(packet)
        if self._first_pts is None:
            self._first_pts = pts
        if self._is_live:
            self._lag.note(pts, now_ns)
        media_ns = (pts - self._first_pts) * 1_000_000_000 // TICKS_PER_S
        time_ns = now_ns if self._is_live else media_ns
        camera_ns = _camera_ns(packet) if self._is_live else 0
        if camera_ns:
            self._stated = camera_ns, pts
        if not is_wanted:
            return
        is_key = bool(packet.is_keyframe)
        self._ready.append(SourcePacket(bytes(packet), pts, dts, is_key, time_ns, now_ns, camera_ns=camera_ns))

    def _ticks(self, packet: Any) -> tuple[int, int]:
        """When a packet is decoded and shown; one period after the last where it does not say."""
        shown, decoded = packet.pts, packet.dts
        stated = shown if decoded is None else decoded
        dts = self._last_dts + self._period if stated is None else round(stated * self._scale)
        self._last_dts = dts
        return dts, dts if shown is None else round(shown * self._scale)


class Waiting:
    """Packets that wait for each other: each wake-up for one costs more than the packet.

    Args:
        group_s: how long one may wait.
    """

    def __init__(self, group_s: float) -> None:
        self._group_ns = round(group_s * 1e9)
        self._packets: deque[tuple[Any, int]] = deque()
        self._num_bytes = 0
        self._last_ns: int | None = None
        self._pause_ns = 0

    def add(self, packet: Any, now_ns: int) -> bool:
        """Keep a packet that came now; whether the next one would come too late for the first that is kept."""
        # bursts are followed by pauses: the longest of the last ones counts
        if self._last_ns is not None:
            self._pause_ns = max(now_ns - self._last_ns, self._pause_ns * 3 // 4)
        self._last_ns = now_ns
        self._packets.append((packet, now_ns))
        self._num_bytes += packet.size
        is_late = now_ns + self._pause_ns - self._packets[0][1] >= self._group_ns
        return is_late or len(self._packets) >= MAX_GROUP or self._num_bytes >= GROUP_BYTES

    def taken(self) -> Iterator[tuple[Any, int]]:
        """Each with when it came; who stops on the way leaves the rest."""
        while self._packets:
            packet, arrived_ns = self._packets.popleft()
            self._num_bytes -= packet.size
            yield packet, arrived_ns


def _camera_ns(packet: Any) -> int:
    """When the camera took it, ns since 1970 by its own clock, from RTCP sender reports (RFC 3550); 0: not said."""
    # of older PyAV nothing can be asked
    if not hasattr(packet, "has_sidedata") or not packet.has_sidedata(PRODUCER_TIME):
        return 0
    stated_us: int = PRODUCER_TIME_FORM.unpack_from(bytes(packet.get_sidedata(PRODUCER_TIME)))[0]
    return stated_us * 1000 if 0 < stated_us * 1000 <= MAX_WALL_NS else 0


def _options(uri: str, transport: str, *, is_live: bool) -> dict[str, str]:
    if not is_live:
        return {}
    # a live picture is worth more than a smooth one: no buffer, no reordering, a short look at the stream
    options = {"fflags": "nobuffer", "flags": "low_delay", "probesize": "500000", "analyzeduration": "300000"}
    if uri.lower().startswith(("rtsp:", "rtsps:")):
        options |= {"rtsp_transport": transport, "max_delay": "200000"}
    return options


def _accelerator(hardware: str, device: int, stays_on_gpu: bool) -> Any:
    """The hardware decoder to try first, None for software; FFmpeg falls back by itself."""
    if hardware == "off":
        return None
    from av.codec.hwaccel import HWAccel, hwdevices_available

    present = hwdevices_available()
    chosen = hardware if hardware != "auto" else next((kind for kind in HARDWARE if kind in present), None)
    if chosen is None or not _has_device(chosen):
        return None
    try:
        if chosen != "cuda":
            return HWAccel(device_type=chosen, allow_software_fallback=True)
        if stays_on_gpu and KEEPS_ON_GPU:
            # FFmpeg's copies in the context that engines use: the decoder's few surfaces go back at once
            return HWAccel(device_type=chosen, device=str(device), allow_software_fallback=True, is_hw_owned=True)
        return HWAccel(device_type=chosen, device=str(device), allow_software_fallback=True)
    except (av.error.FFmpegError, ValueError, RuntimeError):
        return None


def _has_device(kind: str) -> bool:
    """Whether the machine has the device at all: asking FFmpeg for one that is missing prints errors."""
    # a container may have been given another card than the first
    nodes = {"cuda": "nvidia[0-9]*", "vaapi": "dri/renderD*", "qsv": "dri/renderD*", "drm": "dri"}
    return kind not in nodes or next(DEVICES.glob(nodes[kind]), None) is not None


def reason_of(error: Exception) -> str:
    """What FFmpeg says, without the address, which may hold a password."""
    match error:
        case av.error.HTTPUnauthorizedError():
            return "the password is not accepted (401)"
        case av.error.HTTPNotFoundError():
            return "there is nothing at this address (404)"
        case av.error.TimeoutError() | av.error.ExitError():
            return LATE
        case av.error.ConnectionRefusedError():
            return "the connection is refused; is the camera on and the port right?"
        case _:
            return getattr(error, "strerror", None) or type(error).__name__
