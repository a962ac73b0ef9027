"""Keys of the configuration that the environment overrides, for containers: ``EDGE__SERVER__PORT=9000``.

Two underscores part the keys; a table of a list goes by its name: ``EDGE__STREAMS__door__MAX_FPS=5``.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from edge.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PREFIX = "EDGE__"


def overridden(raw: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """The tables with the environment's values in them; the given ones stay as they are.

    Raises:
        ConfigError: a variable leads to no table.
    """
    result: dict[str, Any] = _copied(raw)
    for variable in sorted(environment):
        if variable.startswith(PREFIX):
            keys = variable.removeprefix(PREFIX).split("__")
            _set(result, keys, _value(environment[variable]), variable)
    return result


def _set(table: dict[str, Any], keys: list[str], value: Any, variable: str) -> None:
    key = keys[0].lower()
    if len(keys) == 1:
        table[key] = value
        return
    inner = table.setdefault(key, {})
    if isinstance(inner, list) and len(keys) > 2:
        named = [part for part in inner if isinstance(part, dict) and str(part.get("name")).lower() == keys[1].lower()]
        if not named:
            raise ConfigError(f"{variable}: no table of {key!r} is named {keys[1]!r}")
        _set(named[0], keys[2:], value, variable)
    elif isinstance(inner, dict):
        _set(inner, keys[1:], value, variable)
    else:
        raise ConfigError(f"{variable}: {key!r} is no table; expected {PREFIX}TABLE__KEY or {PREFIX}STREAMS__NAME__KEY")


def _value(text: str) -> Any:
    """A TOML value; what is none is a text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copied(inner) for key, inner in value.items()}
    return [_copied(inner) for inner in value] if isinstance(value, list) else value
