"""``edge tracks``: what is kept of the streams, and as a table for pandas, polars and duckdb."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge.console import AsJson, out, print_json
from edge.errors import UsageError

if TYPE_CHECKING:
    from edge.trackstore.read import Reader

Store = Annotated[Path | None, typer.Option("--store", help="edge.toml with a [track_store], or its folder.")]
Since = Annotated[str | None, typer.Option(help="From when on: 2026-11-22T10:00, 10:00 (today), or 7d, 12h, 30m ago.")]
Until = Annotated[str | None, typer.Option(help="Up to when; as --since.")]
DEFAULT_STORE = Path("edge.toml")


def tracks(
    action: Annotated[str, typer.Argument(help="list, or export.")] = "list",
    name: Annotated[str, typer.Argument(help="With export: the stream.")] = "",
    store: Store = None,
    to: Annotated[Path, typer.Option("--out", "-o", help="FILE.parquet, FILE.csv or FILE.jsonl.")] = Path("tracks.csv"),
    what: Annotated[str, typer.Option(help="objects, frames, events or drops.")] = "objects",
    since: Since = None,
    until: Until = None,
    as_json: AsJson = False,
) -> None:
    """Say what tracks are kept, or export them."""
    from edge.trackstore.export import COLUMNS, export
    from edge.trackstore.times import span_of

    reader = open_store(store or DEFAULT_STORE)
    if action == "list" and not name:
        found = [_facts(reader, stream) for stream in reader.streams()]
        if as_json:
            print_json(found)
        for one in () if as_json else found:
            out.print(f"{one['stream']}: {one['parts']} parts, {one['megabytes']} MB, {one['since']} to {one['until']}")
        return
    kind = next((kind for kind in COLUMNS if kind == what), None)
    if action != "export" or not name or kind is None:
        kinds = ", ".join(COLUMNS)
        raise UsageError(
            f"edge tracks: expected list, or export NAME with --what one of {kinds}; found {action} {name}"
        )
    since_ns, until_ns = span_of(since, until)
    count = export(reader, name, to, kind, since_ns, until_ns)
    warn(reader)
    if as_json:
        print_json({"rows": count, "file": str(to)})
    else:
        out.print(f"{count} rows in {to}")


def open_store(store: Path) -> Reader:
    """The store that a configuration names, or that lies in a folder.

    Raises:
        ConfigError: the file is wrong, or keeps no tracks.
        DataError: there is no such folder.
    """
    from edge.config.load import load_config
    from edge.daemon.state import state_dir, with_state_dir
    from edge.errors import ConfigError
    from edge.pipeline.shared_outputs import tracks_path
    from edge.trackstore.read import Reader

    if store.is_dir():
        return Reader(store)
    config = load_config(store)
    if config.track_store is None:
        raise ConfigError(f"{store}: it keeps no tracks; add a [track_store] table and restart")
    return Reader(tracks_path(with_state_dir(config, state_dir(config))))


def warn(reader: Reader) -> None:
    """Say what could not be read."""
    from edge.console import err

    for problem in reader.problems:
        err.print(problem)


def _facts(reader: Reader, stream: str) -> dict[str, Any]:
    from edge.trackstore.parts import parts_in
    from edge.trackstore.times import iso

    files = parts_in(reader.folder / stream)
    spans = reader.span(stream)
    return {
        "stream": stream,
        "parts": len(files),
        "megabytes": round(sum(path.stat().st_size for path in files) / 1e6, 1),
        "since": iso(spans[0]) if spans else None,
        "until": iso(spans[1]) if spans else None,
    }
