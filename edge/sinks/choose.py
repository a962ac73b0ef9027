"""Opens the sink that a text such as ``jsonl:out.jsonl`` names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edge.addresses.uris import without_keys
from edge.errors import ConfigError, UsageError
from edge.packages import plugins
from edge.result_json import DEFAULT_SCORE, ResultEncoder

if TYPE_CHECKING:
    from edge.interfaces import Sink
    from edge.metrics.clock import WallClock
    from edge.video.packets import PacketTap

FORMS = (
    "jsonl:FILE, jsonl:- (standard output), mp4:FILE, snapshot:FOLDER, record:FOLDER, hls:FOLDER, rtsp://…, rtmp://…, "
    "srt://…, whip:https://…, window:, http:PORT"
)

KINDS_WITH_PLACE = ("jsonl", "mp4", "snapshot", "record", "hls", "whip")
PUSHED = ("hls", "rtsp", "rtsps", "rtmp", "rtmps", "srt", "whip")
KINDS = (*KINDS_WITH_PLACE, "rtsp", "rtsps", "rtmp", "rtmps", "srt", "window")


def open_sink(
    spec: str,
    *,
    stream: str,
    classes: Sequence[str],
    fps: float,
    score: float = DEFAULT_SCORE,
    clock: WallClock | None = None,
    appends: bool = False,
    sound: PacketTap | None = None,
) -> Sink:
    """Open one sink for one stream.

    Args:
        spec: ``kind:place``; a kind that is not ours is looked for among the installed packages. ``{stream}`` in the
            place becomes the stream's name, so that one text serves many.
        stream: name of the stream.
        classes: names by class id.
        fps: nominal frame rate, 0 where unknown.
        score: detections that belong to no track are reported from this score on.
        clock: turns capture times into UTC; None measures one now.
        appends: whether a file of lines goes on where another process of this run has left it.
        sound: gives the camera's sound to what is pushed; None: nobody may hear it.

    Raises:
        UsageError: the text names no sink.
        PartError: the sink of an installed package cannot be used.
        SinkError: the place cannot be written.
        MissingError: the machine lacks a display or an encoder.
    """
    kind, place = place_of(spec, stream)
    match kind:
        case "jsonl":
            from edge.sinks.jsonl import JsonlSink

            encoder = ResultEncoder(classes, score=score, clock=clock)
            return JsonlSink(None if place == "-" else Path(place), encoder, appends=appends)
        case "mp4":
            from edge.sinks.mp4 import Mp4Sink

            return Mp4Sink(Path(place), fps=fps)
        case "snapshot":
            from edge.sinks.snapshot import SnapshotSink

            return SnapshotSink(Path(place) / f"{file_name(stream)}.jpg")
        case "record":
            from edge.config.recording import RecordSettings
            from edge.sinks.record import RecordSink

            return RecordSink(RecordSettings(folder=Path(place)), file_name(stream), fps=fps, clock=clock)
        case _ if kind in PUSHED:
            return _open_push(kind, place, stream, fps, sound)
        case "window":
            from edge.sinks.window import WindowSink

            return WindowSink(f"Edgeloop: {stream}")
        case _:
            return _open_plugin(kind, place, stream=stream, classes=classes, fps=fps)


def is_plugin(spec: str) -> bool:
    """Whether an installed package brings this sink; what is built in always wins."""
    return spec.partition(":")[0] not in (*KINDS, "http")


def place_of(spec: str, stream: str) -> tuple[str, str]:
    """Kind and place of a sink's text, the stream's name filled in.

    Raises:
        UsageError: the text names no sink, neither one of ours nor one of an installed package.
    """
    kind, colon, place = spec.partition(":")
    if not colon:
        raise UsageError(f"--sink {without_keys(spec)}: expected one of {FORMS}")
    if kind not in KINDS:
        _find_plugin(kind, spec)
    if kind in KINDS_WITH_PLACE and not place:
        raise UsageError(f"--sink {spec}: nothing stands after the colon; expected one of {FORMS}")
    return kind, place.replace("{stream}", file_name(stream))


def _find_plugin(kind: str, spec: str) -> None:
    try:
        plugins.find("edge.sinks", kind, KINDS)
    except ConfigError as error:
        start = f"--sink {without_keys(spec)}: {kind!r} is no sink"
        raise UsageError(f"{start}; expected one of {FORMS}, or one of an installed package: {error}") from None


def _open_plugin(kind: str, place: str, **facts: object) -> Sink:
    made: Sink = plugins.make("edge.sinks", kind, place, **facts)
    return made


def passes_sound(spec: str) -> bool:
    """Whether a sink passes the camera's sound on."""
    return spec.partition(":")[0] in PUSHED


def _open_push(kind: str, place: str, stream: str, fps: float, sound: PacketTap | None) -> Sink:
    if kind == "whip":
        from edge.sinks.whip import WhipSink, endpoint_of

        return WhipSink(endpoint_of(place), fps=fps, sound=sound)
    from edge.sinks.restream import RestreamSink, hls_receiver, receiver_of

    receiver = hls_receiver(Path(place) / file_name(stream)) if kind == "hls" else receiver_of(f"{kind}:{place}")
    return RestreamSink(receiver, fps=fps, sound=sound)


def file_name(stream: str) -> str:
    """The stream's name as a part of a file name: no separators, never empty, never hidden."""
    return re.sub(r"[^\w.-]", "_", stream).lstrip(".") or "stream"
