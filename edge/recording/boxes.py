"""What was found in the pictures of a recording whose packets are the camera's own: a WebVTT file next to it.

``NAME.vtt`` of ``NAME.mp4``: one cue per result that found something, around its moment in the file, as JSON with the
size of the picture that was analysed. A ``<track kind="metadata">`` of a browser reads it.
"""

from __future__ import annotations

import itertools
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge.files import write_atomic

log = logging.getLogger(__name__)
SUFFIX = ".vtt"
NS_PER_MS = 1_000_000
# of notes that wait for the end of their file; ten people at 10 results a second fill that in eight minutes
MAX_BYTES = 4 << 20
# a note is shown until half-way to the next one, at most so far; and where there is none
MAX_HALF_NS, LAST_NS = 250 * NS_PER_MS, 50 * NS_PER_MS
# a result that found nothing ends what was shown before
NOTHING = '"objects":[]'


@dataclass(frozen=True, slots=True)
class _Ended:
    """A file whose last results may still be on their way. Times are the stream's; ``zero_ns`` is the file's 0."""

    path: Path
    zero_ns: int
    last_ns: int


class BoxNotes:
    """Notes of one stream, written when their file has ended. Used by the thread that writes the files.

    Attributes:
        num_lost: files whose notes could not be written.
    """

    def __init__(self) -> None:
        self._notes: deque[tuple[int, str]] = deque()
        self._num_bytes = 0
        self._waiting: list[_Ended] = []
        self.num_lost = 0

    def add(self, time_ns: int, text: str) -> None:
        """What a result found, as JSON; results come in the order of their times. Writes what is complete by it."""
        self._notes.append((time_ns, text))
        self._num_bytes += len(text)
        while self._num_bytes > MAX_BYTES:
            self._num_bytes -= len(self._notes.popleft()[1])
        if self._waiting and time_ns > self._waiting[0].last_ns:
            self.write(time_ns)

    def end_file(self, path: Path, zero_ns: int, last_ns: int) -> None:
        """A file has ended, which begins at ``zero_ns`` and shows pictures until ``last_ns``."""
        self._waiting.append(_Ended(path, zero_ns, last_ns))

    def write(self, seen_ns: int | None = None) -> None:
        """Write the notes of the files that ended before a time, or of all."""
        ready = [file for file in self._waiting if seen_ns is None or file.last_ns < seen_ns]
        self._waiting = [file for file in self._waiting if file not in ready]
        for file in ready:
            text = webvtt(self._notes, file.zero_ns, file.last_ns)
            try:
                if text:
                    write_atomic(file.path.with_suffix(SUFFIX), text)
            except OSError as error:
                self.num_lost += 1
                log.warning("record: what was found in %s is not kept (%s)", file.path.name, error.strerror)
        if ready:
            self._forget(max(file.last_ns for file in ready))

    def _forget(self, until_ns: int) -> None:
        """What was found until then is written; the last of it says how long the next one is shown."""
        while len(self._notes) > 1 and self._notes[1][0] <= until_ns:
            self._num_bytes -= len(self._notes.popleft()[1])


def webvtt(notes: Sequence[tuple[int, str]], zero_ns: int, last_ns: int) -> str:
    """The notes (time, JSON) of a file as WebVTT (W3C); empty where there are none between these times."""
    times = [time_ns for time_ns, _ in notes]
    halves = [min((after - before) // 2, MAX_HALF_NS) for before, after in itertools.pairwise(times)]
    cues = []
    for (time_ns, text), before_ns, after_ns in zip(notes, [LAST_NS, *halves], [*halves, LAST_NS], strict=False):
        begin_ns = max(time_ns - before_ns, zero_ns) - zero_ns
        end_ns = min(time_ns + after_ns, last_ns + LAST_NS) - zero_ns
        if NOTHING not in text and end_ns - begin_ns >= NS_PER_MS:
            # a cue may not hold its arrow
            cues.append(f"{_time(begin_ns)} --> {_time(end_ns)}\n{text.replace('>', chr(92) + 'u003e')}\n")
    return "\n".join(["WEBVTT\n", *cues]) if cues else ""


def _time(ns: int) -> str:
    seconds, ms = divmod(ns // NS_PER_MS, 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{ms:03d}"
