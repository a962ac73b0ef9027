"""The replaceable parts. Each implementation is one file; its contract is written here and tested for all alike.

Installed packages bring further ones, see ``edge.packages.plugins`` and docs/extending.md.

Shape letters: B batch, N objects, H W frame pixels, h w model pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, Protocol, TypeAlias, runtime_checkable

from edge.metrics.stages import DropCause
from edge.pictures.planes import Planes
from edge.types import (
    Array,
    Detections,
    Event,
    Float32,
    Float64,
    HealthChange,
    Int64,
    Label,
    Letterbox,
    Prediction,
    Result,
    Tracks,
    UInt8,
)

# gives the looks (K, E), float32 rows of length 1, of the detections with these (K,) numbers
EmbedBoxes: TypeAlias = Callable[[Int64], Float32]
EngineName: TypeAlias = Literal[
    "auto", "ort", "ort-cuda", "ort-tensorrt", "openvino", "openvino-bf16", "trt", "kserve", "null"
]
# what can be switched off of a stream that goes on
SwitchPart: TypeAlias = Literal["analysis", "recording"]


class Switch(Protocol):
    """Switches a part of a stream on or off; does not wait."""

    def __call__(self, stream: str, part: SwitchPart, *, is_on: bool) -> None:
        """Raises: ConfigError: there is no such stream, or it has nothing of this kind."""


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """What a source is.

    Attributes:
        width, height: pixels of the first frame.
        fps: declared frames per second, 0 where unknown. Cameras lie; do not rely on it.
        is_live: frames come at their own pace and are lost when nobody reads them.
        num_frames: length of a file, None where unknown or endless.
        decoder: what decodes the pictures, for people.
    """

    width: int
    height: int
    fps: float
    is_live: bool
    num_frames: int | None
    decoder: str


class Source(Protocol):
    """Where frames come from. Opened by its constructor, used by one thread."""

    @property
    def info(self) -> SourceInfo: ...

    def read(self) -> tuple[UInt8, int | None] | None:
        """Wait for the next picture.

        Returns:
            (H, W, 3) uint8 BGR that nobody else will write to, and its media time in ns since the start (None for
            live sources); or None at the end of the source.

        Raises:
            SourceError: the source broke; it must be closed and opened again.
        """

    def close(self) -> None:
        """Free everything. May be called twice."""


@runtime_checkable
class PlaneSource(Protocol):
    """What a source may offer besides: pictures as the decoder gives them, each left out before anything is made of it.

    Attributes:
        pts_ns: media time of the picture that was grabbed last, None for live sources.
    """

    pts_ns: int | None

    def grab(self) -> bool:
        """Wait for the next picture; False at the end of the source. What was grabbed before is gone.

        Raises:
            SourceError: the source broke; it must be closed and opened again.
        """

    def retrieve(self) -> Planes:
        """The picture that was grabbed last. It may lie in the decoder's memory: nobody writes to it."""


@runtime_checkable
class Skips(Protocol):
    """What a source may offer besides: it does not even decode what the rate leaves out, where the stream allows it."""

    def skip_over(self, max_fps: float, on_skipped: Callable[[], None]) -> None:
        """Ask for pictures at about this rate from now on; more may come. ``on_skipped`` is told of each left out."""


class CameraSource(Source, Protocol):
    """A source that also tells when its pictures were taken, what it held back and how the camera is."""

    def read_planes(self) -> tuple[Planes, int | None] | None:
        """As ``read``, the picture as the decoder gives it."""

    @property
    def captured_ns(self) -> int:
        """When the picture that was read last came from the decoder, ``time.monotonic_ns()``."""

    def take_drops(self) -> dict[DropCause, int]:
        """Cause → pictures that were taken but not given since the last call."""

    def take_changes(self) -> list[HealthChange]:
        """What changed in the camera's health since the last call."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """An input or output of an engine. ``shape`` has None where the size is dynamic."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str


class Engine(Protocol):
    """Runs a model. Used by one thread."""

    @property
    def name(self) -> str:
        """What runs the model, for people: ``onnxruntime 1.32 CPU, 2 threads``."""

    @property
    def inputs(self) -> Sequence[TensorInfo]: ...

    @property
    def outputs(self) -> Sequence[TensorInfo]: ...

    @property
    def max_batch(self) -> int:
        """The most frames that one call takes."""

    @property
    def is_fixed_batch(self) -> bool:
        """Whether every call must have exactly ``max_batch`` frames."""

    def infer(self, tensor: Array) -> Mapping[str, Array]:
        """Run one batch.

        Args:
            tensor: the model's input, B frames, C-contiguous.

        Returns:
            Output name → array, B first. The engine owns them and may reuse them in the next call.

        Raises:
            EngineError: the engine failed. It must not be used again.
        """

    def close(self) -> None:
        """Free everything. May be called twice."""


