"""The files of the track store: one head and then blocks, each with its length and checksum, appended and synced.

A file needs no end: what a kill or a power cut has left is read up to its last whole record. So a part opens at any
moment, also while it is written.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import struct
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from edge.errors import DataError
from edge.files import parse_json, sync_folder
from edge.trackstore.block import Steps

SCHEMA = 1
MAGIC = b"edgetracks1\n"
SUFFIX = ".tracks"
NS_PER_S = 1_000_000_000
_RECORD = struct.Struct("<4sII")
# blocks as they came, and those that were made larger afterwards
HEAD, BLOCK, PACKED = b"HEAD", b"BLCK", b"PACK"
# a record beyond this is damage
MAX_RECORD_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Span:
    """The first and last capture time of a block, wall clock; written before it, so that others are skipped unread."""

    start_ns: int
    end_ns: int

    FORM = struct.Struct("<qq")

    def as_bytes(self) -> bytes:
        return self.FORM.pack(self.start_ns, self.end_ns)

    def meets(self, since_ns: int | None, until_ns: int | None) -> bool:
        return (since_ns is None or self.end_ns >= since_ns) and (until_ns is None or self.start_ns < until_ns)


class PartWriter:
    """Appends blocks to a new file, which is locked until it is closed."""

    def __init__(self, folder: Path, head: Mapping[str, Any], begun_ns: int) -> None:
        """Begin a part, named by the wall clock ``begun_ns``.

        Raises:
            OSError: the folder cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.path = _unused(folder, begun_ns)
        handle = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o666)
        self._file = os.fdopen(handle, "ab", buffering=0)
        self.num_bytes = 0
        # a file system may know no locks: then parts of a killed program are safe for the order in which it begins
        with contextlib.suppress(OSError):
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            text = json.dumps({"schema": SCHEMA, **head}, separators=(",", ":")).encode()
            self._append(MAGIC + record(HEAD, zlib.compress(text, 6)))
            sync_folder(folder)
        except OSError:
            self.close()
            raise

    def append(self, span: Span, block: bytes) -> None:
        """Write a block and sync it. Raises: OSError: it is not on the disk; the file is whole up to the one before."""
        self._append(record(BLOCK, span.as_bytes() + block))

    def close(self) -> None:
        self._file.close()

    def _append(self, data: bytes) -> None:
        try:
            view = memoryview(data)
            while view:
                view = view[self._file.write(view) :]
            os.fsync(self._file.fileno())
        except OSError:
            os.ftruncate(self._file.fileno(), self.num_bytes)
            raise
        self.num_bytes += len(data)


def record(kind: bytes, payload: bytes) -> bytes:
    """A record with its length and checksum."""
    return _RECORD.pack(kind, len(payload), zlib.crc32(payload)) + payload


def _unused(folder: Path, begun_ns: int) -> Path:
    second, rest_ns = divmod(begun_ns, NS_PER_S)
    stem = time.strftime("%Y%m%dT%H%M%S", time.gmtime(second)) + f".{rest_ns // 1_000_000:03d}Z"
    path, number = folder / f"{stem}{SUFFIX}", 1
    while path.exists():
        number += 1
        path = folder / f"{stem}_{number:03d}{SUFFIX}"
    return path


@dataclass(frozen=True, slots=True)
class Head:
    """What stands at the beginning of a part.

    Attributes:
        stream: its name. run: tells runs of the program apart, see ``EnvelopeMaker``.
        model: ``name`` and ``sha256``. classes: by id. model_anchors: what the model gives, see ``Manifest.anchors``.
        anchors: those of them that are kept, in the order of ``Sightings.points``.
        width, height: of the frames.
        config: the stream's table as it ran, secrets masked; ``config_sha256`` of that text.
        thresholds: ``low`` (the tracker's floor), ``high`` (shown), ``new`` (starts a track); ``model_score`` and
            ``model_track_score`` of the manifest.
    """

    stream: str
    run: str
    model: Mapping[str, str]
    classes: tuple[str, ...]
    model_anchors: tuple[str, ...]
    anchors: tuple[str, ...]
    width: int
    height: int
    config: Mapping[str, Any]
    config_sha256: str
    thresholds: Mapping[str, float]

    @property
    def steps(self) -> Steps:
        return Steps.of(self.width, self.height)

    def as_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> Head:
        """Raises: DataError: they are no head of ours."""
        try:
            if facts["schema"] != SCHEMA:
                raise DataError(f"schema {facts['schema']!r}, expected {SCHEMA}")
            values = {name: facts[name] for name in cls.__slots__}
            for name in ("classes", "model_anchors", "anchors"):
                values[name] = tuple(map(str, values[name]))
            return cls(**{**values, "width": int(values["width"]), "height": int(values["height"])})
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"no head of a part ({error!r})") from None


