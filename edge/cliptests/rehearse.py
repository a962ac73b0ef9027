"""The last hours of recordings, through what runs and through what shall take over: what differs is shown.

A part of a recording is a clip test that expects what the running configuration sees in it. Lines and zones that were
changed, or are new, are left out: that they say something else is meant.
"""

from __future__ import annotations

import itertools
import logging
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.cliptests.case import Case
from edge.cliptests.cut import cut
from edge.cliptests.report import page
from edge.cliptests.run import NS_PER_S, Verdict, expecting, judge, look
from edge.errors import EdgeError
from edge.files import write_atomic
from edge.recording.index import RecordingIndex

if TYPE_CHECKING:
    from edge.config.schema import Config, StreamSettings
    from edge.recording.index import Recorded

log = logging.getLogger(__name__)
WINDOW_S = 12.0
# an event's track must have begun before it
LEAD_S = 6.0
MAX_SHOWN = 12
# of each stream, for a start that cannot ask who ran before
MAX_KEPT = 3


def rehearsed(
    before: Config, after: Config, mapped: Mapping[str, Any], since_ns: int, for_s: float, html: Path | None
) -> list[Verdict]:
    """Look at as much of the recordings as there is time for, each stream in its turn, the newest events first.

    Args:
        before: what runs. after: what shall take over.
        mapped: see ``edge.cliptests.run.look``.
        since_ns: wall clock; older recordings are left alone.
        for_s: nothing more is begun after so many seconds.
        html: where the page with pictures side by side goes, if anything differs.
    """
    until_s, verdicts = time.monotonic() + for_s, list[Verdict]()
    before, after = in_common(before, after)
    if (before.streams, before.models) == (after.streams, after.models):
        return verdicts
    with tempfile.TemporaryDirectory(prefix="edge-rehearsal-") as made:
        folder = Path(made)
        for stream, entry, at_s in _in_turn([_moments(one, since_ns) for one in before.streams]):
            if time.monotonic() >= until_s:
                break
            place = folder / f"{stream.name} {entry.file.removesuffix('.mp4')}"
            if place.exists():
                continue
            verdicts.append(_compared(place, stream, (entry, at_s), (before, after), mapped))
            if not verdicts[-1].differences or len(list(folder.iterdir())) > MAX_SHOWN:
                shutil.rmtree(place, ignore_errors=True)
        lost = [one for one in verdicts if one.differences]
        if html is not None and lost:
            write_atomic(html, page(folder, [one for one in lost if (folder / one.name).exists()], after), mode=0o600)
    return verdicts


def keep(config: Config, folder: Path, since_ns: int, for_s: float) -> int:
    """Make tests of the newest recordings that expect what is seen in them now; they replace those of the last time.

    Who starts later with another version or model runs them: what ran before cannot be asked any more.

    Args:
        config: what runs.
        folder: of these tests alone.
        since_ns: wall clock; older recordings are left alone.
        for_s: nothing more is begun after so many seconds.

    Returns:
        How many there are.
    """
    until_s, new, count = time.monotonic() + for_s, folder.with_name(f"{folder.name}-new"), 0
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    moments = [itertools.islice(_moments(stream, since_ns), MAX_KEPT) for stream in config.streams]
    for stream, entry, at_s in _in_turn(moments):
        if time.monotonic() >= until_s:
            break
        place = new / f"{stream.name} {entry.file.removesuffix('.mp4')}"
        if not place.exists():
            count += _is_made(place, stream, (entry, at_s), config)
    if count:
        shutil.rmtree(folder, ignore_errors=True)
        new.rename(folder)
    else:
        shutil.rmtree(new)
    return count


def in_common(before: Config, after: Config) -> tuple[Config, Config]:
    """Both with the streams that both have, and with those of their lines and zones that are the same in both."""
    pairs = [(one, other) for one in before.streams for other in after.streams if one.name == other.name]
    found = [(_only(one, other), _only(other, one)) for one, other in pairs]
    return (
        before.model_copy(update={"streams": tuple(one for one, _ in found)}),
        after.model_copy(update={"streams": tuple(other for _, other in found)}),
    )


def _only(stream: StreamSettings, other: StreamSettings) -> StreamSettings:
    watched = stream.analytics
    same = {
        kind: tuple(part for part in getattr(watched, kind) if part in getattr(other.analytics, kind))
        for kind in ("lines", "zones")
    }
    return stream.model_copy(update={"analytics": watched.model_copy(update=same)})


def _moments(stream: StreamSettings, since_ns: int) -> Iterator[tuple[StreamSettings, Recorded, float]]:
    """The recordings of a stream, the newest with events first, and where to look, in seconds of the film."""
    record = stream.record
    if record is None or record.content == "annotated":
        return
    index = RecordingIndex(record.folder / stream.name)
    try:
        index.load()
    except OSError:
        return
    entries = [one for one in index.entries if one.end_ns >= since_ns and one.num_frames]
    for entry in sorted(entries, key=lambda one: (bool(one.events), one.start_ns), reverse=True):
        at_ns = entry.events[0][0] if entry.events else (entry.start_ns + entry.end_ns) // 2
        yield stream, entry, max(0.0, (at_ns - entry.start_ns) / NS_PER_S)


def _in_turn(
    found: Sequence[Iterator[tuple[StreamSettings, Recorded, float]]],
) -> Iterator[tuple[StreamSettings, Recorded, float]]:
    for group in itertools.zip_longest(*found):
        yield from (one for one in group if one is not None)


def _compared(
    place: Path,
    stream: StreamSettings,
    moment: tuple[Recorded, float],
    configs: tuple[Config, Config],
    mapped: Mapping[str, Any],
) -> Verdict:
    """One part of a recording, as a test of what ran."""
    before, after = configs
    if not _is_made(place, stream, moment, before):
        return Verdict(place.name, 0.0, ())
    return judge(place, after, mapped)


def _is_made(place: Path, stream: StreamSettings, moment: tuple[Recorded, float], config: Config) -> bool:
    """Make one part of a recording a test; False where it made room meanwhile, or is damaged."""
    entry, at_s = moment
    assert stream.record is not None
    place.mkdir()
    try:
        start_s = at_s - LEAD_S
        source = stream.record.folder / stream.name / entry.file
        begun_s = cut(source, place / entry.file, max(0.0, start_s), max(0.0, start_s) + WINDOW_S)
        wall_ns = entry.start_ns + round(begun_s * NS_PER_S)
        is_prepared = stream.record.content == "plain"
        case = Case(stream=stream.name, pictures=entry.file, is_prepared=is_prepared, wall_ns=wall_ns, frames=0)
        expecting(case, look(place, case, config), {}).write(place)
    except EdgeError as error:
        log.info("%s: is not rehearsed: %s", entry.file, error)
        shutil.rmtree(place)
        return False
    return True
