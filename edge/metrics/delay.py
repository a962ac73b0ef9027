"""How late something comes, in the long run."""

from __future__ import annotations

# one that is late counts so little that it moves nothing
SMOOTHING = 8
# a larger difference is another way
STEP_NS = 500_000_000


class Delay:
    """A delay that is measured again and again.

    Attributes:
        ns: what it is; 0 before it is known.
    """

    __slots__ = ("ns",)

    def __init__(self) -> None:
        self.ns = 0

    def note(self, ns: int) -> None:
        """It was so long this time."""
        is_other = abs(ns - self.ns) > STEP_NS or not self.ns
        self.ns = ns if is_other else self.ns + (ns - self.ns) // SMOOTHING
