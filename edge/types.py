"""What travels through the pipeline: frozen dataclasses of numpy arrays.

Shape letters: B batch, N objects, H W frame pixels, h w model pixels, C classes, E embedding size, K key points of an
object, P prototypes.
Boxes are float32 ``x1 y1 x2 y2`` in pixels of the frame, right and bottom edge exclusive. Times are nanoseconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from edge.pictures.planes import Planes

if TYPE_CHECKING:
    import supervision

    from edge.masks import Masks
    from edge.metrics.stages import StageNs

UInt8: TypeAlias = NDArray[np.uint8]
Bool: TypeAlias = NDArray[np.bool_]
Int32: TypeAlias = NDArray[np.int32]
Int64: TypeAlias = NDArray[np.int64]
Float32: TypeAlias = NDArray[np.float32]
Float64: TypeAlias = NDArray[np.float64]
Array: TypeAlias = NDArray[Any]


@dataclass(frozen=True, slots=True, init=False)
class Frame:
    """One picture of one stream. Capture owns the picture until the hand-over; after it nobody may write to it.

    Attributes:
        stream: name of the stream.
        epoch: how many times the source was opened before, so 0 until the first reconnect.
        seq: number of the frame within its epoch; a gap means lost frames.
        captured_ns: when the frame was handed to us, ``time.monotonic_ns()``.
        pts_ns: media time of files and synthetic scenes; None for live sources, whose clock is ``captured_ns``.
        planes: the picture as the decoder gives it.
    """

    stream: str
    epoch: int
    seq: int
    captured_ns: int
    pts_ns: int | None
    planes: Planes

    def __init__(
        self,
        stream: str,
        epoch: int,
        seq: int,
        captured_ns: int,
        pts_ns: int | None,
        image: UInt8 | Planes | None = None,
        *,
        planes: Planes | None = None,
    ) -> None:
        """Args: see the attributes; the picture as (H, W, 3) uint8 BGR or as planes, one of both."""
        picture = planes if image is None else Planes.of(image)
        if picture is None:
            raise ValueError("a frame needs a picture: an (H, W, 3) uint8 BGR array, or planes")
        values = (stream, epoch, seq, captured_ns, pts_ns, picture)
        for name, value in zip(self.__slots__, values, strict=True):
            object.__setattr__(self, name, value)

    @property
    def time_ns(self) -> int:
        """The time by which things move in this stream: media time if there is one, else the capture time."""
        return self.captured_ns if self.pts_ns is None else self.pts_ns

    @property
    def image(self) -> UInt8:
        """(H, W, 3) uint8 BGR, read-only; made of planes when it is asked for first, and kept."""
        return self.planes.bgr

    @property
    def luma(self) -> UInt8:
        """(H, W) uint8 how bright it is; at no cost where the decoder gives planes (their range: ``planes.form``)."""
        return self.planes.luma

    @property
    def width(self) -> int:
        return self.planes.width

    @property
    def height(self) -> int:
        return self.planes.height


@dataclass(frozen=True, slots=True)
class Letterbox:
    """How a frame was fitted into the model's input: ``model = frame * scale + pad``, per axis.

    Attributes:
        scale_x, scale_y: model pixels per frame pixel (equal unless the frame was stretched).
        pad_x, pad_y: model pixels left of and above the picture.
        frame_width, frame_height: size of the frame in pixels.
        model_width, model_height: size of the model's input in pixels.
    """

    scale_x: float
    scale_y: float
    pad_x: float
    pad_y: float
    frame_width: int
    frame_height: int
    model_width: int
    model_height: int

    def to_frame(self, xyxy: Float32) -> Float32:
        """Map (N, 4) boxes from model pixels to frame pixels, cut at the frame's edges."""
        x, y = (self.pad_x, self.scale_x, self.frame_width), (self.pad_y, self.scale_y, self.frame_height)
        pad, scale, limit = np.array((x, y, x, y), np.float32).T
        boxes: Float32 = (xyxy - pad) / scale
        np.maximum(boxes, 0, out=boxes)
        np.minimum(boxes, limit, out=boxes)
        return boxes

    def points_to_frame(self, points: Float32) -> Float32:
        """Map (..., 2) points from model pixels to frame pixels; those beyond the frame's edges stay there."""
        scale = np.array([self.scale_x, self.scale_y], np.float32)
        placed: Float32 = (points - np.array([self.pad_x, self.pad_y], np.float32)) / scale
        return placed

    def to_model(self, xyxy: Float32) -> Float32:
        """Map (N, 4) boxes from frame pixels to model pixels."""
        scale = np.array([self.scale_x, self.scale_y] * 2, np.float32)
        pad = np.array([self.pad_x, self.pad_y] * 2, np.float32)
        boxes: Float32 = (xyxy * scale + pad).astype(np.float32)
        return boxes


