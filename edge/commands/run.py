"""``edge run``: the daemon in the foreground, from a file or from arguments."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge.commands.drawn import Lines, Zones, drawn
from edge.console import AsJson, err, print_json
from edge.errors import SinkError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from edge.config.schema import Config
    from edge.daemon.service import Origin

SINK_HELP = (
    "jsonl:FILE (- for standard output), mp4:FILE, snapshot:FOLDER, record:FOLDER, hls:FOLDER, rtsp://…, rtmp://…, "
    "srt://…, whip:https://…, window:, http:PORT; again for more."
)


def run(
    config: Annotated[Path | None, typer.Argument(help="A TOML file, such as edge init writes.")] = None,
    source: Annotated[
        list[str] | None,
        typer.Option("--source", "-s", help="Camera number, file, folder, rtsp://…, synthetic://street."),
    ] = None,
    model: Annotated[Path | None, typer.Option("--model", "-m", help="ONNX file or TensorRT engine.")] = None,
    manifest: Annotated[Path | None, typer.Option(help="The model's manifest, if not next to it.")] = None,
    sink: Annotated[list[str] | None, typer.Option("--sink", help=SINK_HELP)] = None,
    engine: Annotated[
        str, typer.Option(help="auto, ort, ort-cuda, ort-tensorrt, openvino, openvino-bf16, trt, null.")
    ] = "auto",
    threads: Annotated[int | None, typer.Option(help="Threads of a CPU engine.")] = None,
    frames: Annotated[int | None, typer.Option(help="Stop after this many frames.")] = None,
    score: Annotated[float | None, typer.Option(help="Least score shown.")] = None,
    track: Annotated[str, typer.Option(help="edge, bytetrack, ocsort, sort, off.")] = "edge",
    line: Lines = None,
    zone: Zones = None,
    as_json: AsJson = False,
) -> None:
    """Run cameras or files: edge.toml, or --source S --model M …"""
    from edge.config.load import config_from_arguments
    from edge.daemon import logs
    from edge.daemon.privacy import keep_private
    from edge.daemon.service import Origin
    from edge.daemon.state import load_or_last_good

    if (config is None) == (source is None):
        raise UsageError("expected either a configuration file or --source with --model; run: edge run --help")
    keep_private()
    safe_reason = ""
    if config is not None and (line or zone):
        raise UsageError("--line and --zone go with --source; in a file they are [[streams.analytics.lines]] and zones")
    if config is not None:
        loaded, safe_reason = load_or_last_good(config)
        logs.set_up_as_configured(loaded.log)
    else:
        if model is None:
            raise UsageError("--source needs --model; the shipped one runs with: edge demo --source …")
        loaded = config_from_arguments(
            source or [],
            model,
            sink if sink else [] if (line or zone or as_json) else ["jsonl:-"],
            for_model={"manifest": manifest, "engine": engine, "threads": threads},
            for_stream={"score": score, "track": {"method": track}, "analytics": drawn(line, zone)},
        )
    run_and_tell(loaded, origin=Origin(config, safe_reason), frames=frames, as_json=as_json, console=err)


def run_and_tell(
    config: Config,
    *,
    frames: int | None,
    as_json: bool,
    console: Console,
    origin: Origin | None = None,
    hint: str = "",
) -> None:
    """Run a configuration; a bar on the way, and what came of it at the end.

    Args:
        config, origin: see ``edge.daemon.service.run_service``.
        frames: stop after so many.
        as_json: the summary as JSON on standard output, else as text on ``console``.
        hint: stands behind the page's address.

    Raises:
        UsageError: results could not be written, or a line or zone could not count.
    """
    from edge.commands.closing import closing_lines, files_of, progress_bar, writes_to_terminal
    from edge.daemon.service import Origin, run_service
    from edge.sinks.choose import place_of

    for stream in config.streams:
        for spec in stream.sinks:
            # before any model is loaded
            place_of(spec, stream.name)
    with progress_bar(is_shown=not writes_to_terminal(config)) as move:
        summary = run_service(
            config,
            origin=origin or Origin(),
            max_frames=frames,
            on_address=lambda url: err.print(f"live page: {url}{hint}"),
            on_progress=move,
        )
    files = files_of(config)
    if as_json:
        print_json({**summary.as_dict(), "files": files})
    else:
        for text in closing_lines(summary.as_dict(), files):
            console.print(text, markup=False)
    # a daemon that was told to stop did what it was told, whatever its disk did in all that time
    if summary.sink_errors and not summary.was_stopped:
        raise SinkError(f"{summary.sink_errors} results could not be written; see the messages above")
    faults = [str(counts["fault"]) for counts in summary.counts.values() if "fault" in counts]
    if faults:
        raise UsageError(f"not counted: {faults[0]}")
