"""What a user may write in TOML about the recording of a stream, and about the track store."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from edge.config.section import Section


class RecordSettings(Section):
    """How a stream is recorded. Files lie in ``FOLDER/STREAM``, next to an ``index.jsonl``.

    Attributes:
        mode: ``continuous``, or ``events``: one clip per event or group of events.
        content: ``annotated``: with boxes and labels in the picture; ``plain``: without; ``source``: the packets of
            the camera as they come, which costs no encoding and loses nothing.
        segment_s: length of a file in continuous mode; the longest clip in events mode.
        fragment_s: what may be lost at most when the power goes.
        pre_roll_s, post_roll_s: what a clip shows before and after its event.
        pre_roll_mb: the most memory for the pre-roll.
        max_age_days, max_gb: what is kept; the oldest files go first.
        reserve_mb: disk space that is left free; the oldest files go first, then recording pauses.
    """

    folder: Path
    mode: Literal["continuous", "events"] = "continuous"
    content: Literal["annotated", "plain", "source"] = "annotated"
    segment_s: float = Field(default=300, ge=1, le=86_400)
    fragment_s: float = Field(default=2, ge=0.2, le=60)
    pre_roll_s: float = Field(default=5, ge=0, le=300)
    post_roll_s: float = Field(default=5, ge=0, le=300)
    pre_roll_mb: float = Field(default=32, ge=1, le=4096)
    max_age_days: float | None = Field(default=None, gt=0, le=3650)
    max_gb: float | None = Field(default=None, gt=0, le=1_000_000)
    reserve_mb: float = Field(default=256, ge=0, le=1_000_000)


class TrackStoreSettings(Section):
    """What every stream saw and decided, kept for ``edge why``, ``edge what-if`` and ``edge tracks``.

    Attributes:
        folder: one folder per stream lies in it; None: ``tracks`` in ``state_dir``.
        block_s: what may be missing at most when the power goes; longer blocks are smaller.
        max_days, max_mb: what is kept of each stream; the oldest parts go first.
    """

    folder: Path | None = None
    block_s: float = Field(default=20, ge=0.2, le=300)
    max_days: float = Field(default=14, gt=0, le=3650)
    max_mb: float = Field(default=350, ge=16, le=1_000_000)
