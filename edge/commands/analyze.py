"""``edge analyze``: many video files through a model, into tables."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge.commands.drawn import Lines, Zones, drawn
from edge.console import AsJson, err, out, print_json
from edge.errors import DataError, MissingError, UsageError

if TYPE_CHECKING:
    from edge.archive.analyze import Report
    from edge.archive.job import Job
    from edge.archive.work import Runner
    from edge.config.schema import Config


def analyze(
    videos: Annotated[
        list[str], typer.Argument(help="Files: 'videos/**/*.mp4', s3://…; quoted, so that we find them.")
    ],
    folder: Annotated[Path, typer.Option("--out", "-o", help="The folder of results; the same one goes on.")],
    model: Annotated[Path | None, typer.Option("--model", "-m", help="A detector: ONNX file or engine.")] = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="A TOML file with one stream instead.")] = None,
    ray: Annotated[str | None, typer.Option(help="A Ray cluster: auto, or its address.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes of this machine; default: all cores.", min=1)] = None,
    gpus: Annotated[float, typer.Option(help="Of each worker on Ray, such as 0.25.", min=0)] = 0.0,
    engine: Annotated[str, typer.Option(help="auto, ort, ort-cuda, openvino, trt, …")] = "auto",
    threads: Annotated[int | None, typer.Option(help="Of the engine in each worker; default: 1.")] = None,
    batch: Annotated[int, typer.Option(help="Pictures at once.", min=1, max=256)] = 4,
    part_frames: Annotated[int, typer.Option(help="Pictures that a worker takes at a time, at least.", min=1)] = 300,
    score: Annotated[float | None, typer.Option(help="Least score shown.")] = None,
    track: Annotated[str, typer.Option(help="edge, bytetrack, ocsort, sort, off.")] = "edge",
    line: Lines = None,
    zone: Zones = None,
    as_json: AsJson = False,
) -> None:
    """Detect, track and count in archives of video files; into tables."""
    from edge.config.load import config_from_arguments, load_config

    if (model is None) == (config is None):
        raise UsageError("expected either --model or --config; run: edge analyze --help")
    if config is not None and (line or zone):
        raise UsageError("--line and --zone go with --model; in a file they are [[streams.analytics.lines]] and zones")
    if config is not None:
        loaded = load_config(config)
    else:
        assert model is not None
        loaded = config_from_arguments(
            ["archive"],
            model,
            [],
            for_model={"engine": engine, "threads": threads},
            for_stream={"score": score, "track": {"method": track}, "analytics": drawn(line, zone)},
        )
    started_s = time.monotonic()
    report = _run(loaded, videos, folder, (batch, part_frames), _Where(ray, workers, gpus))
    _tell(report, folder, time.monotonic() - started_s, as_json=as_json)


class _Where:
    """Who does the work."""

    def __init__(self, ray: str | None, workers: int | None, gpus: float) -> None:
        if ray is not None and workers is not None:
            raise UsageError("--workers is for this machine; a Ray cluster uses all that it has")
        if ray is None and gpus:
            raise UsageError("--gpus is for --ray; expected it with a cluster")
        self.ray, self.workers, self.gpus = ray, workers, gpus

    def runner(self, job: Job) -> Runner:
        if self.ray is not None:
            from edge.archive.on_ray import RayRunner

            return RayRunner(job, self.ray, self.gpus)
        from edge.archive.local import LocalRunner

        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return LocalRunner(job, self.workers or max(1, cores // (job.model.threads or 1)))


def _run(config: Config, videos: list[str], folder: Path, sizes: tuple[int, int], where: _Where) -> Report:
    try:
        from edge.archive.analyze import analyze as analyze_clips
        from edge.archive.clips import find_clips
        from edge.archive.job import job_of
        from edge.archive.results import ResultFolder

        clips = find_clips(videos)
        job = job_of(config, *sizes)
        results = ResultFolder(folder, job)
        runner = where.runner(job)
    except ModuleNotFoundError as error:
        from edge.packages.installed import add_extra

        extra = "ray" if error.name == "ray" else "archive"
        raise MissingError(f"edge analyze needs the Python package {error.name!r}; run: {add_extra(extra)}") from None
    err.print(f"{len(clips)} videos, {runner.name}")
    # Ray tells of its nodes on standard output, where the answer of --json goes
    with _bar() as move, redirect_stdout(sys.stderr):
        return analyze_clips(job, clips, results, runner, move)


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None]]:
    """A bar with the time that is left, in pictures; only on a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bars:
        bar = bars.add_task("pictures", total=None)
        yield lambda done, total: bars.update(bar, completed=done, total=total)


def _tell(report: Report, folder: Path, spent_s: float, *, as_json: bool) -> None:
    names = ("frames", "detections", "tracks", "events")
    sums = {name: sum(account[name] for account in report.finished.values()) for name in names}
    facts: dict[str, Any] = {"videos": len(report.finished), "before": report.num_before, **sums}
    if as_json:
        print_json({**facts, "broken": report.broken, "seconds": round(spent_s, 2), "out": str(folder)})
    else:
        rows = ", ".join(f"{count} {name}" for name, count in sums.items())
        out.print(f"{folder}: {len(report.finished)} videos ({report.num_before} of them before), {rows}")
        for key, reason in report.broken.items():
            err.print(f"not analyzed: {key}: {reason}")
    if report.broken and not report.finished:
        raise DataError(f"none of {len(report.broken)} videos could be analyzed: {next(iter(report.broken.values()))}")