@runtime_checkable
class GivesAway(Protocol):
    """What an engine may say besides: ``gives_away``, whether outputs are new arrays that it never writes to again."""

    @property
    def gives_away(self) -> bool: ...


@runtime_checkable
class FrameEngine(Protocol):
    """What an engine may offer besides: it fits frames into its input itself, and takes a batch while one runs."""

    def submit_frames(self, images: Sequence[UInt8]) -> list[Letterbox]:
        """Start a batch without waiting for it; at most two may be under way.

        Args:
            images: up to ``max_batch`` pictures (H, W, 3) uint8 BGR. They may change once this returns.

        Returns:
            How each was fitted in.

        Raises:
            EngineError: it cannot be started.
        """

    def collect(self) -> Mapping[str, Array]:
        """Wait for the oldest batch under way; see ``Engine.infer``. Valid until the second ``submit_frames`` from now.

        Raises:
            EngineError: the engine failed.
        """


@runtime_checkable
class PlaneEngine(FrameEngine, Protocol):
    """A ``FrameEngine`` that takes planes of luma and chroma as they are. ``takes_planes``: whether it does now."""

    @property
    def takes_planes(self) -> bool: ...

    def submit_frames(self, images: Sequence[UInt8 | Planes]) -> list[Letterbox]:
        """As ``FrameEngine.submit_frames``."""


class RemoteEngine(Engine, Protocol):
    """An engine elsewhere, which may be away for a while; after an EngineError ``infer`` may be called again."""

    @property
    def is_away(self) -> bool:
        """Whether the next batch would fail without being tried; any thread may ask."""

    def state(self) -> Mapping[str, object]:
        """Whether it is there, and if not why and since when, as JSON values; any thread may ask."""


class Head(Protocol):
    """Turns raw outputs into predictions in frame pixels. Keeps no state."""

    def decode(self, outputs: Mapping[str, Array], letterboxes: Sequence[Letterbox]) -> list[Prediction]:
        """One prediction per letterbox, in order; rows of ``outputs`` beyond them are padding."""


class Tracker(Protocol):
    """Follows objects through one stream. It remembers, so it sees every frame that was inferred, in order."""

    def update(
        self, detections: Detections, time_ns: int, motion: Float64 | None = None, look: EmbedBoxes | None = None
    ) -> Tracks:
        """Take the detections of the next frame.

        Args:
            detections: all of them, low scores included.
            time_ns: the frame's ``time_ns``. Not later than the last one: the tracks stand still for this frame.
            motion: (2, 3) affine from the last frame's pixels to this one's, None for a camera that stands still.
            look: gives the looks of detections by their numbers, for pairs that are in doubt; None: boxes decide.

        Returns:
            The confirmed tracks of this frame.
        """


class Sink(Protocol):
    """Where results go. Used by one thread; a slow one delays only its own stream.

    One with an attribute ``takes_unseen`` that is true also gets the frames that no model has seen, because analysis is
    switched off or its engine failed: those that show or record pictures.
    """

    @property
    def name(self) -> str: ...

    def write(self, result: Result, picture: Callable[[], UInt8]) -> None:
        """Take one result.

        Args:
            result: read it, keep nothing of it.
            picture: gives the annotated (H, W, 3) uint8 BGR picture, drawn once for all sinks of the stream, and not at
                all if none asks.

        Raises:
            SinkError: this result is lost; the sink may recover at the next one.
        """

    def close(self) -> None:
        """Finish what is open. May be called twice."""


@dataclass(frozen=True, slots=True)
class StageAnswer:
    """What a stage adds to a result.

    Attributes:
        events: of the result's stream, with its frame's ``time_ns``; their data is JSON.
        labels: track id → what the stage says of it, most likely first; it stands behind what others said before.
    """

    events: tuple[Event, ...] = ()
    labels: Mapping[int, tuple[Label, ...]] = field(default_factory=lambda: MappingProxyType({}))


class Stage(Protocol):
    """Sees each result of one stream before the sinks do, and may add to it. Used by one thread of its own.

    It has ``limit_ms`` for each result. An answer that comes later is lost: the result went on without it.
    """

    def update(self, result: Result) -> StageAnswer | None:
        """Take the next result; they come in order, and those that were dropped do not come.

        Args:
            result: read it, keep nothing of its arrays: ``result.frame.image`` (H, W, 3) uint8 BGR, ``detections``,
                ``tracks``, ``events``, ``labels`` and ``counts``. What earlier stages added is in it.

        Returns:
            What is added; None adds nothing.

        Raises:
            Exception: anything; it is counted, and the result goes on without this stage.
        """

    def close(self) -> None:
        """Finish what is open. May be called twice."""