class Detection(NamedTuple):
    """One object of ``Detections``, as plain numbers.

    Attributes:
        name: of its class; ``class 7`` where names are not known.
        score: in [0, 1].
        xyxy: frame pixels, right and bottom edge exclusive.
        class_id: index of its class.
    """

    name: str
    score: float
    xyxy: tuple[float, float, float, float]
    class_id: int


@dataclass(frozen=True, slots=True, repr=False)
class Detections:
    """Objects found in one frame: parallel arrays, empty ones included.

    A boolean mask, indices or a slice choose objects; a number, or a loop, gives them one by one as ``Detection``.

    Attributes:
        xyxy: (N, 4) float32 frame pixels.
        score: (N,) float32 in [0, 1].
        class_id: (N,) int32.
        masks: N instance masks, None where the model gives none.
        keypoints: (N, K, 3) float32: x and y in frame pixels and the point's own score in [0, 1]; None without any.
        corners: (N, 4, 2) float32 frame pixels, the corners of oriented boxes in turn, of which ``xyxy`` is the
            bounding box inside the frame; None where boxes stand upright.
        classes: names by class id; empty where they are not known.
    """

    xyxy: Float32
    score: Float32
    class_id: Int32
    masks: Masks | None = None
    keypoints: Float32 | None = None
    corners: Float32 | None = None
    classes: tuple[str, ...] = ()

    @classmethod
    def empty(cls) -> Detections:
        return cls(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int32))

    def __len__(self) -> int:
        return len(self.score)

    def __iter__(self) -> Iterator[Detection]:
        rows = zip(self.class_names, self.score.tolist(), self.xyxy.tolist(), self.class_id.tolist(), strict=True)
        return (Detection(name, score, tuple(box), class_id) for name, score, box, class_id in rows)

    def __repr__(self) -> str:
        """How many objects of which class: ``Detections(3: 2 person, 1 car)``."""
        counts = ", ".join(f"{count} {name}" for name, count in Counter(self.class_names).most_common())
        return f"Detections({len(self)}{': ' * bool(counts)}{counts})"

    @overload
    def __getitem__(self, index: int) -> Detection: ...

    @overload
    def __getitem__(self, index: Bool | Int64 | slice) -> Detections: ...

    def __getitem__(self, index: int | Bool | Int64 | slice) -> Detection | Detections:
        if isinstance(index, (int, np.integer)):
            row = range(len(self))[index]
            return next(iter(self[row : row + 1]))
        return Detections(
            self.xyxy[index],
            self.score[index],
            self.class_id[index],
            None if self.masks is None else self.masks[index],
            None if self.keypoints is None else self.keypoints[index],
            None if self.corners is None else self.corners[index],
            self.classes,
        )

    @property
    def class_names(self) -> list[str]:
        """The N names; a class without one is called by its number, ``class 7``."""
        known = dict(enumerate(self.classes))
        return [known.get(number, f"class {number}") for number in self.class_id.tolist()]

    def moved(self, x: int, y: int, size: tuple[int, int]) -> Detections:
        """The same objects in a picture of this width and height, of which theirs is the part from ``x``, ``y`` on."""
        step = np.array([x, y, x, y], np.float32)
        return replace(
            self,
            xyxy=self.xyxy + step,
            masks=None if self.masks is None else self.masks.moved(x, y, size),
            keypoints=None if self.keypoints is None else self.keypoints + np.array([x, y, 0], np.float32),
            corners=None if self.corners is None else self.corners + step[:2],
        )

    def scaled(self, factor: float, size: tuple[int, int]) -> Detections:
        """The same objects in the picture made this much larger, to this width and height."""
        by = np.float32(factor)
        return replace(
            self,
            xyxy=self.xyxy * by,
            masks=None if self.masks is None else self.masks.scaled(factor, size),
            keypoints=None if self.keypoints is None else self.keypoints * np.array([by, by, 1], np.float32),
            corners=None if self.corners is None else self.corners * by,
        )

    @staticmethod
    def concatenate(parts: Sequence[Detections]) -> Detections:
        """All objects of these parts, found by one model in one frame; a part without objects may lack masks."""
        parts = [part for part in parts if len(part)]
        if len(parts) < 2:
            return parts[0] if parts else Detections.empty()
        masks = [part.masks for part in parts if part.masks is not None]
        points = [part.keypoints for part in parts if part.keypoints is not None]
        corners = [part.corners for part in parts if part.corners is not None]
        return Detections(
            np.concatenate([part.xyxy for part in parts]),
            np.concatenate([part.score for part in parts]),
            np.concatenate([part.class_id for part in parts]),
            masks[0].concatenate(masks) if masks else None,
            np.concatenate(points) if points else None,
            np.concatenate(corners) if corners else None,
            parts[0].classes,
        )

    @classmethod
    def from_supervision(cls, found: supervision.Detections) -> Detections:
        """The inverse of ``to_supervision``, without masks and key points; what has no score gets 1, no class 0."""
        count = len(found.xyxy)
        score = np.ones(count) if found.confidence is None else found.confidence
        class_id = np.zeros(count) if found.class_id is None else found.class_id
        corners = found.data.get("xyxyxyxy")
        classes = _names_by_id(class_id, found.data.get("class_name", ()))
        return cls(
            np.asarray(found.xyxy, np.float32).reshape(-1, 4),
            np.asarray(score, np.float32),
            np.asarray(class_id, np.int32),
            corners=None if corners is None else np.asarray(corners, np.float32),
            classes=classes,
        )

    def to_supervision(self) -> supervision.Detections:
        """The same objects as ``supervision.Detections``, for its annotators and metrics."""
        from supervision import Detections as SupervisionDetections

        from edge.masks import whole_masks

        more = {"xyxyxyxy": self.corners, "keypoints": self.keypoints, "class_name": np.array(self.class_names)}
        return SupervisionDetections(
            xyxy=self.xyxy,
            mask=None if self.masks is None else whole_masks(self.masks),
            confidence=self.score,
            class_id=self.class_id.astype(int),
            data={name: value for name, value in more.items() if value is not None},
        )


