"""Files as the program keeps them: written whole or not at all, told apart by their hash, set aside where damaged."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)
MAX_STATE_BYTES = 64 << 20
BROKEN_SUFFIX = ".broken"
# they say nothing about the file: it may be whole
_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR)
READ_CHUNK_BYTES = 1 << 20
# an entry of external data with a file name of up to 127 bytes
MAX_ENTRY_BYTES = 140


@contextmanager
def atomic_path(path: Path, mode: int | None = None) -> Iterator[Path]:
    """Give a temporary path in the same folder; it replaces ``path`` when the block ends, and is removed if it raises.

    Args:
        path: the file.
        mode: its rights, whatever the umask is; None: what the process gives to new files.

    Raises:
        OSError: the folder does not exist or cannot be written.
    """
    temporary = path.with_name(f".{path.stem}-{secrets.token_hex(8)}{path.suffix}")
    # the kernel takes the umask off: asking for it would mean to change it, for all threads and for children
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
    file = os.open(temporary, flags, 0o666 if mode is None else mode)
    try:
        if mode is not None:
            os.fchmod(file, mode)
    finally:
        os.close(file)
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: Path, data: bytes | str, mode: int | None = None) -> None:
    """Write a whole file, or leave the old one as it was; ``mode`` as in ``atomic_path``."""
    content = data.encode() if isinstance(data, str) else data
    with atomic_path(path, mode) as temporary:
        temporary.write_bytes(content)


def sync_folder(folder: Path) -> None:
    """Make a new name outlive a power cut. Raises: OSError: it may not."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_of(path: Path) -> str:
    """The SHA-256 in hexadecimal of a file, and of the files next to it that hold the weights of a model."""
    digest = hashlib.sha256()
    names = [path.with_suffix(".bin").name] if path.suffix == ".xml" else []
    with path.open("rb") as file:
        before = b""
        while chunk := file.read(READ_CHUNK_BYTES):
            digest.update(chunk)
            if path.suffix == ".onnx":
                names += _weight_files(before + chunk)
                before = chunk[-MAX_ENTRY_BYTES:]
    for name in sorted(set(names)):
        beside = path.parent / name
        if beside.is_file() and beside != path:
            with beside.open("rb") as file:
                while chunk := file.read(READ_CHUNK_BYTES):
                    digest.update(chunk)
    return digest.hexdigest()


def parse_json(text: str | bytes) -> Any:
    """JSON that somebody else may have written.

    Raises:
        ValueError: it is none, or nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _weight_files(data: bytes) -> list[str]:
    """The files that ONNX tensors in these bytes lie in: the values of entries ``location`` (field 1 key, 2 value)."""
    found = []
    for match in re.finditer(rb"\x0a\x08location\x12(.)", data, re.DOTALL):
        value = data[match.end() : match.end() + match.group(1)[0]]
        with suppress(UnicodeDecodeError):
            found.append(value.decode())
    return [name for name in found if name and "\0" not in name and not name.startswith("/") and ".." not in name]


def cache_folder() -> Path:
    """Where what can be made again is kept (compiled kernels, engines): ``EDGELOOP_CACHE``, or the user's folder."""
    chosen = os.environ.get("EDGELOOP_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgeloop"


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def load_object(path: Path) -> dict[str, Any]:
    """The JSON object of a file; empty where there is none. A damaged file is set aside as ``NAME.broken``.

    Raises:
        OSError: this process lacks files or memory; the file itself may be whole.
    """
    try:
        value = json.loads(read_regular(path), parse_constant=_refuse)
    except FileNotFoundError:
        return {}
    except OSError as error:
        if error.errno in _SHORTAGES:
            raise
        set_aside(path, error.strerror or str(error))
    except (ValueError, RecursionError) as error:
        set_aside(path, str(error))
    else:
        if isinstance(value, dict):
            return value
        set_aside(path, f"expected a JSON object, found {type(value).__name__}")
    return {}


def read_regular(path: Path, max_bytes: int = MAX_STATE_BYTES) -> bytes:
    """The content of an ordinary file.

    Raises:
        OSError: it cannot be read, or is a folder, a pipe or a device, at which a read may wait for ever.
        ValueError: it holds more than ``max_bytes``.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode):
            raise OSError(errno.EINVAL, "no ordinary file")
        if facts.st_size > max_bytes:
            raise ValueError(f"{facts.st_size} bytes, expected at most {max_bytes}")
        return file.read()


def set_aside(path: Path, reason: str) -> None:
    """Keep a damaged file for people as ``NAME.broken``, where the disk allows it; one that was there makes room."""
    broken = path.with_name(path.name + BROKEN_SUFFIX)
    try:
        path.replace(broken)
    except OSError as error:
        log.error("%s is damaged (%s) and cannot be set aside (%s); it counts as empty", path, reason, error.strerror)
    else:
        log.error("%s is damaged (%s); it is kept as %s, and counts as empty", path, reason, broken.name)


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")
