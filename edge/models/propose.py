"""A manifest for somebody else's ONNX file: guessed from its graph, then corrected by the model card beside it.

Where the graph leaves a doubt about the head, nothing is guessed: a sentence says what to state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

from edge.errors import ManifestError, ModelError
from edge.files import parse_json
from edge.interfaces import TensorInfo
from edge.models.card import apply_card
from edge.models.class_names import names_for
from edge.models.manifest import (
    ONNX_KEY,
    HeadName,
    InputSpec,
    Manifest,
    Task,
    Thresholds,
    manifest_path,
    parse_manifest,
)
from edge.models.onnx_graph import GraphFacts, read_graph

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)
YOLO_STRIDES = (8, 16, 32)
NANODET_BINS = 32

_TASKS: dict[HeadName, Task] = {"semantic": "segment", "classify": "classify", "embedding": "embed"}
# how each family was trained: colour, mean, std, resize, anchor, pad; from the projects' own inference code
_HABITS: dict[HeadName, dict[str, Any]] = {
    "yolox": {"colour": "bgr", "anchor": "top-left", "pad": 114},
    "yolov5": {"colour": "rgb", "std": (255.0,) * 3, "pad": 114},
    "yolov8": {"colour": "rgb", "std": (255.0,) * 3, "pad": 114},
    "nanodet": {"colour": "bgr", "mean": IMAGENET_MEAN[::-1], "std": IMAGENET_STD[::-1], "pad": 0},
    "detr": {"colour": "rgb", "std": (255.0,) * 3, "resize": "stretch"},
    "ssd": {"colour": "rgb", "mean": (127.0,) * 3, "std": (128.0,) * 3, "resize": "stretch"},
    "semantic": {"colour": "rgb", "mean": IMAGENET_MEAN, "std": IMAGENET_STD, "resize": "stretch"},
    "classify": {"colour": "rgb", "mean": IMAGENET_MEAN, "std": IMAGENET_STD, "resize": "stretch"},
    "embedding": {"colour": "rgb", "mean": IMAGENET_MEAN, "std": IMAGENET_STD, "resize": "stretch"},
    "edgenet": {"colour": "bgr"},
}
_THRESHOLDS: dict[HeadName, Thresholds] = {
    "yolox": Thresholds(score=0.3, iou=0.45),
    "nanodet": Thresholds(score=0.35, iou=0.6),
    "ssd": Thresholds(score=0.7, track_score=0.3, iou=0.3),
}


@dataclass(frozen=True, slots=True)
class Proposal:
    """A manifest and where it came from. Attributes: ``is_own``: it was stored in the file by our exporter."""

    manifest: Manifest
    is_own: bool
    graph: GraphFacts

    @property
    def summary(self) -> str:
        spec = self.manifest.input
        return (
            f"head {self.manifest.head}, {spec.width}x{spec.height} {spec.colour}, {len(self.manifest.classes)} classes"
        )


def propose_manifest(path: Path, *, head: str | None = None) -> Proposal:
    """Describe an ONNX file.

    Args:
        path: the ONNX file; a model card beside it (``name.json`` that is no manifest) fills in what it knows.
        head: the head, where the graph does not tell.

    Raises:
        ModelError: not an ONNX file with one image input.
        ManifestError: the head cannot be told from the graph, or is unknown.
    """
    graph = read_graph(path)
    if ONNX_KEY in graph.metadata:
        return Proposal(parse_manifest(graph.metadata[ONNX_KEY], f"metadata of {path.name}"), True, graph)
    if head is not None and head not in get_args(HeadName):
        raise ManifestError(f"no head is called {head!r}; choose from: {', '.join(get_args(HeadName))}")
    card = _read_card(path)
    layout, width, height = _picture(graph, path)
    chosen = cast("HeadName | None", head) or _guess_head(graph, width, height, card)
    if chosen is None:
        shapes = ", ".join(f"{tensor.name} {_shape(tensor)}" for tensor in graph.outputs)
        raise ManifestError(
            f"{path.name}: cannot tell the head from its outputs ({shapes}); "
            f"run: edge inspect {path} --head NAME, with one of {', '.join(get_args(HeadName))}"
        )
    guess = _describe(path, graph, chosen, layout, (width, height))
    return Proposal(apply_card(guess, card, path), False, graph)


def _read_card(path: Path) -> dict[str, Any]:
    try:
        card = parse_json(manifest_path(path).read_text())
    except (OSError, ValueError):
        return {}
    return card if isinstance(card, dict) and "schema" not in card else {}


def _picture(graph: GraphFacts, path: Path) -> tuple[str, int, int]:
    """Layout, width and height of the one image input."""
    if len(graph.inputs) != 1 or len(graph.inputs[0].shape) != 4:
        found = ", ".join(f"{tensor.name} {_shape(tensor)}" for tensor in graph.inputs)
        raise ModelError(f"{path.name}: expected one input of an image (N,3,H,W or N,H,W,3), found {found}")
    _, second, third, fourth = graph.inputs[0].shape
    layout, height, width = ("nchw", third, fourth) if second == 3 else ("nhwc", second, third)
    if 3 not in (second, fourth) or width is None or height is None:
        raise ModelError(
            f"{path.name}: expected an image input of fixed size, found {_shape(graph.inputs[0])}; export it with a "
            "fixed height and width (a dynamic batch is fine)"
        )
    return layout, width, height


def _describe(path: Path, graph: GraphFacts, head: HeadName, layout: str, size: tuple[int, int]) -> Manifest:
    tensor = graph.inputs[0]
    habits = dict(_HABITS[head])
    if tensor.dtype == "uint8":
        habits |= {"mean": (0.0,) * 3, "std": (1.0,) * 3}
    spec = InputSpec(name=tensor.name, width=size[0], height=size[1], layout=layout, dtype=tensor.dtype, **habits)  # type: ignore[arg-type]
    has_background = head == "ssd"
    count = num_classes(graph.outputs, head) - has_background
    return Manifest(
        name=path.stem,
        task=_TASKS.get(head, "detect"),
        head=head,
        input=spec,
        classes=() if head == "embedding" else names_for(count, has_background=head == "semantic"),
        thresholds=_THRESHOLDS.get(head, Thresholds()),
        needs_nms=head not in ("detr", "edgenet"),
        has_background=has_background,
        precision="int8" if "QuantizeLinear" in graph.operators else "fp32",
    )


def _guess_head(graph: GraphFacts, width: int, height: int, card: dict[str, Any]) -> HeadName | None:
    names = {tensor.name for tensor in graph.outputs}
    shapes = [tensor.shape for tensor in graph.outputs]
    if {"boxes", "scores", "labels"} <= names:
        return "edgenet"
    if len(shapes) == 1:
        return _guess_single(shapes[0], graph, (width, height), card)
    if all("stride" in name for name in names) and len(shapes) % 2 == 0:
        return "nanodet"
    if len(shapes) == 2 and all(len(shape) == 3 for shape in shapes) and 4 in (shapes[0][-1], shapes[1][-1]):
        return "detr" if any("logit" in name or name.startswith("pred_") for name in names) else "ssd"
    return None


def _guess_single(
    shape: tuple[int | None, ...], graph: GraphFacts, size: tuple[int, int], card: dict[str, Any]
) -> HeadName | None:
    if len(shape) == 2:
        is_vector = "embed" in str(card.get("task", "")) or (shape[1] or 0) in (128, 256, 512, 768)
        return "embedding" if is_vector and graph.last_operators[0] != "Softmax" else "classify"
    if len(shape) == 4 or (len(shape) == 3 and "int" in graph.outputs[0].dtype):
        return "semantic"
    if len(shape) != 3:
        return None
    return _guess_rows(shape[1], shape[2], size)


def _guess_rows(second: int | None, third: int | None, size: tuple[int, int]) -> HeadName | None:
    """Tell detectors with one output apart by their number of anchors."""
    cells = _num_cells(size, YOLO_STRIDES)
    if third is not None and second == cells:
        return "nanodet" if third in (80 + NANODET_BINS, 20 + NANODET_BINS) else "yolox"
    if second == 3 * cells:
        return "yolov5"
    if third == cells:
        return "yolov8"
    if second == _num_cells(size, (*YOLO_STRIDES, 64)):
        return "nanodet"
    return None


def _num_cells(size: tuple[int, int], strides: tuple[int, ...]) -> int:
    return sum(-(-size[0] // stride) * -(-size[1] // stride) for stride in strides)


def num_classes(outputs: Sequence[TensorInfo], head: HeadName) -> int:
    """How many classes the outputs have room for, the background included."""
    shapes = [tensor.shape for tensor in outputs]
    first = shapes[0]
    match head:
        case "yolox" | "yolov5":
            return (first[2] or 5) - 5
        case "yolov8":
            return (first[1] or 4) - 4
        case "nanodet":
            return (first[-1] or 0) - (NANODET_BINS if len(shapes) == 1 else 0)
        case "detr" | "ssd":
            return next((shape[-1] or 0 for shape in shapes if shape[-1] != 4), 0)
        case "classify":
            return first[1] or 0
        case "semantic":
            return (first[1] or 0) if len(first) == 4 else 256
        case _:
            return 0


def _shape(tensor: TensorInfo) -> str:
    return "x".join("?" if size is None else str(size) for size in tensor.shape)
