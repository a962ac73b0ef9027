"""Which source an address names; its library is imported only then."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from edge.capture.health import Change
from edge.capture.process import SpareChild
from edge.capture.ring import RingLimit
from edge.interfaces import Source
from edge.recording.packets import PacketTaker
from edge.sources.isolated import DEFAULT_DEADLINES, Deadlines
from edge.sources.prepared import Preparation, PreparedSource
from edge.uris import kind_of

DEFAULT_PREPARATION = Preparation()
# a folder with this file in it is a raw recording (edge.sources.replay)
INDEX = "index.jsonl"


@dataclass(frozen=True, slots=True)
class Decoding:
    """What decodes an address.

    Attributes:
        decoder: ``opencv``, ``av`` (PyAV), or ``auto``: PyAV for network addresses where it is installed.
        transport: of RTSP: ``tcp`` or ``udp``.
        hardware: ``off``, ``auto`` or the device type of a hardware decoder; falls back to software, and says so.
    """

    decoder: str = "auto"
    transport: str = "tcp"
    hardware: str = "off"


DEFAULT_DECODING = Decoding()


class CameraSource(Source, Protocol):
    """A source that also tells when its pictures were taken, what it held back and how the camera is."""

    @property
    def captured_ns(self) -> int: ...

    def take_drops(self) -> dict[str, int]:
        """Cause → pictures that were taken but not given since the last call."""

    def take_changes(self) -> list[Change]:
        """What changed in the camera's health since the last call."""


def open_source(
    uri: str,
    *,
    decoding: Decoding = DEFAULT_DECODING,
    preparation: Preparation = DEFAULT_PREPARATION,
    is_stopping: Callable[[], bool] = lambda: False,
    deadlines: Deadlines = DEFAULT_DEADLINES,
    is_isolated: bool | None = None,
    rings: RingLimit | None = None,
    spare: SpareChild | None = None,
    packets: PacketTaker | None = None,
) -> CameraSource:
    """Open an address: ``synthetic://street``, ``0``, ``/dev/video0``, ``rtsp://…``, ``gst:…``, a file or a folder.

    Args:
        uri: the address.
        decoding: what decodes it.
        preparation: what is done to its pictures.
        is_stopping: asked while waiting for an isolated source; true ends the wait.
        deadlines: when it is given up; in this process only PyAV and OpenCV's FFmpeg keep to them.
        is_isolated: whether it runs in a child process; None isolates what may hang: network and devices.
        rings: bounds the shared memory of an isolated source over its openings.
        spare: keeps the process of an isolated source whose opening failed.
        packets: takes the coded pictures of a network address or a video file, before they are decoded.

    Raises:
        SourceError: it cannot be opened.
        MissingError: the machine lacks what it needs.
    """
    may_hang = kind_of(uri) in ("network", "device", "gstreamer")
    if is_isolated if is_isolated is not None else may_hang:
        from edge.sources.isolated import IsolatedSource

        options = {"decoding": asdict(decoding), "preparation": preparation.as_json()}
        return IsolatedSource(
            uri,
            options=options,
            deadlines=deadlines,
            is_stopping=is_stopping,
            rings=rings,
            spare=spare,
            packets=packets,
        )
    return PreparedSource(open_direct(uri, decoding, packets, deadlines), preparation)


def open_direct(
    uri: str, decoding: Decoding, packets: PacketTaker | None = None, deadlines: Deadlines = DEFAULT_DEADLINES
) -> Source:
    """The source alone, in this process; ``packets`` takes the coded pictures of what PyAV reads."""
    if kind_of(uri) == "synthetic":
        from edge.sources.synthetic import open_synthetic

        return open_synthetic(uri)
    path = Path(uri)
    if kind_of(uri) == "file" and (path / INDEX).is_file():
        from edge.sources.replay import ReplaySource

        return ReplaySource(path)
    from edge.sources.images import SUFFIXES, ImageSource

    if kind_of(uri) == "file" and (path.is_dir() or (path.is_file() and path.suffix.lower() in SUFFIXES)):
        return ImageSource(path)
    if packets is not None or _uses_av(uri, decoding):
        from edge.sources.av import AvSource

        return AvSource(
            uri,
            transport=decoding.transport,
            hardware=decoding.hardware,
            packets=packets,
            open_timeout_s=deadlines.open_s,
            read_timeout_s=deadlines.stall_s,
        )
    from edge.sources.opencv import OpenCvSource

    return OpenCvSource(
        uri, transport=decoding.transport, open_timeout_s=deadlines.open_s, read_timeout_s=deadlines.stall_s
    )


def _uses_av(uri: str, decoding: Decoding) -> bool:
    """Network addresses go to PyAV: it gives up in time and says what decodes; files and devices to OpenCV."""
    if decoding.decoder != "auto":
        return decoding.decoder == "av"
    return kind_of(uri) == "network" and importlib.util.find_spec("av") is not None
