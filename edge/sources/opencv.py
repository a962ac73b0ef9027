"""OpenCV as a source: files, cameras, network addresses and GStreamer pipelines."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import cv2

from edge.addresses.uris import SourceKind, kind_of, masked
from edge.errors import MissingError, SourceError
from edge.interfaces import SourceInfo
from edge.sources.deadlines import DEFAULT_DEADLINES, Deadlines
from edge.types import UInt8

# nobuffer and low_delay: a live picture is worth more than a smooth one (on files they lose the last pictures);
# TCP: no torn pictures on a lossy network
LIVE_OPTIONS = "rtsp_transport;{transport}|fflags;nobuffer|flags;low_delay"
_OPTIONS_KEY = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
_options_lock = threading.Lock()
CSI = re.compile(r"csi://(?P<sensor>\d)(?:\?(?P<query>.*))?")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")


class OpenCvSource:
    """One ``cv2.VideoCapture``; see ``edge.interfaces.Source``."""

    def __init__(self, uri: str, *, transport: str = "tcp", deadlines: Deadlines = DEFAULT_DEADLINES) -> None:
        """Open it.

        Args:
            uri: the address.
            transport: of RTSP, ``tcp`` or ``udp``.
            deadlines: of a network address: limits of connecting and of the wait for each packet.

        Raises:
            SourceError: it cannot be opened or is no video.
            MissingError: this OpenCV lacks what the address needs.
        """
        self._label = masked(uri)
        kind = kind_of(uri)
        self._is_file = kind == "file"
        self._capture: Any = _open(uri, kind, self._label, transport, deadlines)
        self._first: UInt8 | None = self._grab()
        if self._first is None:
            self.close()
            raise SourceError(f"{self._label}: opened, but it gives no picture; is it a video that OpenCV can decode?")
        self.info = self._describe(self._first)
        self._last_pts_ns = -1

    def read(self) -> tuple[UInt8, int | None] | None:
        image, self._first = (self._first, None) if self._first is not None else (self._grab(), None)
        if image is not None:
            return image, self._pts_ns() if self._is_file else None
        if self._is_file:
            return None
        raise SourceError(f"{self._label}: the stream broke off")

    def close(self) -> None:
        self._capture.release()

    def _grab(self) -> UInt8 | None:
        has_picture, image = self._capture.read()
        return image if has_picture else None

    def _pts_ns(self) -> int:
        """The container's time of the picture; where it stands still or is missing, one period after the last."""
        stated = int(self._capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6)
        if stated <= self._last_pts_ns:
            stated = self._last_pts_ns + round(1e9 / (self.info.fps or 25.0))
        self._last_pts_ns = stated
        return stated

    def _describe(self, image: UInt8) -> SourceInfo:
        count = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)) if self._is_file else 0
        fps = float(self._capture.get(cv2.CAP_PROP_FPS))
        return SourceInfo(
            width=image.shape[1],
            height=image.shape[0],
            fps=fps if 0 < fps < 1000 else 0.0,
            is_live=not self._is_file,
            num_frames=count if count > 0 else None,
            decoder=f"opencv {self._capture.getBackendName()}",
        )


def _open(uri: str, kind: SourceKind, label: str, transport: str, deadlines: Deadlines) -> Any:
    if kind == "file" and not Path(uri).is_file():
        raise SourceError(f"{label}: no such file; expected a video, a folder of images or an address such as rtsp://…")
    if kind == "gstreamer" and "GStreamer:                   YES" not in cv2.getBuildInformation():
        raise MissingError(
            f"{label}: this OpenCV was built without GStreamer; on Jetson use the system's OpenCV "
            "(python3 -m venv --system-site-packages), see docs/jetson.md"
        )
    match kind:
        case "device":
            capture = cv2.VideoCapture(_device(uri, label), cv2.CAP_V4L2)
            # one buffer: the next read gives the newest picture
            capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        case "gstreamer":
            capture = cv2.VideoCapture(gstreamer_pipeline(uri), cv2.CAP_GSTREAMER)
        case _:
            live = LIVE_OPTIONS.format(transport=transport)
            capture = _open_ffmpeg(uri, live, _limits(deadlines)) if kind == "network" else _open_ffmpeg(uri)
    if not capture.isOpened():
        raise SourceError(f"{label}: cannot be opened; {_advice(kind)}")
    return capture


def _limits(deadlines: Deadlines) -> list[int]:
    """Pairs of a property of ``cv2.VideoCapture`` and its value."""
    open_ms, stall_ms = round(deadlines.open_s * 1000), round(deadlines.stall_s * 1000)
    return [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, open_ms, cv2.CAP_PROP_READ_TIMEOUT_MSEC, stall_ms]


def _open_ffmpeg(uri: str, live: str = "", properties: Sequence[int] = ()) -> Any:
    """Args: address, FFmpeg's options of a network address (those of the environment win), properties."""
    # OpenCV takes FFmpeg's options from the environment only, and reads them while it opens
    with _options_lock:
        options = os.environ.pop(_OPTIONS_KEY, None)
        if live:
            os.environ[_OPTIONS_KEY] = options or live
        try:
            return cv2.VideoCapture(uri, cv2.CAP_FFMPEG, list(properties))
        finally:
            os.environ.pop(_OPTIONS_KEY, None)
            if options is not None:
                os.environ[_OPTIONS_KEY] = options


def _device(uri: str, label: str) -> int | str:
    """The number or node of a V4L2 camera. A stable name (/dev/v4l/by-id/…) is looked up at each opening."""
    name = uri.removeprefix("v4l2://")
    if name.isdigit():
        return int(name)
    path = Path(name)
    if not path.exists():
        present = sorted(str(item) for item in Path("/dev/v4l/by-id").glob("*index0")) or sorted(
            str(item) for item in Path("/dev").glob("video*")
        )
        raise SourceError(f"{label}: no such device; present: {', '.join(present) or 'none'}")
    return str(path.resolve())


def gstreamer_pipeline(uri: str) -> str:
    """The pipeline of ``gst:PIPELINE``, or of ``csi://0?size=1920x1080&fps=30&flip=0``: a Jetson's CSI camera.

    Raises:
        SourceError: the address has an unknown key or an impossible value.
    """
    if uri.startswith("gst:"):
        return uri.removeprefix("gst:")
    found = CSI.fullmatch(uri)
    values = dict(parse_qsl(found["query"] or "")) if found else {}
    size = re.fullmatch(r"(\d{2,4})x(\d{2,4})", values.get("size", "1920x1080"))
    fps, flip = values.get("fps", "30"), values.get("flip", "0")
    is_known = found is not None and values.keys() <= {"size", "fps", "flip"}
    if not is_known or found is None or size is None or not fps.isdecimal() or flip not in tuple("01234567"):
        raise SourceError(f"{uri}: expected csi://SENSOR?size=1920x1080&fps=30&flip=0 (flip as in nvvidconv, 0 to 7)")
    return (
        f"nvarguscamerasrc sensor-id={found['sensor']} ! "
        f"video/x-raw(memory:NVMM),width={size[1]},height={size[2]},framerate={fps}/1 ! nvvidconv flip-method={flip} ! "
        "video/x-raw,format=BGRx ! videoconvert ! video/x-raw,format=BGR ! appsink drop=true max-buffers=1 sync=false"
    )


def _advice(kind: SourceKind) -> str:
    match kind:
        case "device":
            return "is the camera plugged in, and may this user read it (group video)? run: edge doctor"
        case "network":
            return "is the address right, the camera on and the password valid?"
        case "gstreamer":
            return "does the pipeline end in 'appsink'?"
        case _:
            return "is it a video file?"
