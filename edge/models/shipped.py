"""Where the shipped model files are."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent


def demo_model() -> Path:
    """The detector of the demo: INT8, made for the synthetic street (docs/models.md says how)."""
    return FOLDER / "street-nano-int8.onnx"
