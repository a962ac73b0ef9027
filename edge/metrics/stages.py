"""The stages that a frame passes and the reasons why one is dropped: every name that is counted, in one place.

A stage belongs to a thread: what is summed up to say how busy that thread is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias, get_args

ModelStage = Literal["letterbox", "infer", "head"]
Stage = Literal["read", ModelStage, "track", "second_stage", "analytics", "added", "overlay", "output"]
# nanoseconds of one frame
StageNs: TypeAlias = Mapping[Stage, int]

CAPTURE_STAGES: Final[tuple[Stage, ...]] = ("read",)
INFERENCE_STAGES: Final[tuple[Stage, ...]] = ("letterbox", "infer", "head", "track", "second_stage", "analytics")
# added: by the stages of installed packages
OUTPUT_STAGES: Final[tuple[Stage, ...]] = ("added", "overlay", "output")
STAGES: Final[tuple[Stage, ...]] = get_args(Stage)

DropCause = Literal[
    "drop_max_fps",
    "drop_no_motion",
    "drop_ring_full",
    "drop_replaced",
    "drop_stopped",
    "drop_too_old",
    "drop_governor",
    "drop_output_full",
    "drop_no_engine",
    "drop_switched_off",
]
DROP_CAUSES: Final[tuple[DropCause, ...]] = get_args(DropCause)
# what counters of a stream are called
Count = Literal[DropCause, "captured", "inferred", "emitted", "objects", "reconnects", "sink_errors", "unread"]
