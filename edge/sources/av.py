"""PyAV as a source: RTSP over TCP or UDP, HTTP MJPEG, HLS, RTMP, SRT and files, with limits on every wait."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from av.codec.context import Flags

from edge.errors import SourceError
from edge.interfaces import SourceInfo
from edge.sources.prepared import MakeRoom
from edge.types import UInt8
from edge.uris import kind_of, masked

OPEN_TIMEOUT_S = 8.0
READ_TIMEOUT_S = 8.0
# a lossy network tears some pictures; so many in a row are a broken stream
MAX_BROKEN_PACKETS = 50
# the order in which hardware is tried
HARDWARE = ("cuda", "vaapi", "qsv", "videotoolbox", "drm")
# decoders print what we tell better, and addresses with passwords
logging.getLogger("libav").setLevel(logging.CRITICAL)


class AvSource:
    """One FFmpeg container opened by PyAV; see ``edge.interfaces.Source``.

    Attributes:
        make_room: asked for memory for each picture; None is answered by memory of our own.
    """

    def __init__(self, uri: str, *, transport: str = "tcp", hardware: str = "off") -> None:
        """Open it and decode the first picture, which proves the decoder.

        Args:
            uri: the address.
            transport: of RTSP, ``tcp`` or ``udp``.
            hardware: ``off``, ``auto`` or a device type such as ``cuda``; software takes over where it fails.

        Raises:
            SourceError: it cannot be opened or is no video.
        """
        self._label = masked(uri)
        self._is_file = kind_of(uri) == "file"
        self.make_room: MakeRoom = lambda height, width: None
        if self._is_file and not Path(uri).is_file():
            raise SourceError(f"{self._label}: no such file; expected a video or an address such as rtsp://…")
        self._container = self._open(uri, _options(uri, transport, is_live=not self._is_file), hardware)
        self._num_broken = 0
        self._last_pts_ns = -1
        self._first_pts_ns: int | None = None
        try:
            self._stream = self._video()
            self._frames = self._decoded()
            self._first = next(self._frames, None)
            if self._first is None:
                raise SourceError(f"{self._label}: opened, but it gives no picture; is it a video that FFmpeg decodes?")
        except SourceError:
            self.close()
            raise
        self.info = self._describe(self._first)

    def read(self) -> tuple[UInt8, int | None] | None:
        frame, self._first = (self._first, None) if self._first is not None else (next(self._frames, None), None)
        if frame is not None:
            return self._image(frame), self._pts_ns(frame) if self._is_file else None
        if self._is_file:
            return None
        raise SourceError(f"{self._label}: the stream broke off")

    def close(self) -> None:
        self._frames = iter(())
        self._container.close()

    def _image(self, frame: Any) -> UInt8:
        """(H, W, 3) uint8 BGR, in the memory that the reader offers if there is any."""
        room = self.make_room(frame.height, frame.width)
        if room is None:
            image: UInt8 = np.ascontiguousarray(frame.to_ndarray(format="bgr24"))
            return image
        plane = frame.reformat(format="bgr24").planes[0]
        rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
        np.copyto(room, rows[:, : plane.width * 3].reshape(room.shape))
        return room

    def _open(self, uri: str, options: dict[str, str], hardware: str) -> Any:
        limits = None if self._is_file else (OPEN_TIMEOUT_S, READ_TIMEOUT_S)
        try:
            return av.open(uri, options=options, timeout=limits, hwaccel=_accelerator(hardware))
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise SourceError(f"{self._label}: cannot be opened: {_reason(error)}") from None

    def _video(self) -> Any:
        if not self._container.streams.video:
            raise SourceError(f"{self._label}: there is no video in it")
        stream = self._container.streams.video[0]
        # decoding whole pictures on several threads costs one picture of delay each
        stream.thread_type = "AUTO" if self._is_file else "SLICE"
        if not self._is_file:
            stream.codec_context.flags |= Flags.low_delay
        return stream

    def _decoded(self) -> Iterator[Any]:
        """Pictures until the end; packets that are damaged are passed over, but not for ever."""
        packets = iter(self._container.demux(self._stream))
        while True:
            try:
                packet = next(packets, None)
                if packet is None:
                    return
                frames = packet.decode()
            except av.error.InvalidDataError as error:
                self._num_broken += 1
                if self._num_broken > MAX_BROKEN_PACKETS:
                    raise SourceError(f"{self._label}: {self._num_broken} damaged packets in a row: {error}") from None
                continue
            except av.error.EOFError:
                return
            except (av.error.FFmpegError, OSError) as error:
                raise SourceError(f"{self._label}: the stream broke off: {_reason(error)}") from None
            for frame in frames:
                self._num_broken = 0
                yield frame

    def _pts_ns(self, frame: Any) -> int:
        """Media time since the first picture; where it stands still or jumps back, one period after the last."""
        stated = self._last_pts_ns
        if frame.pts is not None and frame.time_base is not None:
            stated = round(frame.pts * frame.time_base * 1_000_000_000)
            if self._first_pts_ns is None:
                self._first_pts_ns = stated
            stated -= self._first_pts_ns
        if stated <= self._last_pts_ns:
            stated = self._last_pts_ns + round(1e9 / (self.info.fps or 25.0)) if self._last_pts_ns >= 0 else 0
        self._last_pts_ns = stated
        return stated

    def _describe(self, frame: Any) -> SourceInfo:
        rate = self._stream.average_rate or self._stream.guessed_rate
        fps = float(rate) if rate else 0.0
        context = self._stream.codec_context
        by = "hardware" if getattr(context, "is_hwaccel", False) else "software"
        return SourceInfo(
            width=frame.width,
            height=frame.height,
            fps=fps if 0 < fps < 1000 else 0.0,
            is_live=not self._is_file,
            num_frames=self._stream.frames or None if self._is_file else None,
            decoder=f"PyAV {context.codec.name}, {by}",
        )


def _options(uri: str, transport: str, *, is_live: bool) -> dict[str, str]:
    if not is_live:
        return {}
    # a live picture is worth more than a smooth one: no buffer, no reordering, a short look at the stream
    options = {"fflags": "nobuffer", "flags": "low_delay", "probesize": "500000", "analyzeduration": "300000"}
    if uri.lower().startswith(("rtsp:", "rtsps:")):
        options |= {"rtsp_transport": transport, "max_delay": "200000"}
    return options


def _accelerator(hardware: str) -> Any:
    """The hardware decoder to try first, None for software; FFmpeg falls back by itself."""
    if hardware == "off":
        return None
    from av.codec.hwaccel import HWAccel, hwdevices_available

    present = hwdevices_available()
    chosen = hardware if hardware != "auto" else next((kind for kind in HARDWARE if kind in present), None)
    if chosen is None or not _has_device(chosen):
        return None
    try:
        return HWAccel(device_type=chosen, allow_software_fallback=True)
    except (av.error.FFmpegError, ValueError, RuntimeError):
        return None


def _has_device(kind: str) -> bool:
    """Whether the machine has the device at all: asking FFmpeg for one that is missing prints errors."""
    nodes = {"cuda": "/dev/nvidia0", "vaapi": "/dev/dri/renderD128", "qsv": "/dev/dri/renderD128", "drm": "/dev/dri"}
    return kind not in nodes or Path(nodes[kind]).exists()


def _reason(error: Exception) -> str:
    """What FFmpeg says, without the address, which may hold a password."""
    match error:
        case av.error.HTTPUnauthorizedError():
            return "the password is not accepted (401)"
        case av.error.HTTPNotFoundError():
            return "there is nothing at this address (404)"
        case av.error.TimeoutError() | av.error.ExitError():
            return "it does not answer in time"
        case av.error.ConnectionRefusedError():
            return "the connection is refused; is the camera on and the port right?"
        case _:
            return getattr(error, "strerror", None) or type(error).__name__
