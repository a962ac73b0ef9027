"""How long a source may stay silent and how large its decoder may grow."""

from __future__ import annotations

from dataclasses import dataclass, replace

# the child gives up its opening so much earlier, by this share at most: it says why, and can be asked again
OPEN_LEAD_S = 2.0
OPEN_LEAD_SHARE = 0.2
# a child whose pictures stop is ended from outside first, however it hangs
STALL_LAG_S = 2.0


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long a source may stay silent, and how large its decoder may grow, before it is ended.

    Attributes:
        open_s: seconds until it is opened.
        stall_s: seconds between two pictures.
        memory_mb: private memory of the child, in 10^6 bytes: what leaks is replaced.
    """

    open_s: float = 10.0
    stall_s: float = 5.0
    memory_mb: float = 1500.0

    def of_child(self) -> Deadlines:
        """What the child itself keeps to."""
        lead_s = min(OPEN_LEAD_S, OPEN_LEAD_SHARE * self.open_s)
        return replace(self, open_s=self.open_s - lead_s, stall_s=self.stall_s + STALL_LAG_S)


DEFAULT_DEADLINES = Deadlines()
