"""A configuration from a TOML file, from tables, or from a command line."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edge.addresses.uris import short_name
from edge.config.messages import fault
from edge.config.overrides import overridden
from edge.config.schema import Config
from edge.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Settings = Mapping[str, Any]


def load_config(path: str | Path) -> Config:
    """Read a TOML file.

    Raises:
        ConfigError: it cannot be read, is no TOML, or has a wrong key or value.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ConfigError(f"{path}: cannot be read ({reason}); expected a TOML file; run: edge init") from None
    return parse_text(text, path.name)


def parse_text(text: str, where: str) -> Config:
    """Check the text of a TOML file, with what the environment overrides. Raises: ConfigError."""
    try:
        raw = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{where}: no valid TOML: {error}") from None
    return parse_config(overridden(raw, os.environ), where=where, text=text)


def parse_config(raw: dict[str, Any], *, where: str, text: str = "") -> Config:
    """Check a configuration.

    Args:
        raw: the tables.
        where: file name for messages.
        text: the file's text, to name lines.

    Raises:
        ConfigError: a wrong key or value.
    """
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(fault(error, Config, where, text, is_single_model="model" in raw)) from None


def config_from_arguments(
    sources: Sequence[str], model: Path, sinks: Sequence[str], *, for_model: Settings, for_stream: Settings
) -> Config:
    """The configuration of a command line: every source runs the same model and writes to the same kinds of sinks.

    Args:
        sources: addresses; their stream names are made from them.
        model: the model file.
        sinks: sink specifications; ``http:PORT`` becomes the server.
        for_model, for_stream: further keys of every ``[model]`` and ``[[streams]]``.

    Raises:
        ConfigError: a value is wrong.
    """
    served = [sink for sink in sinks if sink.startswith("http:")]
    written = [sink for sink in sinks if not sink.startswith("http:")]
    raw: dict[str, Any] = {
        "models": [{"path": model, **for_model}],
        "streams": [
            {"name": name, "source": source, "sinks": written, **for_stream}
            for name, source in zip(_unique_names(sources), sources, strict=True)
        ],
    }
    if served:
        raw["server"] = {"enabled": True, "port": served[-1].removeprefix("http:")}
    return parse_config(raw, where="arguments")


def _unique_names(sources: Sequence[str]) -> list[str]:
    names: list[str] = []
    for source in sources:
        name = short_name(source)[:56]
        names.append(name if name not in names else f"{name}-{len(names) + 1}")
    return names
