"""A source that an installed package brings, held to the deadlines and to what a source promises."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edge.addresses.uris import masked, scheme_of
from edge.errors import PartError, SourceError
from edge.interfaces import SourceInfo
from edge.packages import plugins
from edge.threads.guard import Guard

if TYPE_CHECKING:
    from edge.sources.deadlines import Deadlines
    from edge.types import UInt8

# what hangs is left behind, and the source is opened again
CLOSE_LIMIT_S = 1.0


class PluginSource:
    """The source ``mine`` of an address ``mine://…``; see ``edge.interfaces.Source``.

    Any failure breaks it: like a camera it is closed and opened again.
    """

    def __init__(self, uri: str, deadlines: Deadlines) -> None:
        """Open it.

        Raises:
            SourceError: it cannot be opened, or not in time.
        """
        self._guard = Guard(masked(uri), deadlines.stall_s)
        try:
            self._source, self.info = self._guard.open(lambda: _opened(uri), deadlines.open_s)
        except PartError as error:
            raise SourceError(str(error)) from None

    def read(self) -> tuple[UInt8, int | None] | None:
        try:
            return self._guard.run(lambda: _checked(self._source.read()))
        except PartError as error:
            raise SourceError(str(error)) from None

    def close(self) -> None:
        try:
            self._guard.close(self._source.close, CLOSE_LIMIT_S)
        except PartError as error:
            raise SourceError(str(error)) from None


def _opened(uri: str) -> tuple[Any, SourceInfo]:
    source = plugins.make("edge.sources", scheme_of(uri), uri)
    if not isinstance(source.info, SourceInfo):
        raise PartError(f"info: expected a SourceInfo, found {type(source.info).__name__}")
    return source, source.info


def _checked(picture: object) -> tuple[UInt8, int | None] | None:
    if picture is None:
        return None
    match picture:
        case (np.ndarray() as image, int() | None as time_ns):
            if image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8:
                return image, time_ns
            found = f"{image.shape} {image.dtype}"
        case _:
            found = type(picture).__name__
    raise PartError(f"read: expected ((H, W, 3) uint8 BGR, nanoseconds or None) or None, found {found}")
