"""``edge bench``: how fast, and where the time goes: the bare engine next to the whole loop, in one run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge.console import AsJson, out, print_json, timed_bar
from edge.errors import UsageError

if TYPE_CHECKING:
    from edge.bench.capacity import Capacity

# of a camera, where no configuration says more
SIZE = "1280x720"
# below that, other programs do not matter
OTHERS = 0.1
SCENE = "synthetic://street?seed=7&fps=30&size=1280x720&objects=14&frames=100000"


def bench(
    what: Annotated[Path, typer.Argument(help="A model, or a configuration file.")],
    source: Annotated[str, typer.Option("--source", "-s", help="What the loop reads.")] = SCENE,
    engine: Annotated[str, typer.Option(help="auto, ort, openvino, trt, null, …")] = "auto",
    threads: Annotated[int | None, typer.Option(help="Threads of a CPU engine.")] = None,
    batch: Annotated[int, typer.Option(help="Frames per batch of the bare engine.")] = 1,
    seconds: Annotated[float, typer.Option(help="How long each part runs.")] = 10.0,
    plan: Annotated[bool, typer.Option("--plan", help="Say how many cameras this machine takes.")] = False,
    size: Annotated[str, typer.Option(help="Pixels of a planned camera; a configuration has its own.")] = SIZE,
    picture: Annotated[Path | None, typer.Option(help="Draw stages and ages into this .png or .svg.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure the engine and the loop; --plan: how many cameras fit."""
    from edge.bench.loop import cores, first_images, measure_engine, measure_loop
    from edge.config.load import config_from_arguments, load_config
    from edge.model import open_model

    if seconds <= 0 or batch < 1:
        raise UsageError(f"--seconds {seconds:g} --batch {batch}: expected more than 0 seconds and at least 1 frame")
    if picture is not None:
        from edge.bench.picture import figure_class

        figure_class()
    if plan:
        _plan(what, size, {"engine": engine, "threads": threads}, seconds, as_json=as_json)
        return
    if what.suffix == ".toml":
        loaded = load_config(what)
        with timed_bar("the whole loop", seconds):
            report: dict[str, Any] = {"cores": cores(), "loop": measure_loop(loaded, seconds)}
    else:
        model = open_model(what, engine=engine, threads=threads, max_batch=batch)
        try:
            images, _ = first_images(source, batch)
            with timed_bar("the bare engine", seconds):
                bare = measure_engine(model, images, seconds)
        finally:
            model.close()
        config = config_from_arguments(
            [source],
            what,
            ["jsonl:/dev/null"],
            for_model={"engine": engine, "threads": threads, "max_batch": batch},
            for_stream={"frames": "every"},
        )
        with timed_bar("the whole loop", seconds):
            loop = measure_loop(config, seconds)
        ratio = round(loop["fps"] / bare.fps, 3)
        engine_facts = {name: getattr(bare, name) for name in bare.__slots__}
        report = {"cores": cores(), "engine": engine_facts, "loop": loop, "loop_to_engine": ratio}
    if picture is not None:
        from edge.bench.picture import draw_report

        draw_report(report, picture)
    if as_json:
        print_json(report)
    else:
        _print(report)


def _print(report: dict[str, Any]) -> None:
    from rich.table import Table

    bare, loop = report.get("engine"), report["loop"]
    if bare:
        out.print(f"engine  {bare['name']}, batch {bare['batch']}: {bare['fps']:.1f} frames/s")
        out.print(f"        median {bare['median_ms']:.2f} ms, p99 {bare['p99_ms']:.2f} ms a batch")
    out.print(f"loop    {loop['fps']:.1f} frames/s, {loop['cpu_ms_per_frame']:.2f} ms CPU a frame")
    out.print(
        f"        age median {loop['age_median_ms']:.1f} ms, p99 {loop['age_p99_ms']:.1f} ms, {loop['dropped']} dropped"
    )
    out.print(
        f"        collector: {loop['gc']['pauses']} pauses, longest {loop['gc']['longest_ms']} ms; "
        f"memory: {loop['blocks_per_frame']:+} blocks a frame, {loop['peak_rss_mb']:.0f} MB at most"
    )
    if bare:
        out.print(f"ratio   {report['loop_to_engine']:.2f} of the bare engine, on {report['cores']} cores")
    for name, stats in loop["streams"].items():
        table = Table("stage", "median ms", "p99 ms", title=name, box=None, title_justify="left")
        for stage, spent in stats["stages"].items():
            table.add_row(stage, f"{spent['median_ms']:.3f}", f"{spent['p99_ms']:.3f}")
        out.print(table)


def _plan(what: Path, size: str, for_model: dict[str, Any], seconds: float, *, as_json: bool) -> None:
    """Measure and print the capacity."""
    from edge.bench.capacity import measure_capacity
    from edge.bench.loop import cores
    from edge.config.load import config_from_arguments, load_config

    if what.suffix == ".toml":
        config = load_config(what)
    else:
        sources = [f"camera{index + 1}.mp4" for index in range(max(2, cores()))]
        config = config_from_arguments(
            sources, what, ["jsonl:/dev/null"], for_model=for_model, for_stream={"size": _pixels(size)}
        )
    capacity = measure_capacity(config, seconds)
    if as_json:
        print_json(capacity.as_json())
    else:
        _print_plan(capacity)


def _in_workers(cameras: int, workers: int) -> str:
    return f"{cameras} in {workers}" if workers > 1 else "one process has it all"


def _pixels(size: str) -> tuple[int, int]:
    width, _, height = size.partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise UsageError(f"--size {size}: expected width and height in pixels, such as {SIZE}")
    return int(width), int(height)


def _print_plan(capacity: Capacity) -> None:
    from rich.table import Table

    from edge.bench.capacity import HEADROOM, PLANNED_CAMERAS, RATES_FPS

    out.print(
        f"limit    {capacity.fps:.0f} frames/s of all cameras together on {capacity.num_cores} cores, "
        f"{capacity.cpu_ms_per_frame:.1f} ms CPU a frame"
    )
    busy = ", ".join(f"{name} {share:.0%}" for name, share in sorted(capacity.shares.items(), key=lambda one: -one[1]))
    out.print(f"busy     {busy}")
    out.print(f"first    {capacity.bottleneck} is full; {capacity.advice}")
    if capacity.others > OTHERS:
        out.print(f"others   {capacity.others:.0%} of the processor went to other programs: stop them", style="yellow")
    out.print(f"memory   {capacity.mb_per_camera:.0f} MB a camera at most, {capacity.mb_left:.0f} MB for cameras")
    for server in capacity.servers:
        needs = ", ".join(
            f"{capacity.num_servers(server, PLANNED_CAMERAS, rate):.1f} at {rate} fps" for rate in RATES_FPS
        )
        out.print(f"servers  {PLANNED_CAMERAS} cameras need as many like the {server} (arithmetic): {needs}")
    heads = ("cameras at", "this many", "with workers")
    table = Table(*heads, box=None, title=f"with {HEADROOM:.0%} headroom", title_justify="left")
    for fps in RATES_FPS:
        note = " (memory)" if capacity.is_bound_by_memory(fps) else ""
        cameras, workers = capacity.with_workers(fps)
        table.add_row(f"{fps} fps", f"{capacity.num_cameras(fps)}{note}", _in_workers(cameras, workers))
    out.print(table)
    if capacity.left_out:
        out.print(f"not measured: {', '.join(capacity.left_out)}", style="dim")
