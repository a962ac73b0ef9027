"""Which source an address names; its library is imported only then."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from edge.addresses.uris import may_hang
from edge.interfaces import CameraSource
from edge.sources.deadlines import DEFAULT_DEADLINES, Deadlines
from edge.sources.direct import DEFAULT_DECODING, Decoding, open_direct
from edge.sources.isolation.process import SpareChild
from edge.sources.isolation.ring import RingLimit
from edge.sources.prepared import Preparation, PreparedSource
from edge.video.packets import PacketTaker

if TYPE_CHECKING:
    from edge.sources.isolation.source import IsolatedSource

DEFAULT_PREPARATION = Preparation()


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
    allow_hosts: Sequence[str] = (),
) -> CameraSource:
    """Open an address: ``synthetic://street``, ``0``, ``/dev/video0``, ``rtsp://…``, ``gst:…``, a file or a folder;
    or ``mine://…``, which the source ``mine`` of an installed package opens.

    Args:
        uri: the address.
        decoding: what decodes it.
        preparation: what is done to its pictures.
        is_stopping: asked while waiting for an isolated source; true ends the wait.
        deadlines: when it is given up; in this process only PyAV and OpenCV's FFmpeg keep to them.
        is_isolated: whether it runs in a child process; None isolates what may hang: network, devices, installed parts.
        rings: bounds the shared memory of an isolated source over its openings.
        spare: keeps the process of an isolated source whose opening failed.
        packets: takes the coded pictures of a network address or a video file, before they are decoded.
        allow_hosts: whom an isolated source may be sent on to by its camera; ``*`` for everybody.

    Raises:
        SourceError: it cannot be opened.
        MissingError: the machine lacks what it needs.
    """
    if may_hang(uri) if is_isolated is None else is_isolated:
        from edge.sources.isolation.source import IsolatedSource

        options = {"decoding": asdict(decoding), "preparation": preparation.as_json()}
        return IsolatedSource(
            uri,
            options=options,
            deadlines=deadlines,
            is_stopping=is_stopping,
            rings=rings,
            spare=spare,
            packets=packets,
            allow_hosts=allow_hosts,
        )
    # what is decoded in the engine's own process need not leave the GPU for it
    decoding = replace(decoding, stays_on_gpu=decoding.hardware == "cuda")
    return PreparedSource(open_direct(uri, decoding, packets, deadlines), preparation)


def open_packets(
    uri: str,
    packets: PacketTaker,
    *,
    decoding: Decoding,
    is_stopping: Callable[[], bool],
    deadlines: Deadlines,
    spare: SpareChild,
    allow_hosts: Sequence[str] = (),
) -> IsolatedSource:
    """Open a network address of which only the packets are wanted: nothing is decoded; see ``open_source``.

    Raises:
        SourceError: it cannot be opened.
        MissingError: the machine lacks what it needs.
    """
    from edge.sources.isolation.source import IsolatedSource

    return IsolatedSource(
        uri,
        options={"decoding": asdict(decoding), "is_decoded": False},
        deadlines=deadlines,
        is_stopping=is_stopping,
        spare=spare,
        packets=packets,
        allow_hosts=allow_hosts,
    )
