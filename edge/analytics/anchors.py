"""The point that stands for an object: of its box, a key point, or where its mask stands. N tracks, K parts drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edge.analytics.geometry import ANCHOR_SHARES, anchors
from edge.errors import ConfigError

if TYPE_CHECKING:
    from edge.config.analytics import AnalyticsSettings
    from edge.types import Array, Float64, Int64, Tracks

MASK_FOOT = "mask-foot"
# where the model has nothing better to say
BOX_ANCHOR = "bottom-centre"


class Anchors:
    """Where the anchors of drawn parts lie in a frame."""

    def __init__(self, names: Sequence[str], model_anchors: Sequence[str], field: str) -> None:
        """Choose the anchors.

        Args:
            names: of the K anchors.
            model_anchors: those that the model gives, key points first, see ``Manifest.anchors``.
            field: of the table's rows, that keeps where the anchors were if boxes do not tell, see ``row_dtype``.
        """
        self.field = field
        self._shares = np.array([ANCHOR_SHARES.get(name, ANCHOR_SHARES[BOX_ANCHOR]) for name in names], np.float64)
        self._shares = self._shares.reshape(-1, 2)
        self._own = [
            (column, name, model_anchors.index(name)) for column, name in enumerate(names) if name in model_anchors
        ]

    @property
    def has_own(self) -> bool:
        """Whether some anchor is no point of the box, so that a box does not tell where it was."""
        return bool(self._own)

    def remembered(self, rows: Array) -> Float64:
        """(N, K, 2) where the anchors of remembered tracks (N,) were seen last."""
        if self._own:
            seen: Float64 = rows[self.field]
            return seen
        return anchors(rows["xyxy"], self._shares)

    def remember(self, rows: Array, slot: Int64, points: Float64) -> None:
        """Keep the (N, K, 2) points of the tracks in these rows, if their boxes do not tell."""
        if self._own:
            rows[self.field][slot] = points

    def of(self, tracks: Tracks) -> Float64:
        """(N, K, 2) frame pixels."""
        points = anchors(tracks.xyxy, self._shares)
        for column, name, number in self._own:
            if name == MASK_FOOT and tracks.feet is not None:
                points[:, column] = tracks.feet
            elif name != MASK_FOOT and tracks.keypoints is not None:
                points[:, column] = tracks.keypoints[:, number, :2]
        return points


def anchors_of(settings: AnalyticsSettings) -> set[str]:
    """The anchors of all that is drawn."""
    return {part.anchor for part in (*settings.lines, *settings.zones)}


def check_anchor(anchor: str, model_anchors: Sequence[str], where: str) -> None:
    """See that the model gives what an anchor names.

    Raises:
        ConfigError: it has no such key point, or no masks.
    """
    if anchor in ANCHOR_SHARES or anchor in model_anchors:
        return
    known = ", ".join(model_anchors) or "none of its own, only points of the box"
    raise ConfigError(f"{where}: anchor = {anchor!r}: the model of this stream does not give it; it gives: {known}")
