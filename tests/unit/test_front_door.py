"""``import edge`` is the front door: its names are pinned, typed, loaded when they are used, and cheap until then."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import edge

ROOT = Path(__file__).parents[2]
NAMES = [
    *(
        "Classification",
        "Config",
        "ConfigError",
        "DataError",
        "Detection",
        "Detections",
        "EdgeError",
        "Embedding",
        "EngineError",
    ),
    *("Event", "Frame", "Label", "ManifestError", "MissingError", "Model", "ModelError", "Pipeline", "Result"),
    *("Segmentation", "SinkError", "SourceError", "SourceReader", "Tracks", "UsageError", "__version__"),
    *("load_config", "open_model", "open_sink", "open_source", "open_tracker", "track"),
]


def test_the_public_names_are_these_and_no_others() -> None:
    assert sorted(edge.__all__) == sorted(NAMES)


def test_every_public_name_is_there_and_documented() -> None:
    assert set(NAMES) <= set(dir(edge))
    assert isinstance(edge.__version__, str)
    assert not [name for name in NAMES if name != "__version__" and not getattr(edge, name).__doc__]


def test_what_is_typed_is_what_is_loaded() -> None:
    """The imports for type checkers and the table of the lazy loader name the same modules."""
    found: dict[str, str] = {}
    for node in ast.walk(ast.parse((ROOT / "edge" / "__init__.py").read_text())):
        if (
            isinstance(node, ast.ImportFrom)
            and node.module
            and node.module.startswith("edge.")
            and node.module != "edge.lazy"
        ):
            found |= {alias.name: node.module for alias in node.names}
    assert found == edge._MODULE_OF


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'edge' has no attribute 'pipelines'"):
        _ = edge.pipelines
