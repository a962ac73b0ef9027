"""What the page asks about the past, answered in a process of its own: ``python -m edge.diagnose.asked``.

It may take minutes and much memory, so it is neither the server's nor the cameras' process, and may be ended.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.config.load import parse_config
from edge.config.schema import StreamSettings
from edge.errors import EdgeError
from edge.threads.python_process import serve_request

if TYPE_CHECKING:
    from edge.diagnose.pictured import Album
    from edge.trackstore.evaluate import Found
    from edge.trackstore.read import Reader

SLOWER = 10
# of each kind of difference; more are only counted
MAX_LISTED = 200
MAX_PICTURES = 24
PICTURES_S = 20.0


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """``{"error": sentence}``, empty where all went well, and then ``"answer"``."""
    from edge.pipeline.inference import FAULTS

    acts: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
        "why": why_answer,
        "what-if": what_if_answer,
        "test": test_answer,
    }
    try:
        return {"error": "", "answer": acts[request["ask"]](request)}
    except FAULTS as error:
        return {"error": str(error) if isinstance(error, EdgeError) else f"{type(error).__name__}: {error}"}


def why_answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """Why something was said, or was not, with the frame's picture and what else the setting would have let through.

    Args:
        request: ``stream`` (its settings), ``store``, ``at_ns``, ``within_s``, ``part``, ``kind``, ``snapshots``.
    """
    from edge.diagnose.why import answer_as_dict, others, why
    from edge.diagnose.why_scene import Question

    reader, stream, album = _opened(request)
    asked = Question(stream.name, request["at_ns"], request["within_s"], request["part"], request["kind"])
    found = why(reader, asked)
    more = others(reader, found, asked)
    nearest = min(found.events, key=lambda one: abs(one.wall_ns - asked.at_ns), default=None)
    at_ns, track = (nearest.wall_ns, nearest.event.track_id) if nearest else (asked.at_ns, found.facts.get("track_id"))
    picture = album.picture(at_ns, track)
    listed = _pictured(more[:MAX_PICTURES], album, request["snapshots"])
    return {**answer_as_dict(found, more), "picture": picture, "others": listed, "problems": reader.problems}


def what_if_answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """What other settings would have said of the stored time, next to what was said, with pictures.

    Args:
        request: ``stream`` (the settings to try), ``store``, ``since_ns``, ``until_ns``, ``snapshots``.
    """
    from edge.trackstore.compare import Difference, difference_as_dict, tried

    reader, stream, album = _opened(request)
    found = tried(reader, stream, (request["since_ns"], request["until_ns"]))
    shown = Difference(found.same, found.moved[:MAX_LISTED], found.gone[:MAX_LISTED], found.new[:MAX_LISTED])
    shown.then, shown.now = found.then, found.now
    told = difference_as_dict(shown)
    share = MAX_PICTURES // 3
    for word, events in (("new", shown.new), ("gone", shown.gone)):
        told[word][:share] = _pictured(events[:share], album, request["snapshots"])
    for pair, (_, now) in zip(told["moved"][:share], shown.moved, strict=False):
        (pair["now"],) = _pictured([now], album, request["snapshots"])
    sizes = {"gone": len(found.gone), "new": len(found.new), "moved": len(found.moved)}
    return {**told, "sizes": sizes, "problems": reader.problems}


def test_answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """Make a test, which waits in a folder of its own to be saved, and say what it expects.

    Args:
        request: ``config``, ``source`` (a film), ``folder``, ``name``, ``span_s``, ``stream`` (its name).
    """
    from edge.cliptests.add import add_test
    from edge.cliptests.report import pictures

    config = parse_config(request["config"], where="the configuration")
    span_s = request["span_s"] and (request["span_s"][0], request["span_s"][1])
    source, folder = Path(request["source"]), Path(request["folder"])
    made, case = add_test(source, config, folder, request["stream"], request["name"], span_s)
    moments = [event.time_s for event in case.events] or [case.objects[len(case.objects) // 2][0]] * bool(case.objects)
    shown = pictures(made, case, config, sorted(set(moments))[: MAX_PICTURES // 3])
    return {
        "name": made.name,
        "frames": case.frames,
        "objects": len(case.objects),
        "counts": case.counts,
        "events": [{"time_s": one.time_s, "named": one.named()} for one in case.events[:MAX_LISTED]],
        "sizes": {"events": len(case.events)},
        "pictures": [{"time_s": time_s, "picture": picture} for time_s, picture in shown],
    }


def _opened(request: Mapping[str, Any]) -> tuple[Reader, StreamSettings, Album]:
    from edge.diagnose.pictured import Album
    from edge.trackstore.read import Reader

    reader, stream = Reader(Path(request["store"])), StreamSettings.model_validate(request["stream"])
    return reader, stream, Album(reader, stream, PICTURES_S)


def _pictured(events: Sequence[Found], album: Album, snapshots: str | None) -> list[dict[str, Any]]:
    """Events with their pictures: the one that was kept then, else one out of the recordings."""
    from edge.trackstore.compare import as_dict

    told: list[dict[str, Any]] = []
    for one in events:
        facts = dict(as_dict(one))
        has_own = snapshots is not None and (Path(snapshots) / f"{facts['id']}.jpg").is_file()
        own = f"snapshots/{facts['id']}.jpg" if has_own else None
        told.append({**facts, "picture": own or album.picture(one.wall_ns, one.event.track_id)})
    return told


if __name__ == "__main__":
    serve_request(answer, SLOWER)
