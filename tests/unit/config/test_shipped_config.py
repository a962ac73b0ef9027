"""The shipped edge.toml is the manual: it is valid, and it names every key."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from edge.config.load import load_config, parse_config
from edge.config.schema import Config

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SHIPPED = Path(__file__).parents[3] / "systemd" / "edge.toml"


def sections(model: type[BaseModel]) -> list[tuple[str, str]]:
    """(section, key) of every key of the configuration."""
    found = []
    for key, field in model.model_fields.items():
        inner = section_in(field.annotation)
        if inner is not None:
            found += sections(inner)
        else:
            found.append((model.__name__, key))
    return found


def section_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((inner for part in getattr(annotation, "__args__", ()) if (inner := section_in(part))), None)


def test_the_shipped_file_is_valid() -> None:
    assert load_config(SHIPPED).streams[0].name == "door"


def test_the_shipped_file_explains_every_key() -> None:
    explained = set(re.findall(r"(?:^(?:# )?|[{,] )(\w+) = ", SHIPPED.read_text(), re.MULTILINE))
    missing = [f"{section}.{key}" for section, key in sections(Config) if key not in explained]
    assert not missing, "not in systemd/edge.toml"


def test_commented_defaults_are_the_real_ones() -> None:
    """Uncommenting every key with a default leaves the configuration as it was."""
    text = SHIPPED.read_text()
    defaults = ("frames", "max_age_ms", "isolation", "open_timeout_s", "stall_timeout_s", "retry_base_s", "retry_cap_s")
    for key in defaults:
        text = re.sub(rf"^# ({key} = .*)$", r"\1", text, flags=re.MULTILINE)
    assert parse_config(tomllib.loads(text), where="x").streams == load_config(SHIPPED).streams