def _names_by_id(class_id: Any, names: Any) -> tuple[str, ...]:
    """Names by class id, of (N,) ids and the N names of their classes; empty without names."""
    known = {int(number): str(name) for number, name in zip(class_id, names, strict=False)}
    return tuple(known.get(number, f"class {number}") for number in range(max(known) + 1)) if known else ()


@dataclass(frozen=True, slots=True)
class Segmentation:
    """A class for every cell of the model's output grid.

    Attributes:
        class_map: (h, w) uint8 class ids on the model's grid.
        letterbox: places the grid in the frame; its model size is the size of the class map.
    """

    class_map: UInt8
    letterbox: Letterbox


@dataclass(frozen=True, slots=True)
class Classification:
    """What the whole frame shows. Attributes: ``score (C,)`` float32, one per class, summing to about 1."""

    score: Float32


@dataclass(frozen=True, slots=True)
class Embedding:
    """An appearance vector. Attributes: ``vector (E,)`` float32 of length 1."""

    vector: Float32


Prediction: TypeAlias = Detections | Segmentation | Classification | Embedding


@dataclass(frozen=True, slots=True)
class Tracks:
    """Objects followed over time in one stream, as seen in this frame.

    Attributes:
        track_id: (N,) int64, unique within the stream and never used again.
        xyxy: (N, 4) float32 frame pixels.
        score: (N,) float32, of the detection seen last.
        class_id: (N,) int32.
        age: (N,) float32 seconds since the track began.
        velocity: (N, 2) float32 pixels per second of the box centre.
        detection: (N,) int32 index of the detection in this frame, -1 where the position is predicted.
        keypoints: (N, K, 3) float32 as in ``Detections``, smoothed over time; a point that is not seen well keeps its
            place in the box. None where the model gives none.
        corners: (N, 4, 2) float32 as in ``Detections``, None where boxes stand upright.
        feet: (N, 2) float32 frame pixels, where the masks stand; None where no line or zone asks.
    """

    track_id: Int64
    xyxy: Float32
    score: Float32
    class_id: Int32
    age: Float32
    velocity: Float32
    detection: Int32
    keypoints: Float32 | None = None
    corners: Float32 | None = None
    feet: Float32 | None = None

    @classmethod
    def empty(cls) -> Tracks:
        return cls(
            track_id=np.empty(0, np.int64),
            xyxy=np.empty((0, 4), np.float32),
            score=np.empty(0, np.float32),
            class_id=np.empty(0, np.int32),
            age=np.empty(0, np.float32),
            velocity=np.empty((0, 2), np.float32),
            detection=np.empty(0, np.int32),
        )

    def __len__(self) -> int:
        return len(self.track_id)

    def __getitem__(self, index: Bool | Int64 | slice) -> Tracks:
        return Tracks(
            self.track_id[index],
            self.xyxy[index],
            self.score[index],
            self.class_id[index],
            self.age[index],
            self.velocity[index],
            self.detection[index],
            None if self.keypoints is None else self.keypoints[index],
            None if self.corners is None else self.corners[index],
            None if self.feet is None else self.feet[index],
        )


