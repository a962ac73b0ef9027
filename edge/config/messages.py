"""What is wrong with a configuration file, in a sentence: where, what was found, and the nearest key that exists."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ValidationError

from edge.addresses.secrets import redacted, register_uri

# of the names of streams, models and targets
NAME_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"


def fault(error: ValidationError, root: type[BaseModel], where: str, text: str, *, is_single_model: bool) -> str:
    """The first thing that is wrong, for the person who wrote the file.

    Args:
        error: what the check of the file found.
        root: the model of the whole file.
        where: its name.
        text: its text, to name lines.
        is_single_model: whether it has a ``[model]`` instead of ``[[models]]``.
    """
    # a misspelt key makes the right one missing too: the misspelling is what to mend
    first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    key = _written(first["loc"], is_single_model)
    line = _line_of(first["loc"], text)
    place = f"{where}, line {line}" if line else where
    if first["type"] == "extra_forbidden":
        return f"{place}: unknown key {key!r}{_nearest(first['loc'], root, is_single_model)}"
    if first["type"] == "missing":
        return f"{place}: key {key!r} is missing"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "string_pattern_mismatch" and first["ctx"]["pattern"] == NAME_PATTERN:
        message = "expected 1 to 64 letters, digits, - and _, no spaces"
    if not key:
        return f"{place}: {message}"
    # an address may stand where it does not belong, and nothing of the file has been registered yet
    for piece in _texts(first.get("input")):
        register_uri(piece)
    found = f"{redacted(repr(first.get('input'))):.60}"
    return f"{place}: {key} = {found}: {message[0].lower()}{message[1:]}"


def _texts(value: Any) -> Iterator[str]:
    """All texts in a value of the file."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)


def _written(location: tuple[int | str, ...], is_single_model: bool) -> str:
    """A location as the person wrote it: ``[model]`` is kept as the first of the models."""
    if is_single_model and location[:2] == ("models", 0):
        location = ("model", *location[2:])
    return ".".join(str(part) for part in location)


def _nearest(location: tuple[int | str, ...], root: type[BaseModel], is_single_model: bool) -> str:
    moved = _deeper(str(location[-1]), _section_at(location[:-1], root), root)
    if moved:
        return f"; did you mean '{_written((*location[:-1], *moved), is_single_model)}'?"
    known = _keys_at(location[:-1], root)
    close = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.5)
    if close:
        return f"; did you mean '{_written((*location[:-1], close[0]), is_single_model)}'?"
    return f"; known here: {', '.join(sorted(known))}"


def _deeper(key: str, section: Any, root: type[BaseModel]) -> tuple[str, ...]:
    """Where a key stands one table further down, where it stands in exactly one; else nothing."""
    inner = {name: _section_in(field.annotation, root) for name, field in section.model_fields.items()}
    found = [name for name, part in inner.items() if part is not root and key in part.model_fields]
    return (found[0], key) if len(found) == 1 and key not in section.model_fields else ()


def _keys_at(location: tuple[int | str, ...], root: type[BaseModel]) -> list[str]:
    """The keys of the table that a location leads to."""
    section = _section_at(location, root)
    return [*section.model_fields, *(["model"] if section is root else [])]


def _section_at(location: tuple[int | str, ...], root: type[BaseModel]) -> Any:
    section: Any = root
    for part in location:
        if isinstance(part, int):
            continue
        section = _section_in(section.model_fields[part].annotation, root) if part in section.model_fields else section
    return section


def _section_in(annotation: Any, root: type[BaseModel]) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = _section_in(inner, root)
        if found is not root:
            return found
    return root


def _line_of(location: tuple[int | str, ...], text: str) -> int:
    """The line that the last key of a location stands on, 0 where it is not to be found without doubt."""
    keys = [part for part in location if isinstance(part, str)]
    if not keys:
        return 0
    pattern = re.compile(rf"^\s*{re.escape(keys[-1])}\s*=|^\s*\[+\s*(?:[\w.]+\.)?{re.escape(keys[-1])}\s*\]+")
    lines = [number for number, line in enumerate(text.splitlines(), 1) if pattern.match(line)]
    return lines[0] if len(lines) == 1 else 0
