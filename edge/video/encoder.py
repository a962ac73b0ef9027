"""Turns pictures into H.264 packets without delay: what goes in comes out before the next picture.

Shape letters: H W frame pixels.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import cv2

from edge.errors import MissingError, SinkError
from edge.pictures.frames import FULL, LIMITED, NUMBERS, frame_of
from edge.pictures.planes import BT601, Colour, Planes
from edge.types import UInt8
from edge.video.allowed import HARDWARE, SOFTWARE, allowed_encoders

# 90 kHz, the clock of MPEG systems: every common frame rate is a whole number of ticks or nearly so
TICKS_PER_S = 90_000
TIME_BASE = Fraction(1, TICKS_PER_S)
# no look-ahead and no reordering: a picture that the encoder holds back is lost with the power
OPTIONS = {
    "libx264": {"preset": "veryfast", "tune": "zerolatency", "forced-idr": "1"},
    "h264_nvenc": {"preset": "p4", "tune": "ll", "zerolatency": "1", "delay": "0", "forced-idr": "1"},
}
# what every browser and phone decodes; the others have no such option, or know nothing better
BASELINE = {"libx264": {"profile": "baseline"}, "h264_nvenc": {"profile": "baseline"}}
QUALITY = {"libx264": {"crf": "23"}, "h264_nvenc": {"cq": "25", "rc": "vbr"}}
# how the numbers of FFmpeg's matrices are named for primaries and transfer too (ITU-T H.273)
AS_CODED = {1: 1, 5: 6, 9: 9}
MAX_TRIED_PX = (256, 256)


@dataclass(frozen=True, slots=True)
class Packet:
    """One coded picture. ``pts`` in ticks of 1/90000 s; ``delay``: how many of them before that it is decoded."""

    data: bytes
    pts: int
    is_key: bool
    delay: int = 0


@dataclass(frozen=True, slots=True)
class VideoForm:
    """What a muxer must know before the first packet: size in pixels, and a sample of the video.

    Attributes:
        sample: a key picture with its parameter sets, or the beginning of an MP4 file.
        container: FFmpeg's name of what the sample is: ``h264``, ``hevc`` or ``mov``.
        sound: the beginning of an MP4 file that describes the sound next to it; empty where there is none.
    """

    width: int
    height: int
    sample: bytes
    container: str = "h264"
    sound: bytes = b""


class VideoEncoder:
    """Encodes pictures of one size. Used by one thread.

    Args:
        encoder: name of an FFmpeg encoder, from ``find_encoder``.
        width, height: of the pictures in pixels; odd sides grow by one.
        fps: nominal rate, for the rate control.
        key_every_s: every picture that is this far from the last key picture becomes one.
        bitrate_kbps: None: constant quality.
        has_global_header: SPS and PPS once, for MP4 and FLV; else before every key picture.
        max_kbps: where the quality is constant, never more than this over half a second; None: no limit.
        is_baseline: H.264 baseline, as WebRTC asks for, where the encoder offers a choice.
        colour: of planes; None for BGR pictures.

    Raises:
        SinkError: the encoder does not open.
    """

    def __init__(
        self,
        encoder: str,
        width: int,
        height: int,
        *,
        fps: float,
        key_every_s: float,
        bitrate_kbps: int | None = None,
        has_global_header: bool = True,
        max_kbps: int | None = None,
        is_baseline: bool = False,
        colour: Colour | None = None,
    ) -> None:
        self.size = (height, width)
        self._colour = colour
        self._key_ticks = round(key_every_s * TICKS_PER_S)
        self._next_key = 0
        context = av.CodecContext.create(encoder, "w")
        context.width, context.height = width + width % 2, height + height % 2
        context.pix_fmt = "yuv420p"
        context.time_base = TIME_BASE
        context.framerate = Fraction(fps).limit_denominator(1001)
        context.max_b_frames = 0
        # key pictures come by time, set below; this is far beyond
        context.gop_size = 10_000
        if bitrate_kbps is not None:
            context.bit_rate = bitrate_kbps * 1000
        if has_global_header:
            context.flags |= av.codec.context.Flags.global_header
        # OpenCV converts by BT.601 with limited range; unsaid, players assume BT.709 for large pictures
        said = colour or BT601
        context.colorspace = context.color_primaries = context.color_trc = AS_CODED[NUMBERS[said.matrix]]
        context.color_range = FULL if said.is_full else LIMITED
        context.options = OPTIONS.get(encoder, {}) | (QUALITY.get(encoder, {}) if bitrate_kbps is None else {})
        if is_baseline:
            context.options |= BASELINE.get(encoder, {})
        if max_kbps is not None:
            context.options |= {"maxrate": f"{max_kbps}k", "bufsize": f"{max_kbps // 2}k"}
        try:
            context.open()
        except (av.error.FFmpegError, OSError) as error:
            raise SinkError(f"{encoder}: the encoder does not open ({error.strerror})") from None
        self._context: Any = context
        self._header = bytes(context.extradata or b"")

    def takes(self, planes: Planes) -> bool:
        """Whether a picture has the size and colour that this was opened for."""
        return planes.size == self.size[::-1] and self._colour == (None if planes.is_bgr else planes.form.colour)

    def encode(self, picture: UInt8 | Planes, pts: int) -> list[Packet]:
        """The packets of (H, W, 3) uint8 BGR, or of planes; ``pts`` in ticks, growing.

        Raises:
            SinkError: the encoder failed.
        """
        planes = Planes.of(picture)
        if planes.is_bgr:
            frame = av.VideoFrame.from_ndarray(planar(planes.bgr), format="yuv420p")
        else:
            frame = frame_of(planes.even())
        frame.pts = pts
        frame.time_base = TIME_BASE
        if pts >= self._next_key:
            frame.pict_type = av.video.frame.PictureType.I
            self._next_key = pts + self._key_ticks
        return self._packets(frame)

    def ask_key(self) -> None:
        """Make the next picture a key picture."""
        self._next_key = 0

    def form_with(self, key: Packet) -> VideoForm:
        """What a muxer must know; ``key`` is any key packet of this encoder."""
        return VideoForm(self._context.width, self._context.height, self._header + key.data)

    def flush(self) -> list[Packet]:
        """What the encoder still holds; it cannot be used after."""
        return self._packets(None)

    def _packets(self, frame: Any) -> list[Packet]:
        try:
            found = self._context.encode(frame)
        except (av.error.FFmpegError, OSError) as error:
            raise SinkError(f"{self._context.name}: encoding failed ({error.strerror})") from None
        return [Packet(bytes(packet), packet.pts, packet.is_keyframe) for packet in found]


def find_encoder(*, is_hardware_wanted: bool = False) -> str:
    """An H.264 encoder that works here; each candidate is tried with a picture.

    Raises:
        MissingError: there is none.
    """
    candidates = (*HARDWARE, *SOFTWARE) if is_hardware_wanted else (*SOFTWARE, *HARDWARE)
    wanted = [name for name in candidates if name in allowed_encoders()]
    for name in wanted:
        if name in av.codecs_available and _works(name):
            return name
    raise MissingError(
        f"none of the encoders {', '.join(wanted)} works here; allow others by `encoder` or run: pip install -U av"
    )


def copied_stream(container: Any, form: VideoForm) -> Any:
    """A stream in an output container for packets that are coded already.

    Raises:
        av.error.FFmpegError: the sample is not what it is said to be, or the container does not take it.
    """
    with av.open(io.BytesIO(form.sample), format=form.container) as sample:
        return container.add_stream_from_template(sample.streams.video[0])


def copied_sound(container: Any, sound: bytes) -> Any:
    """A stream in an output container for packets of sound; see ``copied_stream``."""
    with av.open(io.BytesIO(sound), format="mov") as sample:
        return container.add_stream_from_template(sample.streams.audio[0])


def media_packet(packet: Packet, stream: Any, pts: int) -> Any:
    """The packet for PyAV's muxer. Args: the packet, the stream that it goes into, its time there in ticks."""
    coded = av.Packet(packet.data)
    coded.pts, coded.dts = pts, pts - packet.delay
    coded.time_base = TIME_BASE
    coded.is_keyframe = packet.is_key
    coded.stream = stream
    return coded


def planar(image: UInt8) -> UInt8:
    """(H * 3 / 2, W) uint8 I420 of a BGR picture; odd sides repeat their last row or column."""
    bottom, right = image.shape[0] % 2, image.shape[1] % 2
    if bottom or right:
        image = cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
    found: UInt8 = cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420)
    return found


def _works(name: str) -> bool:
    # a library is often there without its device
    try:
        VideoEncoder(name, *MAX_TRIED_PX, fps=30, key_every_s=1)
    except SinkError:
        return False
    return True
