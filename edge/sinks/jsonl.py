"""Sink that writes one JSON line per result to a file or to standard output."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from edge.errors import SinkError, sink_error

if TYPE_CHECKING:
    from edge.result_json import ResultEncoder
    from edge.types import Result, UInt8

STDOUT_FD = 1


class JsonlSink:
    """Writes each result at once, in a single system call.

    A new run replaces the file. Several streams may share it: every line is appended whole.

    Args:
        path: the file; None is standard output.
        encoder: makes the lines.
        appends: goes on with the file instead.

    Raises:
        SinkError: the file cannot be created.
    """

    def __init__(self, path: Path | None, encoder: ResultEncoder, *, appends: bool = False) -> None:
        self.name = f"jsonl:{'-' if path is None else path}"
        self._encoder = encoder
        self._is_line_open = False
        self._fd = STDOUT_FD if path is None else self._create(path, 0 if appends else os.O_TRUNC)

    def write(self, result: Result, picture: Callable[[], UInt8]) -> None:
        if self._fd < 0:
            raise SinkError(f"{self.name}: the sink is closed")
        line = self._encoder.encode(result) + b"\n"
        # after a cut line (disk full) a line feed keeps the next one whole
        self._write_all(b"\n" + line if self._is_line_open else line)

    def close(self) -> None:
        if self._fd > STDOUT_FD:
            os.close(self._fd)
        self._fd = -1

    def _create(self, path: Path, how: int) -> int:
        try:
            return os.open(path, os.O_WRONLY | os.O_CREAT | how | os.O_APPEND | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise sink_error(
                f"{self.name}: the file cannot be created ({error.strerror}); expected a file in an existing folder",
                error,
            ) from None

    def _write_all(self, data: bytes) -> None:
        try:
            written = os.write(self._fd, data)
            while written < len(data):
                self._is_line_open = True
                written += os.write(self._fd, data[written:])
            self._is_line_open = False
        except BrokenPipeError:
            raise SinkError(f"{self.name}: the program that reads the lines has ended") from None
        except OSError as error:
            raise SinkError(
                f"{self.name}: a line was lost ({error.strerror}); free disk space or use another place"
            ) from None
