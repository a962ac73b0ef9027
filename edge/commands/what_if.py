"""``edge what-if``: what the lines, zones and schedules of a configuration would have said of the last days."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge.commands.tracks import Since, Store, Until, open_store, warn
from edge.console import AsJson, err, out, print_json
from edge.errors import UsageError

if TYPE_CHECKING:
    from edge.config.schema import Config
    from edge.trackstore.compare import Difference
    from edge.trackstore.read import Reader


def what_if(
    config: Annotated[Path, typer.Argument(help="A TOML file with the rules to try.")],
    stream: Annotated[list[str] | None, typer.Option(help="Only these.")] = None,
    store: Store = None,
    since: Since = "7d",
    until: Until = None,
    show: Annotated[int, typer.Option(help="So many of the events that differ, per stream.")] = 20,
    save: Annotated[
        Path | None, typer.Option(help="Make it live: write it there, for the daemon to read again.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Try rules on the tracks of the last days, next to what was said."""
    from edge.config.load import load_config
    from edge.trackstore.times import span_of

    loaded = load_config(config)
    reader = open_store(store or config)
    names = stream or [one.name for one in loaded.streams if one.name in reader.streams()]
    if not names:
        raise UsageError(f"{config.name}: no tracks of its streams are kept; there are: {', '.join(reader.streams())}")
    span = span_of(since, until)
    found = {name: _tried(loaded, reader, name, span) for name in names}
    warn(reader)
    if as_json:
        from edge.trackstore.compare import difference_as_dict

        print_json({name: difference_as_dict(one) for name, one in found.items()})
    for name, one in {} if as_json else found.items():
        _show(name, one, show, loaded.events.snapshots if loaded.events is not None else None)
    if save is not None:
        _save(config, save)


def _tried(loaded: Config, reader: Reader, name: str, span: tuple[int | None, int | None]) -> Difference:
    from edge.trackstore.compare import tried

    settings = next((one for one in loaded.streams if one.name == name), None)
    if settings is None:
        raise UsageError(f"--stream {name}: the file has: {', '.join(one.name for one in loaded.streams)}")
    with err.status(f"{name}: reading its tracks"):
        return tried(reader, settings, span)


def _show(name: str, one: Difference, most: int, pictures: Path | None) -> None:
    from rich.table import Table

    if one.is_none:
        out.print(f"{name}: {one.same} events, all as they were said")
        return
    table = Table("", "event", "then", "now", box=None, pad_edge=False, title=name, title_justify="left")
    for part, kind in sorted({*one.then, *one.now}):
        table.add_row(part, kind, str(one.then[part, kind]), str(one.now[part, kind]))
    out.print(table)
    told = [("gone", event) for event in one.gone] + [("new", event) for event in one.new]
    told += [("moved", now) for _, now in one.moved]
    for word, event in sorted(told, key=lambda pair: pair[1].wall_ns)[:most]:
        out.print(_line(word, event, pictures))
    if len(told) > most:
        out.print(f"… and {len(told) - most} more; all of them: --json")


def _line(word: str, found: Any, pictures: Path | None) -> str:
    from edge.trackstore.compare import as_dict

    facts = as_dict(found)
    data = facts["data"]
    text = f"{word:5} {facts['time']} {facts['kind']} {found.part} {data.get('direction', '')}".rstrip()
    text += f" {data.get('class', '')} {facts['track_id'] or ''}".rstrip()
    picture = pictures / f"{facts['id']}.jpg" if pictures is not None else None
    return f"{text}  {picture}" if picture is not None and picture.is_file() else text


def _save(config: Path, place: Path) -> None:
    """Put the file in the place of the one that runs; the daemon reads it again when it is told to."""
    from edge.files import write_atomic

    if config.resolve() != place.resolve():
        write_atomic(place, config.read_bytes())
    out.print(f"saved as {place}; the daemon takes it over with: systemctl reload edge (SIGHUP)")
