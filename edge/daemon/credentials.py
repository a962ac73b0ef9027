"""A configuration with its secrets read in: passwords stand in the addresses, and everything secret is registered."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from edge.addresses.secrets import read_secret, register_uri, with_credentials
from edge.errors import ConfigError

if TYPE_CHECKING:
    from edge.config.schema import Config, StreamSettings

SECRET_FILES = ("password_file", "token_file", "view_token_file", "secret_file", "url_file")
# of a stream, all of the same camera
ADDRESSES = ("source", "record_source", "live_source")
# 128 bits, if they are random letters and digits: nothing slows down the guesses of many machines
MIN_TOKEN_CHARS = 22


def with_secrets(config: Config) -> Config:
    """Read every secret file, register what is secret, and put passwords into the addresses of their streams.

    Raises:
        ConfigError: a file cannot be read, or an address takes no password.
    """
    secrets: dict[str, str] = {}
    for key, value in _leaves(config, ""):
        name = key.rpartition(".")[2]
        if isinstance(value, Path) and name in SECRET_FILES:
            # what a model server wants to see is its own affair
            is_ours = "token" in name and not key.endswith(".remote.token_file")
            secrets[key] = read_secret(value, key, min_chars=MIN_TOKEN_CHARS if is_ours else 1)
        elif isinstance(value, str) and "://" in value:
            register_uri(value)
    streams = tuple(
        _with_password(stream, secrets.get(f"streams.{stream.name}.password_file")) for stream in config.streams
    )
    return config.model_copy(update={"streams": streams})


def _with_password(stream: StreamSettings, password: str | None) -> StreamSettings:
    changed: dict[str, str] = {}
    for key in ADDRESSES:
        address = getattr(stream, key)
        try:
            whole = None if address is None else with_credentials(address, stream.username, password)
        except ConfigError as error:
            raise ConfigError(f"streams.{stream.name}: {error}") from None
        if whole is not None:
            register_uri(whole)
            changed |= {} if whole == address else {key: whole}
    return stream.model_copy(update=changed) if changed else stream


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Every value of the configuration with its key; the parts of lists go by their name where they have one."""
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _leaves(getattr(value, name), f"{key}.{name}" if key else name)
    elif isinstance(value, tuple):
        for number, part in enumerate(value):
            yield from _leaves(part, f"{key}.{getattr(part, 'name', number)}")
    else:
        yield key, value
