"""Where the shipped model files are; docs/models.md says how they were made and how good they are."""

from __future__ import annotations

from pathlib import Path

from edge.addresses.uris import kind_of

FOLDER = Path(__file__).parent


def demo_model(source: str = "synthetic://street") -> Path:
    """The INT8 detector of the demo: of the built-in street for that, of real streets for everything else."""
    name = "street-nano" if kind_of(source) == "synthetic" else "voc-street-nano"
    return FOLDER / f"{name}-int8.onnx"
