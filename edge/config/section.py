"""What every table of edge.toml, and of a manifest, has in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A table: unknown keys are errors, values never change, and no number is infinite or none at all."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
