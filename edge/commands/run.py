"""``edge run``: the daemon in the foreground, from a file or from arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge.console import AsJson, err, print_json
from edge.errors import SinkError, UsageError


def run(
    config: Annotated[Path | None, typer.Argument(help="A TOML file such as systemd/edge.toml.")] = None,
    source: Annotated[
        list[str] | None,
        typer.Option("--source", "-s", help="Camera number, file, folder, rtsp://…, synthetic://street."),
    ] = None,
    model: Annotated[Path | None, typer.Option("--model", "-m", help="ONNX file or TensorRT engine.")] = None,
    manifest: Annotated[Path | None, typer.Option(help="The model's manifest, if not beside it.")] = None,
    sink: Annotated[
        list[str] | None, typer.Option("--sink", help="jsonl:FILE, mp4:FILE, snapshot:FOLDER, window:, http:PORT.")
    ] = None,
    engine: Annotated[
        str, typer.Option(help="auto, ort, ort-cuda, ort-tensorrt, openvino, openvino-bf16, trt, null.")
    ] = "auto",
    threads: Annotated[int | None, typer.Option(help="Threads of a CPU engine.")] = None,
    frames: Annotated[int | None, typer.Option(help="Stop after this many frames.")] = None,
    score: Annotated[float | None, typer.Option(help="Least score shown.")] = None,
    track: Annotated[str, typer.Option(help="edge, bytetrack, ocsort, sort, off.")] = "edge",
    as_json: AsJson = False,
) -> None:
    """Run cameras or files: edge.toml, or --source S --model M …"""
    from edge.config.load import config_from_arguments
    from edge.daemon import logs
    from edge.daemon.privacy import keep_private
    from edge.daemon.service import Origin, run_service
    from edge.daemon.state import load_or_last_good

    if (config is None) == (source is None):
        raise UsageError("expected either a configuration file or --source with --model; run: edge run --help")
    keep_private()
    safe_reason = ""
    if config is not None:
        loaded, safe_reason = load_or_last_good(config)
        logs.set_up_as_configured(loaded.log)
    else:
        if model is None:
            raise UsageError("--source needs --model; the shipped one runs with: edge demo --source …")
        loaded = config_from_arguments(
            source or [],
            model,
            sink or ["jsonl:-"],
            for_model={"manifest": manifest, "engine": engine, "threads": threads},
            for_stream={"score": score, "track": {"method": track}},
        )
    summary = run_service(
        loaded,
        origin=Origin(config, safe_reason),
        max_frames=frames,
        on_address=lambda url: err.print(f"live page: {url}"),
    )
    if as_json:
        print_json(summary.as_dict())
    else:
        err.print(describe(summary.as_dict()))
    # a daemon that was told to stop did what it was told, whatever its disk did in all that time
    if summary.sink_errors and not summary.was_stopped:
        raise SinkError(f"{summary.sink_errors} results could not be written; see the messages above")


def describe(summary: dict[str, float]) -> str:
    """The summary in one line."""
    return (
        f"{summary['frames']} frames in {summary['seconds']:.1f} s, {summary['fps']:.1f} fps, "
        f"{summary['objects']} objects, age median {summary['age_median_ms']:.1f} ms, "
        f"p99 {summary['age_p99_ms']:.1f} ms, {summary['dropped']} dropped"
    )
