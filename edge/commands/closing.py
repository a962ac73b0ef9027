"""How a run is watched and told of at its end: a bar while a file is worked through, then counts and files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.console import err

if TYPE_CHECKING:
    from edge.config.schema import Config

FILE_SINKS = ("jsonl", "mp4", "snapshot", "record", "hls")


@contextmanager
def progress_bar(*, is_shown: bool = True) -> Iterator[Callable[[int, int | None], None]]:
    """A bar with the time that is left, on a terminal; it appears once an end is known. Gives what moves it."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("frames"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=not (is_shown and err.is_terminal)) as bars:
        bar = bars.add_task("frames", total=None, visible=False)

        def move(done: int, total: int | None) -> None:
            if total:
                bars.update(bar, completed=min(done, total), total=total, visible=True)

        yield move


def writes_to_terminal(config: Config) -> bool:
    """Whether result lines go to standard output, where a bar would stand in their way."""
    return any(spec == "jsonl:-" for stream in config.streams for spec in stream.sinks)


def files_of(config: Config) -> list[dict[str, Any]]:
    """What the sinks of a run have written: ``path`` and ``bytes``, of a folder those of all its files."""
    from edge.sinks.choose import file_name

    paths: list[Path] = []
    for stream in config.streams:
        for spec in stream.sinks:
            kind, _, place = spec.partition(":")
            if kind in FILE_SINKS and place not in ("-", "/dev/null"):
                paths.append(Path(place.replace("{stream}", file_name(stream.name))))
    return [{"path": str(path), "bytes": _size(path)} for path in dict.fromkeys(paths) if path.exists()]


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def closing_lines(summary: Mapping[str, Any], files: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a run did, for people: frames, then tracks, lines and zones of each stream, then files."""
    lines = [
        f"{summary['frames']} frames in {summary['seconds']:.1f} s, {summary['fps']:.1f} fps, "
        f"age median {summary['age_median_ms']:.1f} ms, p99 {summary['age_p99_ms']:.1f} ms, "
        f"{summary['dropped']} dropped"
    ]
    for stream, counts in summary["counts"].items():
        start = f"{stream}: " if len(summary["counts"]) > 1 else ""
        if counts["tracks"]:
            lines.append(f"{start}{_counted(counts['tracks'], counts['tracks_by_class'], 'tracked objects')}")
        for kind in ("lines", "zones"):
            for name, count in counts[kind].items():
                both = (_counted(count[way], count["by_class"][way], way) for way in count["by_class"])
                lines.append(f"{start}{kind[:-1]} {name}: {', '.join(both)}")
    lines += [f"wrote {file['path']} ({_bytes(file['bytes'])})" for file in files]
    return lines


def _counted(total: int, by_class: Mapping[str, int], way: str = "") -> str:
    named = ", ".join(f"{count} {name}" for name, count in by_class.items())
    return f"{total}{f' {way}' if way else ''}{f' ({named})' if named else ''}"


def _bytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"
