"""Passwords and tokens: where they are read from, and the one place that keeps them out of everything that is written.

A value is registered when it is read. ``redacted`` then finds it in any text: as it is, and in the encodings in which
libraries print it (percent signs, base64, JSON, HTML, hexadecimal).
"""

from __future__ import annotations

import base64
import html
import json
import os
import re
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus, unquote, unquote_plus

from edge.addresses.uris import (
    kind_of,
    masked,
    masked_in,
    path_keys,
    possible_infos,
    secret_values,
    user_info,
)
from edge.errors import ConfigError

MASK = "***"
# shorter ones stand in every second number: masking them would make the log useless
MIN_CHARS = 4
# a shorter piece of base64 could be an ordinary word
MIN_BASE64_CHARS = 6
CREDENTIALS_VARIABLE = "CREDENTIALS_DIRECTORY"


class Redactor:
    """The values that may not be printed. Any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._forms: set[str] = set()
        self._pattern: re.Pattern[str] | None = None

    def register(self, value: str) -> None:
        """Never print this value again; what is shorter than four characters is left to ``masked``."""
        if len(value) < MIN_CHARS:
            return
        with self._lock:
            forms = set(encodings_of(value)) - self._forms
            if not forms:
                return
            self._forms |= forms
            # the longest first: a form may be part of another
            ordered = sorted(self._forms, key=len, reverse=True)
            self._pattern = re.compile("|".join(map(re.escape, ordered)), re.IGNORECASE)

    def __call__(self, text: str) -> str:
        pattern = self._pattern
        known = text if pattern is None else pattern.sub(MASK, text)
        return masked_in(known)


_redactor = Redactor()


def register(value: str) -> None:
    """Never print this value again."""
    _redactor.register(value)


def redacted(text: str) -> str:
    """The text without registered values in any encoding, and without what stands in the secret places of addresses."""
    return _redactor(text)


def register_uri(uri: str) -> None:
    """Register what is secret in an address: user name and password, and the values of secret keys."""
    for value in secrets_in(uri):
        register(value)


def register_pushed(uri: str) -> None:
    """As ``register_uri`` for an address that is pushed to: its path may hold a key."""
    register_uri(uri)
    for key in path_keys(uri):
        register(key)
        register(unquote(key))


def secrets_in(uri: str) -> Iterator[str]:
    """The secret values of an address, as they stand there and decoded."""
    for info in possible_infos(uri):
        user, _, password = info.partition(":")
        yield from (info, unquote(info))
        # an address without a password has a key in the place of the user name; with one, the name is no secret
        yield from (password or user, unquote(password or user))
    for value in secret_values(uri):
        yield from (value, unquote(value), unquote_plus(value))


def read_secret(path: Path, key: str, *, min_chars: int = 1) -> str:
    """Read and register a secret.

    Args:
        path: a file of one line; a bare name is looked for among systemd's credentials first (LoadCredential=).
        key: of the configuration, for messages.
        min_chars: fewer are refused.

    Raises:
        ConfigError: the file cannot be read or holds too little.
    """
    found = credential_path(path)
    try:
        value = found.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ConfigError(f"{key}: {found} cannot be read ({reason}); expected a file of one line") from None
    if len(value) < min_chars:
        raise ConfigError(f"{key}: {found} holds fewer than {min_chars} characters; run: openssl rand -hex 16")
    register(value)
    return value


def credential_path(path: Path) -> Path:
    """Where a secret lies: a bare file name among systemd's credentials if it is there, else the path itself."""
    folder = os.environ.get(CREDENTIALS_VARIABLE)
    if folder and not path.is_absolute() and (Path(folder) / path).is_file():
        return Path(folder) / path
    return path


def with_credentials(uri: str, username: str | None, password: str | None) -> str:
    """A network address with user name and password in it; what stood there is replaced.

    Raises:
        ConfigError: an address that takes none.
    """
    if username is None and password is None:
        return uri
    scheme, _, rest = uri.partition("://")
    if kind_of(uri) not in ("network", "plugin"):
        raise ConfigError(f"{masked(uri)}: only network addresses take a username and a password_file")
    old = user_info(uri)
    place = rest[len(old) + 1 :] if old else rest
    user = quote(username or "", safe="")
    return f"{scheme}://{user}{'' if password is None else ':' + quote(password, safe='')}@{place}"


def encodings_of(value: str) -> Iterator[str]:
    """The forms in which a value may be printed."""
    encoded = quote(value, safe="")
    yield from (value, encoded, quote(value), quote_plus(value), quote(encoded, safe=""))
    yield from (json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1])
    yield from (html.escape(value), html.escape(value, quote=False), repr(value)[1:-1])
    data = value.encode("utf-8", "surrogatepass")
    # in a text that holds the other quotation mark too, Python prints this one in another way
    yield from (repr('"' + value)[2:-1], repr(data)[2:-1], repr(b'"' + data)[3:-1])
    yield data.hex()
    yield from _base64_forms(data)


def _base64_forms(data: bytes) -> Iterator[str]:
    """What is certain of the value's base64 wherever it begins within a longer text (``user:password``)."""
    for offset in range(3):
        # the first characters depend on what stands before, the last on what comes after
        encoded = base64.b64encode(b"\0" * offset + data).decode().rstrip("=")
        begin = (0, 2, 3)[offset]
        end = len(encoded) - (1 if (offset + len(data)) % 3 else 0)
        core = encoded[begin:end]
        if len(core) >= MIN_BASE64_CHARS:
            yield from (core, core.replace("+", "-").replace("/", "_"))


def redacted_value(value: Any) -> Any:
    """A JSON value with ``redacted`` texts; keys stay."""
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, Mapping):
        return {key: redacted_value(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [redacted_value(inner) for inner in value]
    return value
