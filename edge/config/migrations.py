"""Configurations of older versions brought to this one: the text is changed line by line, so comments stay.

A step is added here whenever a key changes its name or its unit, together with ``version`` in ``Config``.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from edge.errors import ConfigError

VERSION = 1
_VERSION_LINE = re.compile(r"^(\s*version\s*=\s*)(\d+)", re.MULTILINE)
_TABLE_LINE = re.compile(r"^\s*\[+\s*([\w.-]+)\s*\]+")
_KEY_LINE = re.compile(r"^(\s*#?\s*)([\w-]+)(\s*=\s*)(.*)$")


@dataclass(frozen=True, slots=True)
class Rename:
    """A key with another name, and its value in another unit where ``convert`` is given.

    Attributes:
        table: as it stands in brackets, ``streams``; empty for keys before the first table.
        old, new: the key.
        convert: old value as written → new value as written.
    """

    table: str
    old: str
    new: str
    convert: Callable[[str], str] = str


# version of the file → what leads to the next one
STEPS: Mapping[int, Sequence[Rename]] = {}


@dataclass(frozen=True, slots=True)
class Migrated:
    """The text for this version, and how it differs from what it was; ``diff`` is empty where nothing had to change."""

    text: str
    diff: str


def migrate(text: str, *, steps: Mapping[int, Sequence[Rename]] = STEPS, version: int = VERSION) -> Migrated:
    """Bring the text of a configuration to this version.

    Args:
        text: TOML.
        steps: version → renames that lead to the next one.
        version: where to.

    Raises:
        ConfigError: the text is of a later version, or no step leads from its version.
    """
    stated = _VERSION_LINE.search(text)
    found = int(stated[2]) if stated else version
    if found > version:
        raise ConfigError(f"version = {found}: this Edgeloop knows versions up to {version}; install a newer one")
    lines = text.splitlines(keepends=True)
    for number in range(found, version):
        if number not in steps:
            raise ConfigError(
                f"version = {number}: nothing is known about files this old; begin with systemd/edge.toml"
            )
        for rename in steps[number]:
            lines = _renamed(lines, rename)
    result = _VERSION_LINE.sub(rf"\g<1>{version}", "".join(lines), count=1)
    shown = difflib.unified_diff(
        text.splitlines(), result.splitlines(), "edge.toml", "edge.toml (migrated)", lineterm=""
    )
    return Migrated(result, "\n".join(shown))


def _renamed(lines: Sequence[str], rename: Rename) -> list[str]:
    table, found = "", []
    for line in lines:
        header = _TABLE_LINE.match(line)
        if header:
            table = header[1]
        key = _KEY_LINE.match(line.rstrip("\n"))
        if key and table == rename.table and key[2] == rename.old:
            line = f"{key[1]}{rename.new}{key[3]}{_converted(key[4], rename)}\n"  # noqa: PLW2901
        found.append(line)
    return found


def _converted(written: str, rename: Rename) -> str:
    """The value in its new unit; a comment behind it stays."""
    value, space, comment = re.match(r"^(.*?)(\s*)(#.*)?$", written).groups()  # type: ignore[union-attr]
    return f"{rename.convert(value)}{space}{comment or ''}"
