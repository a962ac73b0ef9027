"""Which source an address names, opened in this process; its library is imported only then."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from edge.addresses.uris import kind_of
from edge.interfaces import Source
from edge.sources.deadlines import DEFAULT_DEADLINES, Deadlines
from edge.video.packets import PacketTaker

# a folder with this file in it is a raw capture (edge.sources.replay)
INDEX = "index.jsonl"


@dataclass(frozen=True, slots=True)
class Decoding:
    """What decodes an address.

    Attributes:
        decoder: ``opencv``, ``av`` (PyAV), or ``auto``: PyAV for network addresses and files where it is installed.
        transport: of RTSP: ``tcp`` or ``udp``.
        hardware: ``off``, ``auto`` or the device type of a hardware decoder; falls back to software, and says so.
        hardware_device: number of the NVIDIA GPU that decodes.
        sound: whether the packets of its sound go with those of the pictures.
        level_s: how loud it is is measured over so long; 0: it is not measured.
        group_s: packets that nobody watches are passed on several at a time, this late at most; 0: each at once.
        stays_on_gpu: pictures stay where ``cuda`` decodes them, until somebody asks for their pixels.
    """

    decoder: str = "auto"
    transport: str = "tcp"
    hardware: str = "off"
    hardware_device: int = 0
    sound: bool = False
    level_s: float = 0.0
    group_s: float = 0.0
    stays_on_gpu: bool = False


DEFAULT_DECODING = Decoding()


def open_direct(
    uri: str, decoding: Decoding, packets: PacketTaker | None = None, deadlines: Deadlines = DEFAULT_DEADLINES
) -> Source:
    """The source alone, in this process; ``packets`` takes the coded pictures of what PyAV reads."""
    if kind_of(uri) == "synthetic":
        from edge.sources.synthetic import open_synthetic

        return open_synthetic(uri)
    if kind_of(uri) == "plugin":
        from edge.sources.plugin import PluginSource

        return PluginSource(uri, deadlines)
    path = Path(uri)
    if kind_of(uri) == "file" and (path / INDEX).is_file():
        from edge.sources.replay import ReplaySource

        return ReplaySource(path)
    from edge.sources.images import SUFFIXES, ImageSource

    if kind_of(uri) == "file" and (path.is_dir() or (path.is_file() and path.suffix.lower() in SUFFIXES)):
        return ImageSource(path)
    if packets is not None or uses_av(uri, decoding.decoder):
        from edge.sources.av import AvSource

        return AvSource(
            uri,
            transport=decoding.transport,
            hardware=decoding.hardware,
            hardware_device=decoding.hardware_device,
            stays_on_gpu=decoding.stays_on_gpu,
            packets=packets,
            deadlines=deadlines,
            has_sound=decoding.sound,
            level_s=decoding.level_s,
        )
    from edge.sources.opencv import OpenCvSource

    return OpenCvSource(uri, transport=decoding.transport, deadlines=deadlines)


def uses_av(uri: str, decoder: str = "auto") -> bool:
    """Network addresses and files go to PyAV: it gives planes, and gives up in time; devices go to OpenCV."""
    if decoder != "auto":
        return decoder == "av"
    return kind_of(uri) in ("network", "file") and importlib.util.find_spec("av") is not None
