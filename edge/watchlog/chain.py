"""The form of the watch log's files, and the proof that nobody has touched them.

A stream's folder holds ``00000001.jsonl``, ``00000002.jsonl``, … of an hour at most, and ``head.json``. A line is a
JSON object:

    {"file":7,…}     the first one: who, when, which hashes, how the file before ended, and that file's last hash
    {"s":…,"is":…}   one second: see ``edge.watchlog.seconds``
    {"clock":…}      the wall clock was set, or the machine slept
    {"facts":…}      another model runs
    {"lost":…}       seconds whose rows the disk did not take
    {"end":…}        the file ended as it should, and why
    {"seal":…}       the device's signature of the chain up to here

The chain is SHA-256 over the hash before and the line, from file to file; so a signature stands for all before it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge.files import parse_json, read_regular
from edge.watchlog.keys import is_signed

SCHEMA = 1
SUFFIX = ".jsonl"
HEAD_NAME = "head.json"
# of all streams, in the state folder
LOGS = "watch"
ROOT = "0" * 64
MAX_FILE_BYTES = 64 << 20
_SEAL = b"edge watch log seal 1\n"
_HEAD = b"edge watch log head 1\n"


@dataclass(frozen=True, slots=True)
class Line:
    """A line whose place in the chain is proved. Attributes: the number of its file, and its JSON object."""

    file: int
    value: Mapping[str, Any]


@dataclass(slots=True)
class Checked:
    """What is left of a log after its check.

    Attributes:
        lines: all that is sealed, in order.
        problems: what was removed, added, reordered or edited, one sentence each; none where all is as it was written.
        notes: what is no proof of anything: bytes after the last seal.
    """

    lines: list[Line] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def encode(value: Mapping[str, Any]) -> bytes:
    """A line without its end."""
    return json.dumps(value, separators=(",", ":")).encode()


def chained(before: str, line: bytes) -> str:
    """The hash after a line, in hexadecimal."""
    return hashlib.sha256(bytes.fromhex(before) + line).hexdigest()


def seal_message(digest: str) -> bytes:
    """What the device signs for a seal."""
    return _SEAL + bytes.fromhex(digest)


def head_message(head: Mapping[str, Any]) -> bytes:
    """What the device signs of ``head.json``: all but the signature."""
    return _HEAD + json.dumps({key: head[key] for key in sorted(head) if key != "seal"}).encode()


def is_hash(text: object) -> bool:
    """Whether this is a SHA-256 as we write it."""
    return isinstance(text, str) and len(text) == len(ROOT) and not set(text) - set("0123456789abcdef")


def file_name(number: int) -> str:
    """``00000007.jsonl``."""
    return f"{number:08d}{SUFFIX}"


def numbered(folder: Path) -> list[Path]:
    """The files of a log, oldest first."""
    found = [path for path in folder.glob(f"*{SUFFIX}") if path.stem.isdecimal()] if folder.is_dir() else []
    return sorted(found, key=lambda path: (int(path.stem), path.name))


def read_files(paths: Sequence[Path]) -> list[tuple[str, bytes]]:
    """Names and contents. Raises: OSError, ValueError: one cannot be read, or is too large to be one of ours."""
    return [(path.name, read_regular(path, MAX_FILE_BYTES)) for path in paths]


def check_files(
    files: Sequence[tuple[str, bytes]], stream: str, public: str, head: Mapping[str, Any] | None = None
) -> Checked:
    """Prove files to be what one device wrote of one stream, one after the other, and whole.

    Args:
        files: name and content, in the order of their names.
        stream: whose log it is.
        public: the device's public key.
        head: ``head.json``; None for a part of a log, whose beginning and end are not known.
    """
    checked = Checked()
    passed: dict[tuple[int, int], str] = {}
    before: _File | None = None
    for index, (name, content) in enumerate(files):
        one = _File(name, content, stream, public)
        checked.problems += one.problems
        checked.problems += _joined(before, one) if before is not None else []
        checked.lines += one.lines
        passed |= one.hashes
        if one.rest:
            is_last = index == len(files) - 1
            text = f"{name}: {one.rest} bytes after the last seal prove nothing"
            (checked.notes if is_last else checked.problems).append(text)
        before = one
    if head is not None:
        checked.problems += _against_head(head, files, passed, (stream, public))
    return checked


class _File:
    """One file taken apart.

    Attributes:
        number: 0 where the name is none of ours.
        first, last: the hash that its first line names as the one before, and the one after its last seal.
        header: its first line, empty where there is none.
        is_ended: whether its last words are why it ended.
        rest: bytes that are not sealed.
        hashes: (file, lines so far) → hash, at each seal.
    """

    def __init__(self, name: str, content: bytes, stream: str, public: str) -> None:
        stem = name.removesuffix(SUFFIX)
        self.name = name
        self.number = int(stem) if stem.isdecimal() and file_name(int(stem)) == name else 0
        self.lines: list[Line] = []
        self.problems: list[str] = []
        self.hashes: dict[tuple[int, int], str] = {}
        self.is_ended = False
        self.header: Mapping[str, Any] = {}
        self.first = self.last = ROOT
        self.rest = len(content)
        raw = content.split(b"\n")
        values = _objects(raw[:-1])
        if not values or not _is_header(values[0], self.number, stream, public):
            self.problems.append(f"{name}: does not begin as file {self.number} of {stream} by this device")
            return
        self.header = values[0]
        self.first = self.header["previous"]
        self._walk(raw, values, public)
        self._check_seconds()

    def _walk(self, raw: list[bytes], values: list[dict[str, Any]], public: str) -> None:
        digest, waiting, size = self.first, list[Line](), 0
        for count, (line, value) in enumerate(zip(raw, values, strict=False), 1):
            is_seal = "seal" in value
            if is_seal and not is_signed(seal_message(digest), str(value["seal"]), public):
                self.problems.append(f"{self.name}, line {count}: the seal does not fit what stands above it")
                return
            digest = chained(digest, line)
            size += len(line) + 1
            if not is_seal:
                waiting.append(Line(self.number, value))
                continue
            self.is_ended = bool(waiting) and "end" in waiting[-1].value
            self.lines += waiting
            waiting = []
            self.last, self.hashes[self.number, count] = digest, digest
            self.rest -= size
            size = 0

    def _check_seconds(self) -> None:
        expected = self.header["from_s"]
        for line in self.lines:
            if "s" in line.value and line.value["s"] != expected:
                self.problems.append(f"{self.name}: second {line.value['s']} stands where {expected} is expected")
                return
            if "s" in line.value:
                expected += 1
            elif "lost" in line.value:
                expected = line.value["lost"][1]


def _objects(raw: Sequence[bytes]) -> list[dict[str, Any]]:
    """The JSON objects of lines, up to the first line that is none."""
    found: list[dict[str, Any]] = []
    for line in raw:
        try:
            value = parse_json(line)
        except ValueError:
            break
        if not isinstance(value, dict):
            break
        found.append(value)
    return found


def _is_header(value: Mapping[str, Any], number: int, stream: str, public: str) -> bool:
    match value:
        case {
            "file": int(file),
            "schema": int(schema),
            "stream": str(name),
            "key": str(key),
            "previous": str(previous),
            "from_s": int(),
            "offset_ns": int(),
            "boot": str(),
        }:
            return is_hash(previous) and (file, schema, name, key) == (number, SCHEMA, stream, public)
    return False


def _joined(before: _File, one: _File) -> Iterator[str]:
    """What is wrong between two files that should follow each other."""
    if one.number != before.number + 1:
        yield f"{one.name} follows {before.name}: what lay between is missing"
    elif one.first != before.last:
        yield f"{one.name} does not continue {before.name}: the end of that was changed or removed"
    elif not before.is_ended and one.header.get("after") not in ("killed", "cut"):
        yield f"{one.name} does not tell how {before.name} ended"


def _against_head(
    head: Mapping[str, Any],
    files: Sequence[tuple[str, bytes]],
    passed: Mapping[tuple[int, int], str],
    owner: tuple[str, str],
) -> Iterator[str]:
    """What ``head.json`` knows and the files do not have."""
    match head:
        case {
            "stream": str(stream),
            "key": str(key),
            "first": int(first),
            "last": int(last),
            "lines": int(lines),
            "hash": str(digest),
            "seal": str(seal),
        } if is_signed(head_message(head), seal, owner[1]) and (stream, key) == owner:
            pass
        case _:
            yield f"{HEAD_NAME}: is missing, or was changed"
            return
    names = [name for name, _ in files]
    if not names or names[0] != file_name(first):
        yield f"{file_name(first)}, the first file that is kept, is missing, or others were put before it"
    if file_name(last) not in names:
        yield f"{file_name(last)}, of which {HEAD_NAME} knows, is missing"
    elif passed.get((last, lines)) != digest:
        yield f"{file_name(last)}: is shorter than {HEAD_NAME} knows, or was changed"
    if names and names[-1] not in (file_name(last), file_name(last + 1)):
        yield f"{names[-1]}: {HEAD_NAME} does not know of it"
