"""Records pictures: encodes them and passes the packets on to be cut into files.

Shape letters: H W frame pixels.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from edge.config.recording import RecordSettings
from edge.metrics.counters import Counters
from edge.recording.cutter import GAP_S, KEY_SHARE, NS_PER_S, Coded, Cutter, Ended
from edge.recording.recording import RecordingFolder
from edge.recording.shots import Shot
from edge.video.encoder import TICKS_PER_S, VideoEncoder


class Recorder:
    """Used by one thread; see ``Cutter`` for what happens when the disk fails."""

    def __init__(
        self,
        settings: RecordSettings,
        folder: RecordingFolder,
        encoder: str,
        fps: float,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args: what is wanted, where files go, name of the encoder, nominal rate, clock of the pauses."""
        self._settings = settings
        self._encoder_name = encoder
        self._fps = fps
        self._cutter = Cutter(settings, folder, clock_s=clock_s)
        self._encoder: VideoEncoder | None = None
        self._has_form = False
        self._begin_ns = 0
        self._last_ns = 0

    @property
    def counters(self) -> Counters[str]:
        """``frames`` written, ``frames_lost`` while paused, ``write_errors``."""
        return self._cutter.counters

    @property
    def error(self) -> str:
        """Why recording pauses, empty while all is well."""
        return self._cutter.error

    @property
    def ended(self) -> Ended | None:
        """The newest clip whose file has ended; any thread may ask."""
        return self._cutter.ended

    def take(self, shot: Shot) -> None:
        """Take the next picture.

        Raises:
            SinkError: the encoder failed, which another picture will not mend.
        """
        mark = shot.mark
        encoder = self._encoder_for(shot)
        pts = round((mark.time_ns - self._begin_ns) * TICKS_PER_S / NS_PER_S)
        self._last_ns = mark.time_ns
        packets = encoder.encode(shot.image, pts)
        if packets and not self._has_form:
            self._cutter.begin(encoder.form_with(packets[0]))
            self._has_form = True
        self._cutter.mark(mark)
        for packet in packets:
            self._cutter.take(Coded(packet, mark.time_ns, mark.captured_ns))

    def pass_over(self, _: Shot | None) -> None:
        """Recording is switched off: forget this picture and those that are kept for the next clip."""
        self._cutter.forget()
        self._encoder = None

    def idle(self) -> None:
        """Nothing came for a while; the next picture will say whether that was a gap."""

    def close(self) -> None:
        """Finish the open file."""
        self._cutter.end()
        self._encoder = None

    def _encoder_for(self, shot: Shot) -> VideoEncoder:
        """The encoder; a new one where the picture's size or the course of time has changed."""
        is_gap = not 0 < shot.mark.time_ns - self._last_ns < GAP_S * NS_PER_S
        if self._encoder is None or self._encoder.size != shot.image.shape[:2] or is_gap:
            self._cutter.end()
            self._has_form = False
            self._begin_ns = shot.mark.time_ns
            height, width = shot.image.shape[:2]
            key_every_s = self._settings.fragment_s * KEY_SHARE
            self._encoder = VideoEncoder(self._encoder_name, width, height, fps=self._fps, key_every_s=key_every_s)
        return self._encoder