class Part:
    """A file of the store, open for reading.

    Attributes:
        head: what it says of itself; None where not even that was written.
        start: the bytes up to the first block. is_packed: whether its blocks were made larger already.
        is_cut: whether bytes after the last whole record were left out; known once ``blocks`` has ended.
    """

    def __init__(self, path: Path) -> None:
        """Read the head.

        Raises:
            DataError: the file is no part of a track store.
            OSError: it cannot be read.
        """
        self.path = path
        self.is_cut = False
        self.head: Head | None = None
        with path.open("rb") as file:
            start = file.read(len(MAGIC))
            if not MAGIC.startswith(start):
                raise DataError(f"{path}: is no part of a track store; remove it")
            first = _next_record(file)
            size = file.tell()
            self.is_packed = file.read(len(PACKED)) == PACKED
            file.seek(0)
            self.start = file.read(size)
        self.is_cut = first is None
        if first is not None:
            self.head = self._head(*first)

    def _head(self, kind: bytes, payload: bytes) -> Head:
        try:
            if kind != HEAD:
                raise DataError("it has no head")
            text = zlib.decompressobj().decompress(payload, MAX_RECORD_BYTES)
            return Head.from_json(parse_json(text))
        except (zlib.error, ValueError, DataError) as error:
            raise DataError(f"{self.path}: cannot be read: {error}; remove it") from None

    def blocks(self, since_ns: int | None = None, until_ns: int | None = None) -> Iterator[tuple[Span, bytes]]:
        """The blocks that meet a time (wall clock, the end exclusive), as ``block.decode`` takes them."""
        if self.head is None:
            return
        with self.path.open("rb") as file:
            file.seek(len(self.start))
            while (found := _next_record(file, lambda span: span.meets(since_ns, until_ns))) is not None:
                kind, payload = found
                if kind not in (BLOCK, PACKED) or len(payload) < Span.FORM.size:
                    break
                yield Span(*Span.FORM.unpack_from(payload)), payload[Span.FORM.size :]
            self.is_cut = file.tell() < os.fstat(file.fileno()).st_size or found is not None


def _next_record(file: IO[bytes], is_wanted: Callable[[Span], bool] = lambda _: True) -> tuple[bytes, bytes] | None:
    """Kind and payload of the next whole record that is wanted; None at the end, where the file was cut too.

    What is not wanted is passed over unread.
    """
    num_bytes = os.fstat(file.fileno()).st_size
    while True:
        at = file.tell()
        start = file.read(_RECORD.size)
        if len(start) < _RECORD.size:
            break
        kind, size, checksum = _RECORD.unpack(start)
        if size > MAX_RECORD_BYTES or file.tell() + size > num_bytes or kind not in (HEAD, BLOCK, PACKED):
            break
        if kind in (BLOCK, PACKED) and size >= Span.FORM.size:
            span = Span(*Span.FORM.unpack(file.read(Span.FORM.size)))
            if not is_wanted(span):
                file.seek(size - Span.FORM.size, os.SEEK_CUR)
                continue
            file.seek(-Span.FORM.size, os.SEEK_CUR)
        payload = file.read(size)
        if len(payload) == size and zlib.crc32(payload) == checksum:
            return kind, payload
        break
    file.seek(at)
    return None


def parts_in(folder: Path) -> list[Path]:
    """The parts of one stream, the oldest first."""
    return sorted(folder.glob(f"*{SUFFIX}"))