@dataclass(frozen=True, slots=True)
class Label:
    """What the second stage says of a track: a class name of its classifier, and the smoothed probability."""

    name: str
    score: float


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a stream: a line was crossed, a zone entered, a camera froze.

    Attributes:
        kind: ``line_crossed``, ``zone_entered``, ``camera_frozen``, …
        stream: name of the stream.
        time_ns: the frame's ``time_ns``.
        track_id: the track it is about, None where there is none.
        data: further facts, JSON values only.
    """

    kind: str
    stream: str
    time_ns: int
    track_id: int | None = None
    data: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class HealthChange:
    """The camera's health changed: ``kind`` is ``camera_frozen``, ``camera_dark``, … or ``camera_recovered``."""

    kind: str
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Shape:
    """A line or zone and its counts.

    Attributes:
        kind: ``line`` (open, K = 2, drawn with its direction) or ``zone`` (closed).
        points: (K, 2) float32 frame pixels.
        text: the counts, short enough for a label.
    """

    kind: Literal["line", "zone"]
    name: str
    points: Float32
    text: str


@dataclass(frozen=True, slots=True)
class Result:
    """All that is known about one frame. Sinks read it and keep nothing.

    Attributes:
        frame: the frame.
        prediction: what the model said.
        tracks: None where the stream is not tracked.
        events: what happened in this frame.
        stage_ns: nanoseconds spent per stage.
        labels: track id → what the second stage says of it, most likely first; tracks it knows nothing of are left out.
        counts: of lines and zones so far, JSON values: ``counts["lines"]["gate"]["in"]``; empty where nothing counts.
        is_analysed: False: no model has seen the frame, so that nothing found says nothing.
        draw: makes the annotated picture, None where nothing was asked to; see ``picture``.
    """

    frame: Frame
    prediction: Prediction
    tracks: Tracks | None = None
    events: tuple[Event, ...] = ()
    stage_ns: StageNs = field(default_factory=lambda: MappingProxyType({}))
    labels: Mapping[int, tuple[Label, ...]] = field(default_factory=lambda: MappingProxyType({}))
    counts: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    is_analysed: bool = True
    draw: Callable[[], UInt8] | None = field(default=None, repr=False, compare=False)

    @property
    def detections(self) -> Detections:
        """What a detector found; no object at all for other models."""
        return self.prediction if isinstance(self.prediction, Detections) else Detections.empty()

    def picture(self) -> UInt8:
        """The frame with boxes, ids, lines and zones drawn: a new (H, W, 3) uint8 BGR array.

        Trails are those of the results that were drawn before it, so draw in order and from one thread.

        Raises:
            ValueError: the result does not come from ``edge.track`` or a pipeline with ``on_result``.
        """
        if self.draw is None:
            raise ValueError("this result cannot be drawn; only those of edge.track and Pipeline(on_result=…) can")
        return self.draw()

    def with_events(self, events: Sequence[Event]) -> Result:
        """The same result with these events added."""
        return replace(self, events=(*self.events, *events))
