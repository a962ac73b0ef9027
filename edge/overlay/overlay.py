"""The annotated picture: boxes, labels, trails, masks, zones, a status line; sized to the frame, from 480p to 4K.

Shape letters: N objects, H W frame pixels, h w model pixels, C classes, K points.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from typing import Literal, NamedTuple, Protocol

import numpy as np

from edge.masks import mask_of
from edge.overlay.palette import PANEL, SAFE, STATE_COLOURS, Colour
from edge.overlay.shapes import (
    MASK_OPACITY,
    draw_box,
    draw_figure,
    draw_oriented,
    draw_shape,
    draw_trail,
    tint_classes,
    tint_mask,
)
from edge.overlay.text import Plate, PlateStyle, blend, draw_rows, draw_text, make_plate
from edge.result_json import picture_part
from edge.types import Classification, Detections, Float32, Label, Result, Segmentation, Tracks, UInt8

REFERENCE_SIDE_PX = 720
NUM_PLATES = 256
BACKGROUND_NAMES = frozenset({"background", "unlabelled", "unlabeled", "void", "__background__"})


# states without a banner
CALM = ("live", "ended", "file")


@dataclass(frozen=True, slots=True)
class StreamState:
    """What the status line says next to the objects.

    Attributes:
        state: ``live``, ``connecting``, ``frozen``, ``offline``, ``ended``, or ``file``, which is not told.
        fps: delivered frames per second, None where not known yet.
        age_ms: age of this frame, None where it says nothing (files).
        note: further words for the banner of a state that is not ``live``.
    """

    state: str = "live"
    fps: float | None = None
    age_ms: float | None = None
    note: str = ""


class Shape(Protocol):
    """A zone or counting line to draw: its name, ``points (K, 2)`` float32 frame pixels, and a text such as a count."""

    @property
    def kind(self) -> Literal["line", "zone"]: ...

    @property
    def name(self) -> str: ...

    @property
    def points(self) -> Float32: ...

    @property
    def text(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Theme:
    """How the overlay looks.

    Attributes:
        colours: BGR, used in turn.
        colour_by: whether a colour stands for a class or for a track.
        trail_s: length of the trails in seconds, 0 for none.
        score: detections that belong to no track are drawn from this score on.
        has_scores, has_status: whether to draw them.
        scale: 1 is right for most screens.
    """

    colours: tuple[Colour, ...] = SAFE
    colour_by: Literal["class", "track"] = "class"
    trail_s: float = 2.0
    score: float = 0.35
    has_scores: bool = True
    has_status: bool = True
    scale: float = 1.0


DEFAULT_THEME = Theme()


class _Object(NamedTuple):
    """One thing to draw: its box in whole pixels inside the frame, its class, its colour, and what else it has.

    Attributes:
        row: of the detection, -1 where there is none in this frame.
        corners: (4, 2) of an oriented box. keypoints: (K, 3).
    """

    box: tuple[int, int, int, int]
    name: str
    score: float
    colour: Colour
    track_id: int | None
    row: int
    corners: Float32 | None = None
    keypoints: Float32 | None = None


@dataclass(slots=True)
class _Trails:
    """Where the tracks of a stream were: bounded in time, points and tracks."""

    max_points: int = 96
    last_ns: int = 0
    points: dict[int, deque[tuple[int, float, float]]] = field(default_factory=dict)

    def update(self, tracks: Tracks, time_ns: int, length_ns: int, step_px: float) -> None:
        if time_ns < self.last_ns:
            self.points.clear()
        self.last_ns = time_ns
        foot = np.stack([(tracks.xyxy[:, 0] + tracks.xyxy[:, 2]) / 2, tracks.xyxy[:, 3]], axis=1)
        for track_id, (foot_x, foot_y) in zip(tracks.track_id.tolist(), foot.tolist(), strict=True):
            x, y = foot_x, foot_y
            path = self.points.setdefault(track_id, deque(maxlen=self.max_points))
            if path:
                # the lower edge of a box jumps when somebody passes in front
                x, y = (path[-1][1] + foot_x) / 2, (path[-1][2] + foot_y) / 2
            # a point per step, not per frame: someone who stands still leaves no knot
            if not path or abs(path[-1][1] - x) + abs(path[-1][2] - y) >= step_px:
                path.append((time_ns, x, y))
            while path and path[0][0] < time_ns - length_ns:
                path.popleft()
        present = set(tracks.track_id.tolist())
        for track_id in [i for i, path in self.points.items() if i not in present]:
            path = self.points[track_id]
            if not path or path[-1][0] < time_ns - length_ns:
                del self.points[track_id]


class Overlay:
    """Draws the results of one stream. It remembers the trails, so use one per stream, from one thread.

    Args:
        classes: names by class id.
        theme: colours and what to draw.
        shapes: zones and lines; may be replaced between two frames.
        limbs: pairs of key points that are joined.
    """

    def __init__(
        self,
        classes: Sequence[str],
        theme: Theme = DEFAULT_THEME,
        shapes: Sequence[Shape] = (),
        limbs: Sequence[tuple[int, int]] = (),
    ) -> None:
        self.shapes: Sequence[Shape] = shapes
        self._classes = tuple(classes)
        self._theme = theme
        self._limbs = limbs
        self._trails = _Trails()
        self._plate = lru_cache(maxsize=NUM_PLATES)(_plate)
        self._class_colours, self._class_opacity = class_tints(classes, theme)

    def draw(self, result: Result, state: StreamState) -> UInt8:
        """The annotated (H, W, 3) uint8 BGR picture: a new array that the caller may keep."""
        image: UInt8 = result.frame.planes.bgr_copy()
        unit = min(image.shape[:2]) / REFERENCE_SIDE_PX * self._theme.scale
        line_px, text_px = max(round(2 * unit), 1), max(round(15 * unit), 11)
        if state.state not in CALM:
            image >>= 1
        counts: Counter[str] = Counter()
        prediction = result.prediction
        if isinstance(prediction, Segmentation):
            tint_classes(image, picture_part(prediction), self._class_colours, self._class_opacity)
        self._draw_shapes(image, line_px, text_px)
        if isinstance(prediction, Detections):
            objects = self._objects(prediction, result.tracks, image.shape[:2])
            counts.update(thing.name for thing in objects)
            objects = [_labelled(thing, result.labels) for thing in objects]
            self._draw_masks(image, prediction, objects)
            self._draw_trails(image, result, objects, line_px, unit)
            self._draw_objects(image, objects, line_px, text_px)
        elif isinstance(prediction, Classification):
            draw_rows(image, self._class_rows(prediction.score), text_px)
        elif isinstance(prediction, Segmentation):
            draw_rows(image, self._share_rows(picture_part(prediction)), text_px)
        if self._theme.has_status:
            self._draw_status(image, result.frame.stream, state, counts, text_px)
        return image

    def _colour(self, number: int) -> Colour:
        return self._theme.colours[number % len(self._theme.colours)]

    def _name(self, class_id: int) -> str:
        return self._classes[class_id] if 0 <= class_id < len(self._classes) else f"class {class_id}"

    def _objects(self, detections: Detections, tracks: Tracks | None, size: tuple[int, int]) -> list[_Object]:
        """Tracks, then detections of no track; far ones (higher up) first, so that near ones cover them."""
        free = detections.score >= self._theme.score
        found: list[_Object] = []
        if tracks is not None:
            free[tracks.detection[tracks.detection >= 0]] = False
            found = self._visible(tracks, tracks.track_id.tolist(), tracks.detection.tolist(), size)
        rows = np.flatnonzero(free)
        found += self._visible(detections[rows], [None] * len(rows), rows.tolist(), size)
        return sorted(found, key=lambda thing: thing.box[3])

    def _visible(
        self, things: Detections | Tracks, ids: Sequence[int | None], places: Sequence[int], size: tuple[int, int]
    ) -> list[_Object]:
        """``places`` are the rows of the detections, see ``_Object``."""
        height, width = size
        # NaN becomes an empty box and is not drawn
        whole = np.nan_to_num(np.round(things.xyxy)).clip(0, (width, height, width, height)).astype(np.int32)
        rows = zip(whole.tolist(), things.score.tolist(), things.class_id.tolist(), ids, places, strict=True)
        found = []
        for number, ((x1, y1, x2, y2), score, label, track, row) in enumerate(rows):
            if x2 - x1 < 2 or y2 - y1 < 2:
                continue
            colour = self._colour(track if track is not None and self._theme.colour_by == "track" else label)
            corners = None if things.corners is None else things.corners[number]
            points = None if things.keypoints is None else things.keypoints[number]
            found.append(_Object((x1, y1, x2, y2), self._name(label), score, colour, track, row, corners, points))
        return found

    def _draw_masks(self, image: UInt8, detections: Detections, objects: list[_Object]) -> None:
        if detections.masks is None:
            return
        for thing in objects:
            if thing.row >= 0:
                tint_mask(image, *mask_of(detections.masks, thing.row), thing.colour)

    def _draw_trails(self, image: UInt8, result: Result, objects: list[_Object], line_px: int, unit: float) -> None:
        if result.tracks is None or self._theme.trail_s <= 0:
            return
        self._trails.update(result.tracks, result.frame.time_ns, int(self._theme.trail_s * 1e9), max(3 * unit, 2))
        for thing in objects:
            path = self._trails.points.get(thing.track_id) if thing.track_id is not None else None
            if path and len(path) > 1:
                flat = np.fromiter(chain.from_iterable(path), np.float64, 3 * len(path))
                draw_trail(image, flat.reshape(-1, 3)[:, 1:].astype(np.float32), thing.colour, line_px)

    def _draw_objects(self, image: UInt8, objects: list[_Object], line_px: int, text_px: int) -> None:
        for thing in objects:
            if thing.corners is None:
                draw_box(image, thing.box, thing.colour, line_px, text_px // 2)
            elif np.isfinite(thing.corners).all():
                draw_oriented(image, thing.corners, thing.colour, line_px)
            if thing.keypoints is not None:
                draw_figure(image, thing.keypoints, self._limbs, thing.colour, line_px)
        for thing in objects:
            self._draw_label(image, thing, text_px)

    def _draw_label(self, image: UInt8, thing: _Object, text_px: int) -> None:
        x1, y1, x2, _ = thing.box
        has_score = self._theme.has_scores
        text = thing.name if thing.track_id is None else f"{thing.name} {thing.track_id}"
        name = self._plate(text, text_px, thing.colour, "left" if has_score else "whole")
        score: Plate | None = None
        # next to its neighbours a narrow box has no room for more than who it is; its colour tells the class
        if has_score and x2 - x1 >= 0.8 * name.width:
            number = f"{min(max(thing.score, 0), 0.99) * 100:.0f}"
            score = self._plate(number, text_px, PANEL, "right")
        elif thing.track_id is not None and x2 - x1 < 0.8 * name.width:
            name = self._plate(str(thing.track_id), text_px, thing.colour, "whole")
        width = name.width + (score.width if score else 0)
        x = max(min(x1, image.shape[1] - width), 0)
        y = y1 - name.height if y1 >= name.height else y1
        blend(image, name, x, y)
        if score:
            blend(image, score, x + name.width, y)

    def _draw_shapes(self, image: UInt8, line_px: int, text_px: int) -> None:
        for number, shape in enumerate(self.shapes):
            # from the far end of the palette, away from the first classes
            colour = self._colour(-1 - number)
            draw_shape(image, shape.kind, shape.points, colour, line_px)
            if not len(shape.points):
                continue
            x, y = shape.points[shape.points[:, 1].argmin()]
            text = f"{shape.name}  {shape.text}" if shape.text else shape.name
            plate = self._plate(text, text_px, colour, "whole")
            blend(image, plate, max(min(int(x), image.shape[1] - plate.width), 0), int(max(y, 0)))

    def _draw_status(self, image: UInt8, stream: str, state: StreamState, counts: Counter[str], text_px: int) -> None:
        parts = [stream] if state.state == "file" else [stream, state.state.upper()]
        parts += [] if state.fps is None else [f"{state.fps:.1f} fps"]
        parts += [] if state.age_ms is None else [f"{state.age_ms:.0f} ms"]
        parts += [f"{number} {name}" for name, number in counts.most_common(4)]
        margin = text_px // 2
        draw_text(image, "   ".join(parts), (margin, margin), text_px, STATE_COLOURS.get(state.state, PANEL))
        if state.state not in CALM:
            words = f"{state.state.upper()}  {state.note}".strip()
            plate = self._plate(words, 2 * text_px, STATE_COLOURS.get(state.state, PANEL), "whole")
            blend(image, plate, (image.shape[1] - plate.width) // 2, (image.shape[0] - plate.height) // 2)

    def _class_rows(self, score: Float32) -> list[tuple[str, Colour]]:
        """The three most likely classes."""
        order = np.argsort(-score, kind="stable")[:3].tolist()
        return [(f"{self._name(i)}   {float(score[i]) * 100:.0f} %", self._colour(i)) for i in order]

    def _share_rows(self, class_map: UInt8) -> list[tuple[str, Colour]]:
        """The classes that cover most of the picture."""
        counts = np.bincount(class_map.ravel(), minlength=1)
        order = [int(i) for i in np.argsort(-counts, kind="stable")[:6] if counts[i] and self._class_opacity[i]]
        return [(f"{self._name(i)}   {100 * counts[i] / class_map.size:.0f} %", self._colour(i)) for i in order]


def class_tints(classes: Sequence[str], theme: Theme) -> tuple[UInt8, Float32]:
    """(256, 3) uint8 BGR and (256,) float32 opacity in [0, 1] by class id; backgrounds are not tinted."""
    colours = np.array([theme.colours[number % len(theme.colours)] for number in range(256)], np.uint8)
    named = chain(classes, [""] * 256)
    hidden = [name.lower() in BACKGROUND_NAMES for name, _ in zip(named, range(256), strict=False)]
    return colours, np.where(hidden, 0, MASK_OPACITY).astype(np.float32)


def _labelled(thing: _Object, labels: Mapping[int, Sequence[Label]]) -> _Object:
    """The object with what the second stage says of it before its class: ``red car``."""
    found = labels.get(thing.track_id, ()) if thing.track_id is not None else ()
    return thing._replace(name=f"{found[0].name} {thing.name}") if found else thing


def _plate(text: str, text_px: int, fill: Colour, part: Literal["left", "right", "whole"]) -> Plate:
    """A plate that stands alone or is the left or right part of a label."""
    opacity = 0.72 if fill == PANEL else 0.9
    return make_plate(text, text_px, PlateStyle(fill, opacity, part != "right", part != "left"))
