"""``edge build``: a TensorRT engine and its manifest from an ONNX file, with progress."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge.console import AsJson, err, out, print_json
from edge.errors import UsageError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from export.build.engine import BuildResult

PRECISIONS = ("fp32", "fp16", "int8")


def build(
    model: Annotated[Path, typer.Argument(help="The ONNX file.", show_default=False)],
    out_path: Annotated[Path | None, typer.Option("--out", help="The engine; default MODEL-smNN.engine.")] = None,
    target: Annotated[str, typer.Option(help="GPUs to build for, as sm89,sm120 (TensorRT for RTX).")] = "",
    batch: Annotated[list[str] | None, typer.Option(help="SMALLEST:LIKELY:LARGEST batch; again for more.")] = None,
    precision: Annotated[
        str | None, typer.Option(help="Refuse unless it is fp32 (without TF32), fp16 or int8.")
    ] = None,
    workspace_mb: Annotated[int | None, typer.Option(min=1, help="Scratch memory for kernels.")] = None,
    timing_cache: Annotated[Path | None, typer.Option(help="Folder that keeps measured kernel times.")] = None,
    dla: Annotated[int | None, typer.Option(min=0, help="DLA core of a Jetson.")] = None,
    calibration_cache: Annotated[
        Path | None, typer.Option(help="ranges.json for INT8 on the DLA, TensorRT <= 10.")
    ] = None,
    hardware_compatible: Annotated[
        bool, typer.Option("--hardware-compatible", help="Run on all GPUs from Ampere on.")
    ] = False,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="Run on later TensorRT releases.")
    ] = False,
    optimization_level: Annotated[int | None, typer.Option(min=0, max=5, help="0 builds fast, 5 runs fast.")] = None,
    flag: Annotated[list[str] | None, typer.Option(help="A further builder flag, as SPARSE_WEIGHTS.")] = None,
    rtx: Annotated[bool, typer.Option("--rtx", help="Use TensorRT for RTX where both are installed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Build a TensorRT engine and its manifest from ONNX."""
    from edge.engines.cuda.capability import find_compute_capability
    from edge.engines.trt.api import capability_of, load
    from export.build.engine import build_engine, default_out, parse_batch
    from export.build.limits import choose_targets
    from export.build.options import BuildOptions

    if precision not in (None, *PRECISIONS):
        raise UsageError(f"--precision: expected one of {', '.join(PRECISIONS)}, found {precision!r}")
    options = BuildOptions(
        precision=precision,  # type: ignore[arg-type]
        profiles=tuple(parse_batch(text) for text in batch or ()),
        targets=tuple(capability_of(name.strip()) for name in target.split(",") if name.strip()),
        workspace_mb=workspace_mb,
        timing_cache=timing_cache,
        dla_core=dla,
        calibration_cache=calibration_cache,
        hardware_compatible=hardware_compatible,
        version_compatible=version_compatible,
        optimization_level=optimization_level,
        flags=tuple(flag or ()),
    )
    api = load("tensorrt_rtx" if rtx else None)
    capability = find_compute_capability()
    destination = out_path or default_out(model, choose_targets(api, options, capability))
    with _progress(api.title) as progress:
        result = build_engine(model, destination, options, api, capability=capability, listener=BuildProgress(progress))
    _show(result, as_json)


class BuildProgress:
    """Shows the builder's nested phases as bars, one per phase that is running."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def phase_start(self, name: str, parent: str | None, num_steps: int) -> None:
        self._tasks[name] = self._progress.add_task(name if parent is None else f"  {name}", total=num_steps)

    def step(self, name: str, done: int) -> bool:
        task = self._tasks.get(name)
        if task is not None:
            self._progress.update(task, completed=done)
        return True

    def phase_finish(self, name: str) -> None:
        task = self._tasks.pop(name, None)
        if task is not None:
            self._progress.remove_task(task)


def _progress(title: str) -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn(f"{title}  {{task.description}}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=err, transient=True)


def _show(result: BuildResult, as_json: bool) -> None:
    if as_json:
        print_json(_as_dict(result))
        return
    spec = result.manifest.engine
    assert spec is not None
    gpus = ", ".join(spec.compute_capabilities)
    out.print(f"{result.engine}  {result.num_bytes / 1e6:.1f} MB  {result.seconds:.1f} s")
    out.print(f"  {spec.flavour} {spec.version} for compute capability {gpus}, {', '.join(spec.flags) or 'no flags'}")
    sizes = "  ".join(f"{item.min_batch}:{item.opt_batch}:{item.max_batch}" for item in spec.profiles)
    counts = ", ".join(f"{count} {precision}" for precision, count in _counts(result).items())
    out.print(f"  batch {sizes}   layers with weights: {counts}")
    out.print(f"  identity {spec.inputs_sha256[:16]}")
    if result.fallbacks:
        out.print(f"  on the GPU instead of the DLA: {', '.join(result.fallbacks)}")
    for note in result.notes:
        out.print(f"  note: {note}")


def _as_dict(result: BuildResult) -> dict[str, Any]:
    from export.build.engine import identity

    return {
        "engine": str(result.engine),
        "bytes": result.num_bytes,
        "seconds": round(result.seconds, 3),
        "identity": identity(result.manifest),
        "precisions": _counts(result),
        "layers": [{"name": item.name, "kind": item.kind, "precision": item.precision} for item in result.layers],
        "on_gpu_instead_of_dla": list(result.fallbacks),
        "notes": list(result.notes),
        "manifest": result.manifest.model_dump(mode="json", by_alias=True, exclude_none=True),
    }


def _counts(result: BuildResult) -> dict[str, int]:
    from export.build.report import count_precisions

    return count_precisions(result.layers)
