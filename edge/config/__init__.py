"""Every key of edge.toml: what it may be, how it is read, and what is said when it is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge.lazy import lazily

if TYPE_CHECKING:
    from edge.config.load import config_from_arguments, load_config, parse_config
    from edge.config.schema import Config, ModelSettings, StreamSettings

__all__ = ["Config", "ModelSettings", "StreamSettings", "config_from_arguments", "load_config", "parse_config"]
__getattr__ = lazily(
    __name__,
    {
        "Config": "schema",
        "ModelSettings": "schema",
        "StreamSettings": "schema",
        "config_from_arguments": "load",
        "load_config": "load",
        "parse_config": "load",
    },
)
