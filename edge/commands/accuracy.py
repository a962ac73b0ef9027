"""``edge accuracy``: how good is it here, with an interval, by some sixty pictures that a person confirms."""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from collections import defaultdict
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge.console import AsJson, err, out, print_json
from edge.errors import DataError, UsageError

if TYPE_CHECKING:
    from edge.config.schema import Config, StreamSettings

UNITS = {"h": 3600, "d": 86_400, "w": 604_800}


def accuracy(
    name: Annotated[str, typer.Argument(help="Of the camera.")],
    config: Annotated[Path, typer.Option("--config", "-c", help="The configuration.")] = Path("edge.toml"),
    teacher: Annotated[Path | None, typer.Option(help="A better model, which marks what may be missing.")] = None,
    since: Annotated[str, typer.Option(help="How much of the recordings: 12h, 7d, 2w.")] = "7d",
    footage: Annotated[list[Path] | None, typer.Option(help="Films instead of the camera's recordings.")] = None,
    pictures: Annotated[int, typer.Option(min=20, max=1000, help="To confirm.")] = 60,
    strips: Annotated[int, typer.Option(min=0, max=1000, help="Moments to confirm for each line.")] = 24,
    port: Annotated[int, typer.Option(help="Of the page, on this machine alone; 0: any.")] = 0,
    show: Annotated[bool, typer.Option("--show", help="Only the last result.")] = False,
    as_json: AsJson = False,
) -> None:
    """Recall and precision here, by some pictures that you confirm."""
    from edge.accuracy.session import CARDS, FOLDER, Session, last_result, sentences_of
    from edge.config.load import load_config
    from edge.daemon.state import state_dir, with_state_dir

    loaded = with_state_dir(load_config(config), state_dir(load_config(config)))
    if loaded.state_dir is None:
        raise UsageError("there is no place for the answers; set state_dir")
    stream = next((one for one in loaded.streams if one.name == name), None)
    if stream is None:
        raise UsageError(f"there is no stream {name!r}; there are: {', '.join(one.name for one in loaded.streams)}")
    session = Session(loaded.state_dir / FOLDER / name)
    if show:
        result = last_result(session.folder)
        if result is None:
            raise DataError(f"{session.folder}: no result yet; run: edge accuracy {name}")
    else:
        if not (session.folder / CARDS).exists():
            _begin(session, loaded, stream, (teacher, since, footage or [], pictures, strips))
        result = _confirmed(session, port)
    if as_json:
        print_json(result)
        return
    for line in sentences_of(result):
        out.print(line)


def _begin(session: Any, config: Config, stream: StreamSettings, wanted: tuple[Any, ...]) -> None:
    from edge.accuracy.draw import Wanted, draw_round
    from edge.accuracy.footage import given_films, recorded_films

    teacher, since, footage, pictures, strips = wanted
    since_ns = time.time_ns() - round(_seconds(since) * 1e9)
    films = given_films(footage) if footage else recorded_films(stream, since_ns)
    crossings = {} if footage or not strips else _crossings(config, stream, since_ns)
    err.print(f"looking through {sum(film.length_s for film in films) / 3600:.1f} h of {len(films)} films …")
    # another sample each time
    seed = secrets.randbits(32)
    asked = Wanted(stream.name, films, crossings, teacher, pictures, strips, seed=seed)
    session.begin(*draw_round(config, asked))


def _confirmed(session: Any, port: int) -> dict[str, Any]:
    """Wait until every picture is confirmed; the result."""
    from edge.accuracy.page import served, wait_for_answers

    with served(session, port) as address:
        err.print(f"{len(session.unanswered())} pictures to confirm: {address}")
        wait_for_answers(session)
    return dict(session.finish())


def _crossings(config: Config, stream: StreamSettings, since_ns: int) -> dict[str, list[int]]:
    """Line → when the daemon reported a crossing, wall clock; empty where events are not kept."""
    from edge.errors import ConfigError
    from edge.pipeline.shared_outputs import outbox_path

    try:
        database = outbox_path(config)
    except ConfigError:
        return {}
    if not database.is_file():
        return {}
    found: dict[str, list[int]] = defaultdict(list, {line.name: [] for line in stream.analytics.lines})
    query = "SELECT body FROM events WHERE stream = ?"
    try:
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as events:
            bodies = [json.loads(row[0]) for row in events.execute(query, (stream.name,))]
    except (sqlite3.Error, ValueError) as error:
        raise DataError(f"{database}: cannot be read ({error})") from None
    for body in bodies:
        at_ns = round(datetime.fromisoformat(body["time"].replace("Z", "+00:00")).timestamp() * 1e9)
        if body["kind"] == "line_crossed" and at_ns >= since_ns:
            found[body["data"]["line"]].append(at_ns)
    return dict(found)


def _seconds(text: str) -> float:
    try:
        return float(text[:-1]) * UNITS[text[-1:]]
    except (ValueError, KeyError):
        raise UsageError(f"--since {text}: expected a time such as 12h, 7d or 2w") from None
