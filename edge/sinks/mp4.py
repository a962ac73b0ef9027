"""Sink that records the annotated picture as MP4 (H.264), keeping the time of every frame.

A recording is written under a hidden temporary name and gets its own name when it is complete.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import cv2

from edge.errors import MissingError, SinkError
from edge.files import atomic_path
from edge.video.allowed import allowed_encoders

if TYPE_CHECKING:
    from edge.types import Result, UInt8

# 90 kHz, the clock of MPEG systems: every common frame rate is a whole number of ticks or nearly so
TICKS_PER_S = 90_000
FALLBACK_FPS = 30.0
# software first: it works everywhere and looks the same everywhere
ENCODERS = ("libx264", "libopenh264", "h264_nvenc", "h264_v4l2m2m", "mpeg4")
OPTIONS = {"libx264": {"preset": "veryfast", "crf": "23"}}


class Mp4Sink:
    """Records one stream.

    The first picture has time 0; the gaps between frames are kept, so a recording lasts as long as what it shows.
    Where the time steps back (the source was opened again), the recording goes on one frame later. When the
    picture's size changes, the file is finished and the next part gets a number: ``out.mp4``, ``out-2.mp4``, ….

    Args:
        path: the file; it is replaced when the recording is complete.
        fps: nominal frame rate, 0 where unknown; used for the last frame's duration and for steps back.

    Raises:
        SinkError: the folder does not exist.
        MissingError: this PyAV has no video encoder.
    """

    takes_unseen = True

    def __init__(self, path: Path, *, fps: float) -> None:
        self.name = f"mp4:{path}"
        if not path.parent.is_dir():
            raise SinkError(f"{self.name}: the folder {path.parent} does not exist; run: mkdir -p {path.parent}")
        self._path = path
        self._fps = fps if fps > 0 else FALLBACK_FPS
        self._encoder = find_encoder()
        self._part: _Part | None = None
        self._num_parts = 0

    def write(self, result: Result, picture: Callable[[], UInt8]) -> None:
        image = picture()
        try:
            if self._part is not None and self._part.size != image.shape[:2]:
                self._finish()
            if self._part is None:
                self._part = self._begin(image)
            self._part.add(image, result.frame.time_ns)
        except (av.error.FFmpegError, OSError) as error:
            self._abandon(error)

    def close(self) -> None:
        try:
            self._finish()
        except (av.error.FFmpegError, OSError) as error:
            self._abandon(error)

    def _begin(self, image: UInt8) -> _Part:
        self._num_parts += 1
        number = "" if self._num_parts == 1 else f"-{self._num_parts}"
        path = self._path.with_name(f"{self._path.stem}{number}{self._path.suffix}")
        return _Part(path, self._encoder, image, self._fps)

    def _finish(self) -> None:
        part, self._part = self._part, None
        if part is not None:
            part.finish()

    def _abandon(self, error: Exception) -> None:
        part, self._part = self._part, None
        if part is not None:
            part.abandon()
        raise SinkError(f"{self.name}: the recording was lost ({error.strerror or error})") from None  # type: ignore[attr-defined]


class _Part:
    """One MP4 file while it is being written. ``size`` is the (H, W) of its pictures."""

    def __init__(self, path: Path, encoder: str, image: UInt8, fps: float) -> None:
        self.size: tuple[int, ...] = image.shape[:2]
        self._frame_ticks = max(round(TICKS_PER_S / fps), 1)
        self._begin_ns: int | None = None
        self._last_pts = -self._frame_ticks
        with ExitStack() as stack:
            self._temporary = stack.enter_context(atomic_path(path))
            self._container = av.open(str(self._temporary), "w", format="mp4", options={"movflags": "faststart"})
            self._stream = _video_stream(self._container, encoder, image, fps)
            self._stack = stack.pop_all()

    def add(self, image: UInt8, time_ns: int) -> None:
        if self._begin_ns is None:
            self._begin_ns = time_ns
        pts = round((time_ns - self._begin_ns) * TICKS_PER_S / 1e9)
        if pts <= self._last_pts:
            # moves the origin, so that the frames after a step back keep their own gaps
            self._begin_ns -= round((self._last_pts + self._frame_ticks - pts) * 1e9 / TICKS_PER_S)
            pts = self._last_pts + self._frame_ticks
        self._last_pts = pts
        frame = av.VideoFrame.from_ndarray(_planar(image), format="yuv420p")
        frame.pts = pts
        frame.time_base = Fraction(1, TICKS_PER_S)
        self._mux(self._stream.encode(frame))

    def finish(self) -> None:
        """Flush, close and give the file its name; on an error nothing is left behind."""
        with self._stack:
            self._mux(self._stream.encode(None))
            self._container.close()

    def abandon(self) -> None:
        """Leave nothing behind."""
        error = SinkError("abandoned")
        self._stack.__exit__(type(error), error, None)

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            # MP4 takes a frame's duration from the next one's time; this counts for the last frame
            packet.duration = self._frame_ticks
            self._container.mux(packet)


def find_encoder() -> str:
    """The first usable video encoder of this PyAV.

    Raises:
        MissingError: it has none.
    """
    for name in ENCODERS:
        # mpeg4 is FFmpeg's own, where nothing better is there
        if name in av.codecs_available and name in (*allowed_encoders(), "mpeg4"):
            return name
    raise MissingError(f"mp4: this PyAV has none of the encoders {', '.join(ENCODERS)}; run: pip install -U av")


def _video_stream(container: Any, encoder: str, image: UInt8, fps: float) -> Any:
    stream = container.add_stream(encoder, rate=Fraction(fps).limit_denominator(1001))
    # 4:2:0 has one colour sample per 2x2 pixels, so both sides are made even
    stream.width = image.shape[1] + image.shape[1] % 2
    stream.height = image.shape[0] + image.shape[0] % 2
    stream.pix_fmt = "yuv420p"
    context = stream.codec_context
    context.time_base = Fraction(1, TICKS_PER_S)
    # MP4 takes its length from the decoding times, and reordered frames shift those: uneven gaps would be lost
    context.max_b_frames = 0
    context.options = OPTIONS.get(encoder, {})
    # OpenCV converts by BT.601 with limited range; unsaid, players assume BT.709 for large pictures
    context.colorspace = 6
    context.color_primaries = 6
    context.color_trc = 6
    context.color_range = 1
    return stream


def _planar(image: UInt8) -> UInt8:
    """(H * 3 / 2, W) uint8 I420 of a BGR picture; odd sides repeat their last row or column."""
    bottom, right = image.shape[0] % 2, image.shape[1] % 2
    if bottom or right:
        image = cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
    planar: UInt8 = cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420)
    return planar
