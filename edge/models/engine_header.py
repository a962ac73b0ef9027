"""A manifest for an engine of Ultralytics, from the JSON that it puts in front of the plan."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge.errors import ManifestError
from edge.files import sha256_of
from edge.models.exporter import Exported, read_ultralytics
from edge.models.habits import HABITS
from edge.models.manifest import InputSpec, Manifest, OutputSpec
from edge.models.readings import TASK_HEADS

# its exporter names the input of every model so
INPUT = "images"


def manifest_of_engine(header: Mapping[str, Any], path: Path) -> Manifest:
    """What the header says, as a manifest.

    Args:
        header: the JSON in front of the plan, empty without one.
        path: the engine.

    Raises:
        ManifestError: there is no header, or it describes what no head reads.
    """
    exported = read_ultralytics(header, path.name)
    if exported is None or exported.size is None:
        raise ManifestError(
            f"{path.name}: no engine with a manifest next to it ({path.with_suffix('.json').name}); copy that too, or "
            "run: edge build MODEL.onnx"
        )
    head, reading = _reading(exported, path.name)
    is_classifier = exported.task == "classify"
    habits = HABITS["ultralytics-classify" if is_classifier else "yolov8"]
    width, height = exported.size
    spec = InputSpec(name=INPUT, width=width, height=height, layout="nchw", dtype="float32", **habits)
    return Manifest(
        name=path.stem,
        task="classify" if is_classifier else "detect",
        head=head,
        input=spec,
        classes=exported.names,
        needs_nms=head.startswith("yolov8"),
        output=reading,
        kpt_shape=exported.kpt_shape,  # type: ignore[arg-type]
        keypoints=exported.kpt_names or None,
        precision="fp32",
        decided=(f"head {head}: the header of Ultralytics {exported.version} says task {exported.task}",),
        sha256=sha256_of(path),
    )


def _reading(exported: Exported, name: str) -> tuple[str, OutputSpec | None]:
    if exported.task == "classify":
        return "classify", OutputSpec(activation="none")
    if exported.task not in TASK_HEADS:
        raise ManifestError(
            f"{name}: its header says task {exported.task}, which no head reads; {', '.join(TASK_HEADS)}, "
            "classify can be read"
        )
    return TASK_HEADS[exported.task][exported.is_listed], None
