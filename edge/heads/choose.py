"""Which head a manifest asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from edge.heads.instances import InstanceHead
from edge.heads.listed import EndToEndHead, TripleHead
from edge.heads.maps import CenterNetHead, FastestDetHead
from edge.heads.nanodet import NanodetHead
from edge.heads.paired import PairHead
from edge.heads.whole_frame import ClassifyHead, EmbeddingHead, SemanticHead
from edge.heads.yolov8 import Yolov5Head, Yolov8Head
from edge.heads.yolox import YoloxHead
from edge.packages import plugins

if TYPE_CHECKING:
    from edge.interfaces import Head
    from edge.models.manifest import Manifest

HEADS: dict[str, Callable[[Manifest], Head]] = {
    "edgenet": TripleHead,
    "yolox": YoloxHead,
    "yolov8": Yolov8Head,
    "yolov5": Yolov5Head,
    "nanodet": NanodetHead,
    "nanodetplus": NanodetHead,
    "picodet": NanodetHead,
    "fastestdet": FastestDetHead,
    "centernet": CenterNetHead,
    "detr": PairHead,
    "ssd": PairHead,
    "yolonas": PairHead,
    "end2end": EndToEndHead,
    "triple": TripleHead,
    "semantic": SemanticHead,
    "classify": ClassifyHead,
    "embedding": EmbeddingHead,
    "yolov8-seg": InstanceHead,
    "yolov8-pose": InstanceHead,
    "yolov8-obb": InstanceHead,
    "end2end-seg": InstanceHead,
    "end2end-pose": InstanceHead,
    "end2end-obb": InstanceHead,
    "end2end-seg-pose": InstanceHead,
}


def open_head(manifest: Manifest) -> Head:
    """Make the manifest's head, one of ours or that of an installed package.

    Raises:
        ConfigError: no installed package brings it.
        PartError: the head of an installed package cannot be used.
    """
    if not is_plugin(manifest.head):
        return HEADS[manifest.head](manifest)
    made: Head = plugins.make("edge.heads", manifest.head, manifest)
    return made


def is_plugin(name: str) -> bool:
    """Whether an installed package brings this head; what is built in always wins."""
    return name not in HEADS
