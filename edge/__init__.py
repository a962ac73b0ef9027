"""Edgeloop: cameras in; boxes, tracks, events and pictures out. Runs without torch.

    with edge.open_model("yolo11n.onnx") as model:
        found = model(image)                                    # (H, W, 3) uint8 BGR
    for result in edge.track("clip.mp4", model="yolo11n.onnx", lines={"gate": ((0.1, 0.5), (0.9, 0.5))}):
        print(result.tracks, result.events, result.counts)
    edge.Pipeline(edge.load_config("edge.toml"), on_result=print).run()

Every name here is loaded when it is first used, so that ``import edge`` costs next to nothing. All errors are
``edge.EdgeError`` or, for wrong arguments, ``ValueError``.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from edge.lazy import lazily

# ONNX Runtime and OpenVINO tell their makers of each process that imports them, and keep an identity of this machine in
# the home folder, unless both are told not to before their first import
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
# GPUs are numbered as nvidia-smi shows them; CUDA's own order is the fastest first
os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")

if TYPE_CHECKING:
    from edge.config.load import load_config
    from edge.config.schema import Config
    from edge.errors import (
        ConfigError,
        DataError,
        EdgeError,
        EngineError,
        ManifestError,
        MissingError,
        ModelError,
        SinkError,
        SourceError,
        UsageError,
    )
    from edge.model import Model, open_model
    from edge.pipeline.pipeline import Pipeline
    from edge.pipeline.track import track
    from edge.sinks.choose import open_sink
    from edge.sources.reader import SourceReader, open_source
    from edge.trackers.choose import open_tracker
    from edge.types import (
        Classification,
        Detection,
        Detections,
        Embedding,
        Event,
        Frame,
        Label,
        Result,
        Segmentation,
        Tracks,
    )

    __version__: str

_HOME = {
    "edge.config.load": ("load_config",),
    "edge.config.schema": ("Config",),
    "edge.errors": (
        *("EdgeError", "ConfigError", "DataError", "EngineError", "ManifestError", "MissingError", "ModelError"),
        *("SinkError", "SourceError", "UsageError"),
    ),
    "edge.model": ("Model", "open_model"),
    "edge.pipeline.pipeline": ("Pipeline",),
    "edge.sinks.choose": ("open_sink",),
    "edge.sources.reader": ("SourceReader", "open_source"),
    "edge.pipeline.track": ("track",),
    "edge.trackers.choose": ("open_tracker",),
    "edge.types": (
        *(
            "Classification",
            "Detection",
            "Detections",
            "Embedding",
            "Event",
            "Frame",
            "Label",
            "Result",
            "Segmentation",
            "Tracks",
        ),
    ),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "Classification",
    "Config",
    "ConfigError",
    "DataError",
    "Detection",
    "Detections",
    "EdgeError",
    "Embedding",
    "EngineError",
    "Event",
    "Frame",
    "Label",
    "ManifestError",
    "MissingError",
    "Model",
    "ModelError",
    "Pipeline",
    "Result",
    "Segmentation",
    "SinkError",
    "SourceError",
    "SourceReader",
    "Tracks",
    "UsageError",
    "__version__",
    "load_config",
    "open_model",
    "open_sink",
    "open_source",
    "open_tracker",
    "track",
]


_load = lazily(__name__, {name: module.removeprefix("edge.") for name, module in _MODULE_OF.items()})


def __getattr__(name: str) -> Any:
    if name != "__version__":
        return _load(name)
    from importlib.metadata import version

    return version("edgeloop")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
