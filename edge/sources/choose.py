"""Which source an address names; its library is imported only then."""

from __future__ import annotations

from pathlib import Path

from edge.interfaces import Source
from edge.uris import kind_of


def open_source(uri: str) -> Source:
    """Open an address: ``synthetic://street``, ``0``, ``/dev/video0``, ``rtsp://…``, ``gst:…``, a file or a folder.

    Raises:
        SourceError: it cannot be opened.
        MissingError: the machine lacks what it needs.
    """
    if kind_of(uri) == "synthetic":
        from edge.sources.synthetic import open_synthetic

        return open_synthetic(uri)
    path = Path(uri)
    from edge.sources.images import SUFFIXES, ImageSource

    if kind_of(uri) == "file" and (path.is_dir() or (path.is_file() and path.suffix.lower() in SUFFIXES)):
        return ImageSource(path)
    from edge.sources.opencv import OpenCvSource

    return OpenCvSource(uri)
