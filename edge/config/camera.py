"""A camera as edge.toml has it: the keys of its ``[[streams]]`` table, and its password in a file of its own."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from edge.addresses.uris import short_name
from edge.errors import ConfigError
from edge.files import write_atomic

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_NAME = 56
RECORDINGS = "recordings"
# of one camera: a day or two of a large picture
MAX_GB = 20
_LOGIN = re.compile(r"(\w+://)([^/@:]*)(?::([^@]*))?@(.*)")
# what the shipped file has between its chapters
_RULE = re.compile(r"(?m)^# -{20,}$")
_STREAM = re.compile(r"(?m)^[ \t]*\[\[?\s*streams\b")


@dataclass(frozen=True, slots=True)
class Camera:
    """A camera whose password does not stand in the configuration.

    Attributes:
        source, record_source: addresses without a login; the second is the large picture, where there is one.
    """

    name: str
    source: str
    record_source: str = ""
    username: str = ""
    password: str = ""

    @classmethod
    def of(cls, name: str, address: str) -> Camera:
        """From an address that may hold a user name and password."""
        parts = _LOGIN.fullmatch(address)
        if parts is None:
            return cls(name, address)
        return cls(name, parts[1] + parts[4], username=unquote(parts[2]), password=unquote(parts[3] or ""))

    def write_password(self, folder: Path) -> Path | None:
        """Keep the password in a file that only its owner reads."""
        if not self.password:
            return None
        return write_secret(self.password_file(folder), self.password)

    def password_file(self, folder: Path) -> Path:
        return folder / f"{self.name}.password"

    def keys(self, folder: Path) -> dict[str, Any]:
        """What stands in its ``[[streams]]`` table: with a large picture, that one is recorded at events."""
        file = str(self.password_file(folder)) if self.password else ""
        keys = {"name": self.name, "source": self.source, "record_source": self.record_source}
        keys |= {"username": self.username, "password_file": file}
        record = {"folder": str(folder / RECORDINGS), "mode": "events", "content": "source", "max_gb": MAX_GB}
        return {key: value for key, value in keys.items() if value} | ({"record": record} if self.record_source else {})

    def lines(self, folder: Path) -> str:
        """The same as TOML."""
        return "".join(f"{key} = {_toml(value)}\n" for key, value in self.keys(folder).items())


def named(addresses: list[str]) -> list[Camera]:
    """Cameras of addresses, under names that differ."""
    names: list[str] = []
    for address in addresses:
        names.append(free_name(address, names))
    return [Camera.of(name, address) for name, address in zip(names, addresses, strict=True)]


def free_name(address: str, taken: Iterable[str]) -> str:
    """A stream's name made from an address, other than those that are taken."""
    given = list(taken)
    plain = f"camera{address}" if address.isdigit() else re.sub(r"[^A-Za-z0-9_-]", "-", short_name(address))[:MAX_NAME]
    numbers = range(len(given) + 1, 2 * len(given) + 3)
    return next(one for one in (plain, *(f"{plain}-{number}" for number in numbers)) if one not in given)


def streams_in(text: str) -> list[dict[str, Any]]:
    """The ``[[streams]]`` tables of a file. Raises: ConfigError: it is no TOML, or they are no tables."""
    try:
        streams = tomllib.loads(text).get("streams", [])
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"the file is no TOML ({error})") from None
    if not isinstance(streams, list) or not all(isinstance(one, dict) for one in streams):
        raise ConfigError("the file has no [[streams]] tables")
    return streams


def with_cameras(text: str, cameras: list[Camera], folder: Path) -> str:
    """The text with tables for these cameras behind those that are there; all else in it stays.

    Args:
        text: of an edge.toml.
        cameras: under names that are free.
        folder: of their password files.

    Raises:
        ConfigError: its streams are written in a way that takes no more of them.
    """
    before = streams_in(text)
    tables = "".join(f"[[streams]]\n{camera.lines(folder)}\n" for camera in cameras)
    expected = {**tomllib.loads(text), "streams": [*before, *(camera.keys(folder) for camera in cameras)]}
    for edited in _edited(text, tables):
        try:
            if tomllib.loads(edited) == expected:
                return edited
        except tomllib.TOMLDecodeError:
            continue
    raise ConfigError("the streams of the file take no [[streams]] behind them; write each as a table of its own")


def _edited(text: str, tables: str) -> Iterator[str]:
    """The text with the tables before the next chapter, which only the shipped file has, or at its end."""
    streams = list(_STREAM.finditer(text))
    chapter = _RULE.search(text, streams[-1].end()) if streams else None
    if chapter is not None:
        yield text[: chapter.start()] + tables + text[chapter.start() :]
    yield f"{text.rstrip()}\n\n{tables}".rstrip() + "\n"


def write_secret(path: Path, text: str) -> Path:
    """A file that only its owner reads."""
    write_atomic(path, text + "\n", mode=0o600)
    return path


def toml_text(text: str) -> str:
    """A text as a TOML string."""
    escaped = "".join(
        f"\\{letter}" if letter in '\\"' else letter if letter.isprintable() else f"\\U{ord(letter):08X}"
        for letter in text
    )
    return f'"{escaped}"'


def _toml(value: str | int | dict[str, str | int]) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(inner)}" for key, inner in value.items()) + " }"
    return toml_text(value) if isinstance(value, str) else str(value)
