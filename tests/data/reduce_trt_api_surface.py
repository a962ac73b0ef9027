"""Cuts the full table of TensorRT's names down to those that our sources mention.

    python tests/data/reduce_trt_api_surface.py FULL.json > tests/data/trt_api_surface.json

FULL.json: release → class → names, taken by introspection of the bindings' wheels. Run it again when a source below
mentions a new name; a test compares where the full table is at hand.
"""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SOURCES = (
    "edge/engines/trt/api.py",
    "edge/engines/trt/callbacks.py",
    "edge/engines/trt/runtime.py",
    "edge/engines/trt/slot.py",
    "edge/engines/trt/engine.py",
    "export/build/engine.py",
    "export/build/graph.py",
    "export/build/limits.py",
    "export/build/report.py",
    "tests/fake_tensorrt.py",
    "tests/unit/engines/test_trt_api.py",
)


def mentioned() -> set[str]:
    """Every attribute and word that the sources contain."""
    names: set[str] = set()
    for source in SOURCES:
        for node in ast.walk(ast.parse((ROOT / source).read_text())):
            if isinstance(node, ast.Attribute):
                names.add(node.attr)
            elif isinstance(node, ast.FunctionDef):
                names.add(node.name)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                names.update(node.value.split())
    return {name for name in names if not name.startswith("_")}


def reduce_surface(full: dict[str, dict[str, list[str]]]) -> dict[str, dict[str, list[str]]]:
    names = mentioned()
    # a class is kept when a source names it, or it is what a call returns
    kept = {"ILayer", "ITensor", "ParserError", "IHostMemory"} | names
    targets = {name for name in full["rtx1.7"]["ComputeCapability"] if name.startswith("SM")}
    return {
        release: {
            kind: sorted(set(members) & (names | (targets if kind == "ComputeCapability" else set())))
            for kind, members in sorted(classes.items())
            if members and kind in kept and set(members) & names
        }
        for release, classes in full.items()
    }


def main(arguments: list[str]) -> Any:
    full = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    lines = [f'"{release}": {json.dumps(classes)}' for release, classes in reduce_surface(full).items()]
    sys.stdout.write("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
