"""Whoever follows a message finds the command and the option that it names."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from edge.cli import COMMANDS, LazyGroup

ROOT = Path(__file__).parents[2]
SOURCES = [path for folder in ("edge", "export", "calib") for path in sorted((ROOT / folder).rglob("*.py"))]
NAMED = re.compile(
    rf"\bedge ({'|'.join(sorted(COMMANDS, key=len, reverse=True))})\b([^;.`'\"()]*(?:\.\w[^;.`'\"()]*)*)"
)
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")


def texts(path: Path) -> Iterator[str]:
    """All strings of a source file, f-strings with X for what is filled in, and docstrings."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values)


def named(text: str) -> Iterator[tuple[str, str]]:
    """(command, option) wherever the text says ``edge COMMAND … --option``."""
    for match in NAMED.finditer(" ".join(text.split())):
        # the sentence may go on to another command
        words = match[2].partition(" edge ")[0].partition(", or ")[0]
        for option in OPTION.findall(words):
            yield match[1], option


@cache
def options_of(command: str) -> frozenset[str]:
    found = LazyGroup(name="edge").get_command(None, command)
    return frozenset(name for item in found.params for name in (*item.opts, *item.secondary_opts)) | {"--help"}


MENTIONED = sorted({(command, option) for path in SOURCES for text in texts(path) for command, option in named(text)})


@pytest.mark.parametrize(("command", "option"), MENTIONED)
def test_an_option_that_a_text_names_exists(command: str, option: str) -> None:
    assert option in options_of(command), f"edge {command} has no {option}"


def test_texts_are_searched() -> None:
    assert ("quantize", "--precision") in MENTIONED and len(MENTIONED) > 15
    assert list(named("run: edge quantize M.onnx --data D --float-layers x; or --batch")) == [
        ("quantize", "--data"),
        ("quantize", "--float-layers"),
    ]
