"""What a user may write in TOML about the night shift: which frames are kept, what learns from them, and when."""

from __future__ import annotations

from datetime import time
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from edge.config.section import Section

WINDOW = r"^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$"


class NightSettings(Section):
    """Frames worth a label are kept by day; by night the model of the site learns from them: docs/night.md.

    Attributes:
        enabled: false: nothing is kept and nothing learns; what was kept stays.
        folder: of frames, labels, models and reports; None: ``night`` in ``state_dir``.
        model: name of the model that learns; None: the first one.
        start: what it learns from: a checkpoint of ``edge train``, or a float ONNX file; None: the model's own file.
        teachers: detectors that label, slowly and well; several of them vote.
        sealed: labelled data sets that judge and never teach.
        replay: labelled data sets that teach besides, so that nothing is forgotten.
        window: local time between which a shift may work.
        processor_minutes: the most that one shift may use.
        threads: of the shift.
        max_mb, max_days: what is kept of all frames; the oldest go first.
        per_camera: the most frames of one camera.
        random_per_hour: frames of a camera and hour that are drawn fairly, whatever they show.
        doubtful_per_hour: the same of those that the model is not sure about.
        min_frames: frames without which a shift does not begin.
        max_drop: points of AP50 on ``sealed`` that the site's first model may be better by, 0.01 = one point.
        min_gain: points of AP50 on the site's own sealed frames that a new model must bring.
        min_trust: share of what the model that runs sees surely that a teacher must see too, and call the same.
        min_agreement: share of what the model that runs sees surely that the new one must see too.
    """

    enabled: bool = True
    folder: Path | None = None
    model: str | None = None
    start: Path | None = None
    teachers: tuple[Path, ...] = Field(min_length=1, max_length=9)
    sealed: tuple[str, ...] = Field(min_length=1)
    replay: tuple[str, ...] = ()
    window: Annotated[str, Field(pattern=WINDOW, description="HH:MM-HH:MM")] = "01:00-05:00"
    processor_minutes: float = Field(default=60, gt=0, le=24 * 60)
    threads: int = Field(default=1, ge=1, le=64)
    max_mb: float = Field(default=2000, ge=1, le=1_000_000)
    max_days: float = Field(default=14, gt=0, le=365)
    per_camera: int = Field(default=2000, ge=10, le=100_000)
    random_per_hour: int = Field(default=6, ge=0, le=3600)
    doubtful_per_hour: int = Field(default=24, ge=0, le=3600)
    min_frames: int = Field(default=60, ge=8, le=100_000)
    max_drop: float = Field(default=0.01, ge=0, le=0.5)
    min_gain: float = Field(default=0.01, ge=0, le=0.5)
    min_agreement: float = Field(default=0.85, ge=0, le=1)
    min_trust: float = Field(default=0.9, ge=0, le=1)

    @model_validator(mode="after")
    def _judges_by_others(self) -> NightSettings:
        both = sorted({*self.sealed} & {*self.replay})
        if both:
            raise ValueError(f"{both[0]!r} stands in sealed and in replay; what judges must never teach")
        return self

    @property
    def hours(self) -> tuple[time, time]:
        """When a shift may begin, and when it must have ended."""
        begin, _, end = self.window.partition("-")
        return time.fromisoformat(begin), time.fromisoformat(end)

    def is_open(self, now: time) -> bool:
        """Whether a shift may work at this local time; a window may pass midnight, and from = to is the whole day."""
        begin, end = self.hours
        return begin <= now < end if begin < end else now >= begin or now < end
