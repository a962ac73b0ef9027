"""Reads the track store of a running or a finished program. What is damaged is left out and named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edge.errors import DataError
from edge.trackstore.asking import have_written
from edge.trackstore.block import Block, decode
from edge.trackstore.parts import Head, Part, parts_in

# a part may be written a little later than what it holds was seen
LATE_NS = 600_000_000_000
# a program that runs looks every quarter of a second
ASK_S = 1.0


class Reader:
    """One folder of tracks.

    Attributes:
        problems: what could not be read so far, one sentence each.
    """

    def __init__(self, folder: Path) -> None:
        """Raises: DataError: there is no such folder."""
        if not folder.is_dir():
            raise DataError(
                f"{folder}: no tracks are kept there; expected the folder of a [track_store], see edge.toml"
            )
        self.folder = folder
        self.problems: list[str] = []

    def streams(self) -> list[str]:
        """The names of the streams that tracks are kept of."""
        return sorted(path.name for path in self.folder.iterdir() if path.is_dir() and parts_in(path))

    def catch_up(self, stream: str) -> None:
        """Have what a running program has not written yet written."""
        have_written([self.folder / stream] if parts_in(self.folder / stream) else [], ASK_S)

    def span(self, stream: str) -> tuple[int, int] | None:
        """The wall clock at the first and at the last frame that are kept; None of nothing."""
        ends: list[int] = []
        for path in parts_in(self.folder / stream):
            try:
                ends += [time for span, _ in Part(path).blocks() for time in (span.start_ns, span.end_ns)]
            except (DataError, OSError) as error:
                self.problems.append(str(error))
        return (min(ends), max(ends)) if ends else None

    def blocks(
        self,
        stream: str,
        since_ns: int | None = None,
        until_ns: int | None = None,
        *,
        with_candidates: bool = True,
    ) -> Iterator[tuple[Head, Block]]:
        """The blocks of a stream that meet a time, the oldest first, one in memory at a time.

        Args:
            stream: its name.
            since_ns, until_ns: wall clock, the end exclusive; None: no limit.
            with_candidates: also what no track took.

        Raises:
            DataError: nothing is kept of such a stream.
        """
        paths = parts_in(self.folder / stream)
        if not paths:
            known = ", ".join(self.streams()) or "none"
            raise DataError(f"{self.folder}: no tracks of a stream called {stream!r}; there are: {known}")
        for path in paths:
            try:
                if since_ns is None or path.stat().st_mtime_ns + LATE_NS >= since_ns:
                    yield from self._of_part(path, since_ns, until_ns, with_candidates)
            except FileNotFoundError:
                # it made room meanwhile
                continue
            except (DataError, OSError) as error:
                self.problems.append(str(error))

    def _of_part(
        self, path: Path, since_ns: int | None, until_ns: int | None, with_candidates: bool
    ) -> Iterator[tuple[Head, Block]]:
        part = Part(path)
        for span, data in part.blocks(since_ns, until_ns):
            del span
            assert part.head is not None
            yield part.head, decode(data, part.head.steps, with_candidates=with_candidates)
        if part.is_cut:
            self.problems.append(f"{path}: its end was not written, what is whole was read")
