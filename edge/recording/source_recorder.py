"""Records a camera's own packets: finds where decoding can begin, notices gaps, and passes them on unchanged."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import replace

import av

from edge.config.recording import RecordSettings
from edge.metrics.counters import Counters
from edge.recording.cutter import GAP_S, KEY_SHARE, Coded, Cutter, Ended
from edge.recording.recording import RecordingFolder
from edge.video.encoder import TICKS_PER_S, Packet, VideoForm
from edge.video.packets import EventMark, Item, PacketForm, SourcePacket
from edge.video.parameter_sets import parameter_sets

CODECS = ("h264", "hevc")
# cameras repeat or turn back a time stamp now and then; more than this is another course of time
MAX_BACK_TICKS = TICKS_PER_S


class SourceRecorder:
    """Used by one thread; see ``Cutter`` for what happens when the disk fails.

    Args:
        settings: what is wanted.
        folder: where files go.
        late_s: how long after its packet a result may come.
        wait_s: see ``Cutter``.
        clock_s: clock of the pauses and of silence.
    """

    def __init__(
        self,
        settings: RecordSettings,
        folder: RecordingFolder,
        *,
        late_s: float,
        wait_s: float = 0.0,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        # a camera's key pictures may be far apart: its fragments end by time too
        fragment_s = settings.fragment_s * KEY_SHARE
        self._cutter = Cutter(
            settings, folder, late_s=late_s, max_fragment_s=fragment_s, wait_s=wait_s, clock_s=clock_s
        )
        self._clock_s = clock_s
        self._form: PacketForm | None = None
        self._sets = b""
        self._is_running = False
        self._first_dts = 0
        self._last_dts = 0
        # of what was lost before a packet of sound, some may be pictures
        self._lost = 0
        self._last_s = clock_s()
        self._refusal = ""

    @property
    def counters(self) -> Counters[str]:
        """``frames`` written, ``frames_lost`` while paused, ``waited_for_key``, ``write_errors``."""
        return self._cutter.counters

    @property
    def error(self) -> str:
        """Why nothing is recorded, empty while all is well."""
        return self._refusal or self._cutter.error

    @property
    def ended(self) -> Ended | None:
        """The newest clip whose file has ended; any thread may ask."""
        return self._cutter.ended

    def take(self, item: Item) -> None:
        """The next packet, the form of those that follow, or what a result has shown."""
        match item:
            case EventMark():
                self._cutter.mark(item)
            case PacketForm():
                self._cutter.end()
                self._form, self._is_running = item, False
                self._refusal = (
                    ""
                    if item.codec in CODECS
                    else f'this camera sends {item.codec}; content = "source" takes h264 and hevc'
                )
            case SourcePacket():
                self._take_packet(item)

    def pass_over(self, item: Item | None) -> None:
        """Recording is switched off: know only in which form packets come, and begin with a key picture afterwards."""
        self._is_running = False
        self._cutter.forget()
        if isinstance(item, PacketForm):
            self.take(item)

    def idle(self) -> None:
        """Nothing came for a while: what was recorded of a camera that is silent is finished."""
        if self._is_running and self._clock_s() - self._last_s > GAP_S:
            self._is_running = False
            self._cutter.end()

    def close(self) -> None:
        """Finish the open file."""
        self._cutter.close()

    def _take_packet(self, packet: SourcePacket) -> None:
        if self._form is None or self._refusal:
            return
        if packet.is_sound:
            self._lost += packet.lost_before
            if self._is_running:
                coded = Packet(packet.data, packet.pts - self._first_dts, False)
                self._cutter.take(Coded(coded, packet.time_ns, packet.arrived_ns, is_sound=True))
            return
        self._last_s = self._clock_s()
        found = parameter_sets(packet.data, self._form.codec) if packet.is_key and self._form.has_start_codes else b""
        is_other = bool(found) and bool(self._sets) and found != self._sets
        if self._is_running and (is_other or self._is_gap(packet)):
            self._is_running = False
            self._cutter.end()
        if not self._is_running and not (packet.is_key and self._begin(self._form, packet, found)):
            self._cutter.counters.add("waited_for_key")
            return
        self._pass_on(packet)

    def _is_gap(self, packet: SourcePacket) -> bool:
        step = packet.dts - self._last_dts
        lost, self._lost = self._lost + packet.lost_before, 0
        return lost > 0 or not -MAX_BACK_TICKS < step <= GAP_S * TICKS_PER_S

    def _begin(self, form: PacketForm, packet: SourcePacket, found: bytes) -> bool:
        """Begin a run with this key picture; False where it does not say how to decode it."""
        if form.has_start_codes:
            sample, container = packet.data if found else form.header + packet.data, form.codec
        else:
            sample, container = form.header, "mov"
        sound = b"" if form.sound is None else _readable(form.sound.header)
        video = _described(VideoForm(form.width, form.height, sample, container, sound))
        if video is None:
            return False
        self._sets = found or parameter_sets(form.header, form.codec)
        self._cutter.begin(video)
        self._is_running = True
        self._first_dts, self._last_dts = packet.dts, packet.dts - 1
        return True

    def _pass_on(self, packet: SourcePacket) -> None:
        # a muxer takes growing times only
        dts = max(packet.dts, self._last_dts + 1)
        self._last_dts = dts
        pts = max(packet.pts, dts)
        coded = Packet(packet.data, pts - self._first_dts, packet.is_key, pts - dts)
        self._cutter.take(Coded(coded, packet.time_ns, packet.arrived_ns))


def _described(form: VideoForm) -> VideoForm | None:
    """The form with the size that its sample really has; None where the sample cannot be read."""
    try:
        with av.open(io.BytesIO(form.sample), format=form.container) as sample:
            context = sample.streams.video[0].codec_context
            return replace(form, width=context.width, height=context.height)
    except (av.error.FFmpegError, OSError, IndexError):
        return None


def _readable(sound: bytes) -> bytes:
    """The beginning of an MP4 file with sound, or nothing where it is none: then the pictures are recorded alone."""
    try:
        with av.open(io.BytesIO(sound), format="mov") as sample:
            return sound if sample.streams.audio else b""
    except (av.error.FFmpegError, OSError):
        return b""
