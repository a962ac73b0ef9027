"""A picture that lies on a GPU, as a hardware decoder gives it: it comes down when somebody asks for its pixels, once.

Not yet run on a GPU; see docs/gpu.md.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from edge.pictures.dlpack import Place
from edge.pictures.planes import PlaneForm, Planes, UInt8


class GpuPlanes(Planes):
    """NV12 on a GPU; all that ``Planes`` can do is done with the copy of it that was brought down.

    Attributes:
        places: of luma and of the pairs of chroma. They may be read on the GPU by what waits for the default stream.
    """

    __slots__ = ("_bring_down", "_down", "_down_lock", "places")

    def __init__(self, form: PlaneForm, places: Sequence[Place], bring_down: Callable[[], Sequence[UInt8]]) -> None:
        """Args: what it looks like, where it lies, and what copies it into memory of the processor."""
        self.form = form
        self.places = tuple(places)
        self._bring_down = bring_down
        self._down: tuple[UInt8, ...] | None = None
        self._convert = None
        self._bgr: UInt8 | None = None
        self._lock = threading.Lock()
        self._down_lock = threading.Lock()

    @property
    def device(self) -> int | None:
        """Number of the GPU."""
        return self.places[0].device

    @property
    def is_down(self) -> bool:
        """Whether somebody has asked for its pixels."""
        return self._down is not None

    @property
    def arrays(self) -> tuple[UInt8, ...]:  # type: ignore[override]  # brought down when it is asked for
        with self._down_lock:
            if self._down is None:
                self._down = tuple(self._bring_down())
                for array in self._down:
                    array.flags.writeable = False
            return self._down

    def freeze(self) -> None:
        """Nobody can write to it: what is brought down is read-only."""
