"""What became of a model swap."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from edge.pipeline.swap.agreement import Agreement

Phase = Literal["trial", "tests", "load", "golden", "shadow", "take over", "probation"]
Outcome = Literal["kept", "refused", "rolled back"]


@dataclass(frozen=True, slots=True)
class SwapReport:
    """What became of a swap.

    Attributes:
        model: name in the configuration.
        path: the new model file.
        outcome: ``kept``: the new one runs; ``refused``: it never ran for cameras; ``rolled back``: it did, and failed.
        reason: why not, empty where it was kept.
        phase: the last one that was reached.
        agreement: of the shadow run, None where it was not reached.
        old_ms, new_ms: median milliseconds of the engine per frame in the shadow run.
        seconds: of the whole swap.
    """

    model: str
    path: str
    outcome: Outcome
    reason: str
    phase: Phase
    agreement: Agreement | None = None
    old_ms: float = 0.0
    new_ms: float = 0.0
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)
