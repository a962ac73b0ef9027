"""``edge why``: the cause of an event that did not happen, or of one that did."""

from __future__ import annotations

from typing import Annotated

import typer

from edge.commands.tracks import DEFAULT_STORE, Store, open_store, warn
from edge.console import AsJson, out, print_json


def why(
    name: Annotated[str, typer.Argument(help="The stream.")],
    at: Annotated[str, typer.Argument(metavar="TIME", help="2026-11-22T02:13:05, 02:13:05 (the last one), or 5m ago.")],
    event: Annotated[
        str, typer.Option(help="Kind, line or zone: line_crossed, gate, zone_loitering:yard.", metavar="[KIND:]NAME")
    ] = "",
    within: Annotated[float, typer.Option(help="So many seconds around the time it may be.", min=0.1, max=60)] = 3.0,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Say why there was no event at a time, or why there was one."""
    from edge.diagnose.why import answer_as_dict, others
    from edge.diagnose.why import why as answer_of
    from edge.diagnose.why_scene import Question
    from edge.trackstore.times import wall_ns

    reader = open_store(store or DEFAULT_STORE)
    kind, part = _kind_and_part(event)
    asked = Question(name, wall_ns(at), within, part, kind)
    reader.catch_up(name)
    answer = answer_of(reader, asked)
    found = others(reader, answer, asked)
    warn(reader)
    if as_json:
        print_json(answer_as_dict(answer, found))
        return
    out.print(answer.sentence)
    if answer.changed is not None:
        when = "On that day" if answer.tracker is None else "In the hour around it"
        out.print(f"{when} it would have let {len(found)} more of these events through.")


def _kind_and_part(event: str) -> tuple[str, str]:
    """``zone_loitering:yard`` is both; alone, what has the form of a kind is one."""
    kinds = ("line_crossed", "zone_entered", "zone_left", "zone_loitering", "object_stopped", "zone_crowded", "loud")
    kind, found, part = event.partition(":")
    if found:
        return kind, part
    return (event, "") if event in kinds else ("", event)
