"""What a user may write in TOML about worker processes: how many there are, and where each of them runs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from edge.config.section import Section

MAX_WORKERS = 64
# pictures of one worker that may wait for the page at once
NUM_PLACES = 12
Core = Annotated[int, Field(ge=0, le=1023)]


class WorkerSettings(Section):
    """Where one worker runs.

    Attributes:
        device: number of its GPU, as ``nvidia-smi`` lists them; None: whatever the process finds.
        cores: of the processor, that it and its decoders keep to; none: all.
    """

    device: int | None = Field(default=None, ge=0, le=1023)
    cores: tuple[Core, ...] = ()


class WorkersSettings(Section):
    """The processes that the streams are dealt to.

    Attributes:
        count: ``auto``, a number, or one table per worker. 1 is a single process; a list of one table is a worker that
            is watched and replaced like others.
        spare: whether one more process stands by with its models loaded, and takes the place of one that is lost; None:
            where there are cameras, and all workers are alike.
    """

    count: (
        Literal["auto"]
        | Annotated[int, Field(ge=1, le=MAX_WORKERS)]
        | Annotated[tuple[WorkerSettings, ...], Field(min_length=1, max_length=MAX_WORKERS)]
    ) = "auto"
    spare: bool | None = None
