"""A certificate: a statement about a stretch of time, with the part of the log that proves it, in one JSON file.

Whoever checks it needs the file and, to be sure whose it is, the fingerprint of the device's key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge.errors import DataError
from edge.files import load_object, parse_json, read_regular, write_atomic
from edge.watchlog.chain import HEAD_NAME, Checked, check_files, numbered, read_files
from edge.watchlog.keys import DeviceKey, is_signed
from edge.watchlog.seconds import NS_PER_S
from edge.watchlog.statement import statement_of

SCHEMA = 1
MAX_BYTES = 256 << 20
_MESSAGE = b"edge watch log certificate 1\n"


def checked_folder(folder: Path, stream: str, public: str) -> tuple[list[tuple[str, bytes]], Checked]:
    """A stream's whole log: its files, and what their check found.

    Raises:
        DataError: there is none, or it cannot be read.
    """
    try:
        # first: a daemon that writes meanwhile makes the files longer than it says, never shorter
        head = load_object(folder / HEAD_NAME) if (folder / HEAD_NAME).exists() else {}
        files = read_files(numbered(folder))
    except (OSError, ValueError) as error:
        raise DataError(f"{folder}: the watch log cannot be read ({error})") from None
    if not files and not head:
        raise DataError(f"{folder}: there is no watch log of {stream!r}; expected [watch_log] in edge.toml")
    return files, check_files(files, stream, public, head)


def certify(folder: Path, stream: str, key: DeviceKey, start_ns: int, end_ns: int) -> dict[str, Any]:
    """The certificate of a stretch of time, by the device that watched.

    Raises:
        DataError: the log was touched, or has nothing of that time.
    """
    files, checked = checked_folder(folder, stream, key.public)
    if checked.problems:
        more = f" (and {len(checked.problems) - 1} more)" if len(checked.problems) > 1 else ""
        raise DataError(f"{folder}: the watch log is not as it was written: {checked.problems[0]}{more}")
    needed = _numbers_of(checked, start_ns, end_ns)
    if not needed:
        raise DataError(f"{folder}: the watch log has no row of {stream!r} in that time")
    chosen = [(name, content) for name, content in files if int(Path(name).stem) in needed]
    lines = check_files(chosen, stream, key.public).lines
    body = {
        "schema": SCHEMA,
        "statement": statement_of(lines, stream, start_ns, end_ns),
        "window_ns": [start_ns, end_ns],
        "files": [{"name": name, "content": content.decode()} for name, content in chosen],
        "key": key.public,
    }
    return {**body, "signature": key.sign(_message(body))}


def write_certificate(path: Path, certificate: Mapping[str, Any]) -> None:
    """Raises: OSError: it cannot be written."""
    write_atomic(path, json.dumps(certificate, indent=1))


def check_certificate(path: Path) -> dict[str, Any]:
    """Prove a certificate, on any machine.

    Returns:
        It; ``statement`` is proved, and ``key`` is who says so.

    Raises:
        DataError: it cannot be read, or is not what the device wrote.
    """
    try:
        certificate = parse_json(read_regular(path, MAX_BYTES))
        return _proved(certificate, str(path))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise DataError(f"{path}: is no certificate ({error})") from None


def _proved(certificate: Any, where: str) -> dict[str, Any]:
    match certificate:
        case {
            "schema": int(schema),
            "statement": {"stream": str(stream)} as statement,
            "window_ns": [int(start_ns), int(end_ns)],
            "files": list(entries),
            "key": str(public),
            "signature": str(signature),
        } if schema == SCHEMA and set(certificate) == _KEYS:
            pass
        case _:
            raise ValueError("other keys than a certificate has")
    body = {key: value for key, value in certificate.items() if key != "signature"}
    if not is_signed(_message(body), signature, public):
        raise DataError(f"{where}: was changed after it was signed")
    files = [(str(entry["name"]), str(entry["content"]).encode()) for entry in entries]
    checked = check_files(files, stream, public)
    if checked.problems:
        raise DataError(f"{where}: {checked.problems[0]}")
    if statement_of(checked.lines, stream, start_ns, end_ns) != statement:
        raise DataError(f"{where}: the statement is not what its log says")
    return dict(certificate)


_KEYS = {"schema", "statement", "window_ns", "files", "key", "signature"}


def _message(body: Mapping[str, Any]) -> bytes:
    return _MESSAGE + json.dumps(body, sort_keys=True).encode()


def _numbers_of(checked: Checked, start_ns: int, end_ns: int) -> set[int]:
    """The files with rows of a stretch of time, and those between them."""
    offset_ns, found = 0, list[int]()
    for line in checked.lines:
        value = line.value
        clock: Mapping[str, Any] = value if "file" in value else value.get("clock", {})
        offset_ns = clock.get("offset_ns", offset_ns)
        if "s" in value and start_ns <= value["s"] * NS_PER_S + offset_ns < end_ns:
            found.append(line.file)
    return set(range(min(found), max(found) + 1)) if found else set()
