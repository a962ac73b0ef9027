"""Which source an address names; its library is imported only then."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge.interfaces import Source
from edge.sources.isolated import Deadlines
from edge.uris import kind_of


def open_source(
    uri: str,
    *,
    options: dict[str, Any] | None = None,
    is_stopping: Callable[[], bool] = lambda: False,
    on_drop: Callable[[int], None] = lambda count: None,
    deadlines: Deadlines | None = None,
    is_isolated: bool | None = None,
) -> Source:
    """Open an address: ``synthetic://street``, ``0``, ``/dev/video0``, ``rtsp://…``, ``gst:…``, a file or a folder.

    Args:
        uri: the address.
        options: keyword arguments of ``open_direct``.
        is_stopping: asked while waiting for an isolated source; true ends the wait.
        on_drop: told how many pictures an isolated source had to drop.
        deadlines: of an isolated source.
        is_isolated: whether it runs in a child process; None isolates what may hang: network and devices.

    Raises:
        SourceError: it cannot be opened.
        MissingError: the machine lacks what it needs.
    """
    may_hang = kind_of(uri) in ("network", "device", "gstreamer")
    if is_isolated if is_isolated is not None else may_hang:
        from edge.sources.isolated import DEFAULT_DEADLINES, IsolatedSource

        limits = deadlines or DEFAULT_DEADLINES
        return IsolatedSource(uri, options=options, deadlines=limits, is_stopping=is_stopping, on_drop=on_drop)
    return open_direct(uri, **(options or {}))


def open_direct(uri: str) -> Source:
    """As ``open_source``, in this process."""
    if kind_of(uri) == "synthetic":
        from edge.sources.synthetic import open_synthetic

        return open_synthetic(uri)
    path = Path(uri)
    from edge.sources.images import SUFFIXES, ImageSource

    if kind_of(uri) == "file" and (path.is_dir() or (path.is_file() and path.suffix.lower() in SUFFIXES)):
        return ImageSource(path)
    from edge.sources.opencv import OpenCvSource

    return OpenCvSource(uri)
