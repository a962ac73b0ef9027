"""``edge bench``: how fast, and where the time goes: the bare engine next to the whole loop, in one run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edge.commands.console import AsJson, out, print_json
from edge.errors import UsageError

SCENE = "synthetic://street?seed=7&fps=30&size=1280x720&objects=14&frames=100000"


def bench(
    what: Annotated[Path, typer.Argument(help="A model, or a configuration file.")],
    source: Annotated[str, typer.Option("--source", "-s", help="What the loop reads.")] = SCENE,
    engine: Annotated[str, typer.Option(help="auto, ort, openvino, trt, null, …")] = "auto",
    threads: Annotated[int | None, typer.Option(help="Threads of a CPU engine.")] = None,
    batch: Annotated[int, typer.Option(help="Frames per batch of the bare engine.")] = 1,
    seconds: Annotated[float, typer.Option(help="How long each part runs.")] = 10.0,
    as_json: AsJson = False,
) -> None:
    """Measure the bare engine and the whole loop back to back."""
    from edge.config import config_from_arguments, load_config
    from edge.measure import cores, first_images, measure_engine, measure_loop
    from edge.model import open_model

    if seconds <= 0 or batch < 1:
        raise UsageError(f"--seconds {seconds:g} --batch {batch}: expected more than 0 seconds and at least 1 frame")
    if what.suffix == ".toml":
        report: dict[str, Any] = {"cores": cores(), "loop": measure_loop(load_config(what), seconds)}
    else:
        model = open_model(what, engine=engine, threads=threads, max_batch=batch)
        try:
            images, _ = first_images(source, batch)
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
        loop = measure_loop(config, seconds)
        ratio = round(loop["fps"] / bare.fps, 3)
        engine_facts = {name: getattr(bare, name) for name in bare.__slots__}
        report = {"cores": cores(), "engine": engine_facts, "loop": loop, "loop_to_engine": ratio}
    if as_json:
        print_json(report)
    else:
        _print(report)


def _print(report: dict[str, Any]) -> None:
    from rich.table import Table

    bare, loop = report.get("engine"), report["loop"]
    if bare:
        out.print(f"engine  {bare['name']}, batch {bare['batch']}: [bold]{bare['fps']:.1f}[/bold] frames/s")
        out.print(f"        median {bare['median_ms']:.2f} ms, p99 {bare['p99_ms']:.2f} ms a batch")
    out.print(f"loop    [bold]{loop['fps']:.1f}[/bold] frames/s, {loop['cpu_ms_per_frame']:.2f} ms CPU a frame")
    out.print(
        f"        age median {loop['age_median_ms']:.1f} ms, p99 {loop['age_p99_ms']:.1f} ms, {loop['dropped']} dropped"
    )
    if bare:
        out.print(f"ratio   [bold]{report['loop_to_engine']:.2f}[/bold] of the bare engine, on {report['cores']} cores")
    for name, stats in loop["streams"].items():
        table = Table("stage", "median ms", "p99 ms", title=name, box=None, title_justify="left")
        for stage, spent in stats["stages"].items():
            table.add_row(stage, f"{spent['median_ms']:.3f}", f"{spent['p99_ms']:.3f}")
        out.print(table)
