"""Making clip tests: from a film, a clip of an event, or a stream of a raw capture; and accepting what is seen now."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import sqlite3
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from edge.cliptests.case import CAPTURE, Case
from edge.cliptests.cut import cut
from edge.cliptests.run import NS_PER_S, expecting, look
from edge.errors import DataError, UsageError
from edge.files import sha256_of
from edge.recording.names import start_in
from edge.sources.replay import INDEX

if TYPE_CHECKING:
    from edge.config.schema import Config

MAX_NAME = 64


def add_test(
    source: Path,
    config: Config,
    folder: Path,
    stream: str,
    name: str = "",
    span_s: tuple[float, float] | None = None,
) -> tuple[Path, Case]:
    """Make a test that expects what this configuration sees in the pictures now. Look at it before you rely on it.

    Args:
        source: a film, or a folder made by ``edge capture``.
        config: whose stream it was.
        folder: of all tests.
        stream: its name; empty where there is only one.
        name: of the test; empty: as the source is called.
        span_s: only this part of a film, in seconds since its first picture.

    Raises:
        EdgeError: the pictures cannot be used, or there is such a test.
    """
    stream = stream or _only(config)
    target = place_for(folder, (name or source.stem)[:MAX_NAME])
    folder.mkdir(parents=True, exist_ok=True)
    # a test is there as a whole, or not at all
    with tempfile.TemporaryDirectory(dir=folder, prefix=".new-") as made:
        temporary = Path(made) / target.name
        temporary.mkdir()
        case = _taken(source, temporary, config, stream, span_s)
        case = expecting(case, look(temporary, case, config), made_by(config, stream))
        case.write(temporary)
        temporary.rename(target)
    return target, case


def place_for(folder: Path, name: str) -> Path:
    """Where a test of this name will lie. Raises: UsageError: it is no plain name, or there is such a test."""
    target = folder / name
    if not name or len(name) > MAX_NAME or Path(name).name != name or name.startswith(".") or not name.isprintable():
        raise UsageError(f"--name {name}: expected a plain name")
    if target.exists():
        raise UsageError(f"{target}: there is such a test; give another --name, or remove it")
    return target


def accept(folder: Path, names: Sequence[Path], config: Config) -> list[Path]:
    """Let tests expect what is seen now: what differs is meant to. Gives their folders.

    Raises:
        EdgeError: one cannot be run.
    """
    for path in names:
        case = Case.read(path)
        expecting(case, look(path, case, config), made_by(config, case.stream)).write(path)
    return list(names)


def made_by(config: Config, stream: str) -> dict[str, str]:
    """Who saw what a test expects: version and model."""
    model = next((config.model_of(one) for one in config.streams if one.name == stream), config.models[0])
    return {"version": importlib.metadata.version("edgeloop"), "model": sha256_of(model.path)}


def clip_of_event(database: Path, event: str) -> Path:
    """The clip that shows an event.

    Args:
        database: the outbox.
        event: the event's id, or the beginning of it.

    Raises:
        DataError: there is no such event, or it has no clip.
    """
    try:
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as events:
            rows = events.execute("SELECT body FROM events WHERE id >= ? AND id < ?", (event, event + "~")).fetchall()
    except sqlite3.Error as error:
        raise DataError(f"{database}: cannot be read ({error})") from None
    if len(rows) != 1:
        raise DataError(f"{database}: {len(rows)} events have an id that begins with {event!r}, expected one")
    clip = json.loads(rows[0][0])["links"].get("clip")
    if not clip or not Path(clip).is_file():
        raise DataError(f"the clip of event {event} is not there: {clip or 'it has none'}")
    return Path(clip)


def _only(config: Config) -> str:
    if len(config.streams) > 1:
        names = ", ".join(stream.name for stream in config.streams)
        raise UsageError(f"expected --stream, one of: {names}")
    return config.streams[0].name


def _taken(source: Path, target: Path, config: Config, stream: str, span_s: tuple[float, float] | None) -> Case:
    """Copy the pictures; the test without what it expects."""
    if source.is_dir():
        return _taken_capture(source, target, stream)
    if not source.is_file():
        raise UsageError(f"{source}: expected a film, a clip, or a folder made by: edge capture")
    record = next((one.record for one in config.streams if one.name == stream), None)
    own = record is not None and record.folder.absolute() in source.absolute().parents
    if own and record is not None and record.content == "annotated":
        raise DataError(f'{source}: boxes are drawn into it; record with content = "source" or "plain"')
    is_prepared = own and record is not None and record.content == "plain"
    wall_ns = start_in(source.name) or source.stat().st_mtime_ns
    if span_s is None:
        shutil.copy(source, target / source.name)
    else:
        wall_ns += round(cut(source, target / source.name, *span_s) * NS_PER_S)
    return Case(stream=stream, pictures=source.name, is_prepared=is_prepared, wall_ns=wall_ns, frames=0)


def _taken_capture(source: Path, target: Path, stream: str) -> Case:
    from edge.pipeline.replay import load_capture
    from edge.sources.replay import ReplaySource

    captured = load_capture(source)
    if not (source / stream / INDEX).is_file():
        raise DataError(f"{source}: holds no stream {stream!r}")
    shutil.copytree(source / stream, target / CAPTURE)
    with closing(ReplaySource(target / CAPTURE)) as first:
        wall_ns = first.last.captured_ns + captured.wall_offset_ns
    return Case(stream=stream, pictures=CAPTURE, is_prepared=True, wall_ns=wall_ns, frames=0)
