"""What is known of a file before it runs, and what a reading of its outputs is. N batch, A anchors, C classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edge.errors import ManifestError
from edge.interfaces import TensorInfo
from edge.models.manifest import HeadName, OutputSpec

if TYPE_CHECKING:
    from edge.models.exporter import Companion, Exported
    from edge.models.onnx_graph import GraphFacts, Part

# feature maps that families use, in model pixels
STRIDE_SETS = ((8, 16, 32), (8, 16, 32, 64), (4, 8, 16, 32), (4, 8, 16, 32, 64), (8, 16, 32, 64, 128), (16, 32))
Shape = tuple[int | None, ...]


class InDoubtError(ManifestError):
    """The outputs may be something that no head reads; a person may say that they are not."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One way to read the outputs.

    Attributes:
        head: the head.
        because: the evidence, a sentence.
        num_classes: how many the outputs have room for, None where they do not tell.
        family: how such models were trained, a key of ``edge.models.habits``.
        output: what the head must know.
        is_certain: nothing else comes into question.
        needs_nms: overlapping boxes of one object come out.
        has_background: of a classifier or SSD, the first class means none.
        kpt_shape: of models with key points.
        keypoints: their names, where the file has them.
        flags: of ``edge inspect``, that choose this reading.
    """

    head: HeadName
    because: str
    num_classes: int | None
    family: str
    output: OutputSpec | None = None
    is_certain: bool = True
    needs_nms: bool = True
    has_background: bool = False
    kpt_shape: tuple[int, int] | None = None
    keypoints: tuple[str, ...] | None = None
    flags: str = ""

    @property
    def may_look_odd(self) -> bool:
        """Whether odd boxes are no sign of a wrong reading, for the file itself says what it is."""
        # a softmax or sigmoid next to four numbers does not say whether these are corners, or what else
        return self.is_certain and self.family not in ("ssd", "yolonas", "damoyolo", "ppyoloe", "end2end")


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is known before the model runs. Attributes: ``size`` is width and height of the input."""

    name: str
    graph: GraphFacts
    size: tuple[int, int]
    layout: str
    exported: Exported | None
    companion: Companion
    hint: str

    @property
    def outputs(self) -> Sequence[TensorInfo]:
        return self.graph.outputs

    def parts(self, tensor: TensorInfo, width: int | None) -> tuple[Part, ...]:
        return self.graph.ends[tensor.name].parts(width)


def num_cells(size: tuple[int, int], strides: tuple[int, ...]) -> int:
    """Anchors of feature maps with these strides."""
    return sum(-(-size[0] // stride) * -(-size[1] // stride) for stride in strides)


def strides_of(num: int | None, size: tuple[int, int]) -> tuple[int, ...]:
    """The feature maps that have this many cells; empty where none have."""
    return next((strides for strides in STRIDE_SETS if num and num_cells(size, strides) == num), ())


def is_grid(grid: Sequence[Any], size: tuple[int, int]) -> bool:
    """Whether (h, w) cells cover a picture of this width and height, each a square."""
    if None in grid or not all(grid):
        return False
    down, across = size[1] / grid[0], size[0] / grid[1]
    return bool(down >= 1 and across >= 1 and abs(down / across - 1) < 0.1 and min(grid) > 1)


def doubtful(reading: Reading) -> Reading:
    """The same reading where others come into question."""
    return replace(reading, is_certain=False)


def shape_text(tensor: TensorInfo) -> str:
    """``1x84x8400``."""
    return "x".join("?" if size is None else str(size) for size in tensor.shape)


def shapes_text(tensors: Sequence[TensorInfo]) -> str:
    """``boxes 1x100x4, scores 1x100`` of at most eight outputs."""
    shown = ", ".join(f"{tensor.name} {shape_text(tensor)}" for tensor in tensors[:8])
    return f"{shown}, …" if len(tensors) > 8 else shown
