"""All that the overlay would draw over a picture, as JSON, for viewers that draw it themselves: sharp at any size.

Shape letters: h w cells of a class map.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np

from edge.overlay.overlay import DEFAULT_THEME, Shape, Theme, class_tints
from edge.result_json import ResultEncoder, picture_part
from edge.types import Detections, Segmentation

if TYPE_CHECKING:
    from edge.metrics.clock import WallClock
    from edge.types import Result

_COMPACT = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)


class Marks:
    """Makes the lines of one stream.

    Args:
        classes: names by class id.
        shapes: gives the zones and lines.
        theme: whose colours and least score count.
        clock: for ``captured`` and ``age_ms``.
    """

    def __init__(
        self,
        classes: Sequence[str],
        shapes: Callable[[], Sequence[Shape]] = tuple,
        *,
        theme: Theme = DEFAULT_THEME,
        clock: WallClock | None = None,
    ) -> None:
        self._shapes = shapes
        self._encoder = ResultEncoder(classes, score=theme.score, clock=clock, has_masks=False, has_outlines=True)
        self._colours, opacity = class_tints(classes, theme)
        self._alpha = np.rint(opacity * 255).astype(np.uint8)

    def line(self, result: Result, plain_line: bytes) -> bytes:
        """The frame's JSONL line with ``shapes``, ``outlines`` of masks and ``tint``, a PNG to be laid over all.

        Args:
            result: what was found.
            plain_line: its line without them.
        """
        prediction = result.prediction
        has_masks = isinstance(prediction, Detections) and prediction.masks is not None
        line = self._encoder.encode(result) if has_masks else plain_line
        more = f',"shapes":{_shapes_json(self._shapes())}'
        if isinstance(prediction, Segmentation):
            more += f',"tint":"{self._tint(prediction)}"'
        return line[:-1] + more.encode() + b"}"

    def _tint(self, segmentation: Segmentation) -> str:
        """The (h, w) class map in its colours, transparent where nothing is to be seen, as PNG in base64."""
        part = picture_part(segmentation)
        tint = np.dstack([self._colours[part], self._alpha[part]])
        _, png = cv2.imencode(".png", tint)
        return base64.b64encode(png.tobytes()).decode()


def _shapes_json(shapes: Sequence[Shape]) -> str:
    return _COMPACT.encode(
        [
            {
                "kind": shape.kind,
                "name": shape.name,
                "text": shape.text,
                "points": np.round(shape.points.astype(np.float64), 1).tolist(),
            }
            for shape in shapes
        ]
    )
