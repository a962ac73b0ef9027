"""``edge quantize``: an INT8 model whose accuracy was measured, or an error that says what it would cost."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from edge.commands.footage import candidates
from edge.commands.labelled import labelled
from edge.console import AsJson, err, out, print_json
from edge.errors import UsageError

if TYPE_CHECKING:
    from calib.collect import Step
    from calib.frames import FrameSet
    from calib.ranges import RangeTable
    from export.quantize.quantize import MethodChoice, QuantizeResult

FOOTAGE_FRAMES = 60


def quantize(
    model: Annotated[Path, typer.Argument(help="The float ONNX model.", show_default=False)],
    data: Annotated[str, typer.Option(help="Labelled data set to judge by.", show_default=False)],
    ranges: Annotated[Path | None, typer.Option(help="From edge calibrate; default MODEL.ranges.json.")] = None,
    max_drop: Annotated[float, typer.Option(min=0, help="Share of the float accuracy that may be lost.")] = 0.01,
    footage: Annotated[
        list[str] | None,
        typer.Option(
            help="Unlabelled video, pictures or camera of where it will run; again for more.", show_default=False
        ),
    ] = None,
    min_agreement: Annotated[
        float, typer.Option(min=0, max=1, help="Share of what float sees in the footage that must stay.")
    ] = 0.9,
    method: Annotated[str, typer.Option(help="auto, minmax, average, percentile, entropy or mse.")] = "auto",
    flavour: Annotated[str, typer.Option(help="fp32 or fp16 (TensorRT), cpu (ONNX Runtime, OpenVINO).")] = "fp32",
    precision: Annotated[str, typer.Option(help="int8, or fp16 to cast only; that needs no ranges.")] = "int8",
    opset: Annotated[int, typer.Option(min=0, help="Of the written file, 0 = the model's; TensorRT 8.6 wants 17.")] = 0,
    float_layer: Annotated[
        list[str] | None, typer.Option(help="Weight of a layer to leave in float; again for more.")
    ] = None,
    confidence: Annotated[
        float,
        typer.Option(
            min=0,
            max=0.999,
            help="With which the drop must be inside --max-drop, on those two thirds of the pictures which nothing is "
            "chosen on; 0: the drop measured on all of them.",
        ),
    ] = 0.0,
    allow_float: Annotated[
        bool, typer.Option("--allow-float", help="Write the file even if most of its compute stayed in float.")
    ] = False,
    train_data: Annotated[
        str | None,
        typer.Option(
            help="Labelled pictures to learn from where calibration cannot hold the budget: activations are exchanged, "
            "then the network is fine-tuned with rounding.",
            show_default=False,
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Of edge train, that MODEL was exported from; for --train-data.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over --train-data.")] = 5,
    images: Annotated[int, typer.Option(min=0, help="Judge by so many pictures, 0 = all.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Threads of ONNX Runtime.")] = 1,
    out_path: Annotated[Path | None, typer.Option("--out", help="Default MODEL-int8.onnx.")] = None,
    report: Annotated[bool, typer.Option(help="Write NAME.report.html and .json next to the model.")] = True,
    as_json: AsJson = False,
) -> None:
    """Quantize to INT8 (or cast to FP16) within a budget."""
    from typing import get_args

    from calib.clipping import METHODS
    from calib.ranges import load_table
    from export.quantize.qdq import FLAVOURS, Flavour
    from export.quantize.quantize import QuantizeOptions
    from export.quantize.quantize import quantize as run

    if method not in ("auto", *METHODS):
        raise UsageError(f"--method: expected auto or one of {', '.join(METHODS)}, found {method!r}")
    if flavour not in get_args(Flavour):
        raise UsageError(f"--flavour: expected one of {', '.join(FLAVOURS)}, found {flavour!r}")
    if precision not in ("int8", "fp16"):
        raise UsageError(f"--precision: expected int8 or fp16, found {precision!r}")
    if checkpoint is not None and train_data is None:
        raise UsageError("--checkpoint is for --train-data: the pictures that it would be fine-tuned on")
    if precision == "fp16":
        seen = _footage(model, footage, None)
        destination = out_path or model.with_name(f"{model.stem}-fp16.onnx")
        _cast(model, data, images, max_drop, min_agreement, seen, threads, destination, as_json)
        return
    table = load_table(ranges or model.with_suffix(".ranges.json"))
    judged = labelled(model, data, "skip", images)
    seen = _footage(model, footage, table)
    options = QuantizeOptions(
        flavour=cast("Flavour", flavour),
        opset=opset,
        method=cast("MethodChoice", method),
        max_drop=max_drop,
        min_agreement=min_agreement,
        float_layers=frozenset(float_layer or ()),
        threads=threads,
        confidence=confidence,
        allow_float=allow_float,
        ranks_layers=report,
    )
    destination = out_path or model.with_name(f"{model.stem}-int8.onnx")
    with _Bars() as bars:
        if train_data is None:
            result = run(model, table, judged, destination, options, bars, footage=seen)
        else:
            from export.quantize.rescue import Learning, quantize_or_tune

            learning = Learning(labelled(model, train_data, "skip"), checkpoint, epochs)
            result = quantize_or_tune(model, table, judged, destination, options, learning, bars, footage=seen)
    if report:
        own = ranges or model.with_suffix(".ranges.json")
        _write_report(result, own if result.path == model else result.path.with_suffix(".ranges.json"))
    _show(result, as_json)


def _footage(model: Path, origins: list[str] | None, table: RangeTable | None) -> FrameSet | None:
    """Frames of the footage that calibration has not seen."""
    from calib.frames import choose_frames
    from calib.seen_pictures import seen_pictures
    from edge.addresses.uris import masked
    from edge.model import find_manifest

    if not origins:
        return None
    known = seen_pictures(table) if table is not None else None
    offered = candidates(origins, FOOTAGE_FRAMES, seed=1)
    return choose_frames(
        (one for one in offered if known is None or not known.has(one.frame_id, one.image)),
        find_manifest(model).input,
        FOOTAGE_FRAMES,
        origin=", ".join(map(masked, origins)),
    )


def _cast(
    model: Path,
    data: str,
    images: int,
    max_drop: float,
    min_agreement: float,
    footage: FrameSet | None,
    threads: int,
    destination: Path,
    as_json: bool,
) -> None:
    from export.quantize.convert_fp16 import convert_to_half
    from export.quantize.gate import main_value

    judged = labelled(model, data, "skip", images)
    result = convert_to_half(
        model,
        judged,
        destination,
        max_drop=max_drop,
        min_agreement=min_agreement,
        footage=footage,
        threads=threads,
    )
    facts = {
        "model": str(result.out),
        "metric": result.before.main_metric,
        "fp32": main_value(result.before),
        "fp16": main_value(result.after),
        "drop": result.drop,
        "kept_fp32": result.overflowing,
        "bytes_fp32": result.path.stat().st_size,
        "bytes_fp16": result.out.stat().st_size,
    }
    if as_json:
        print_json(facts)
        return
    out.print(
        f"{result.out}: {facts['metric']} {facts['fp32']:.4f} → {facts['fp16']:.4f} ({-result.drop:+.2%}), "
        f"{result.path.stat().st_size / 1e6:.1f} → {result.out.stat().st_size / 1e6:.1f} MB"
    )


def _write_report(result: QuantizeResult, ranges: Path) -> None:
    from export.quantize.report import write_report

    (timed,) = write_report(result, ranges)["latency"]
    if timed["ratio"] < 1:
        times = f"{timed['fp32_ms']:.1f} → {timed['int8_ms']:.1f} ms a frame on one thread"
        advice = "keep the float model, try --engine openvino, or build it for TensorRT"
        err.print(f"INT8 is slower here than the float model: {times}; {advice}", style="yellow")


class _Bars:
    """Progress bars on standard error; see ``export.quantize.quantize.Progress``."""

    def __init__(self) -> None:
        from rich.progress import Progress, TimeRemainingColumn

        self._bars = Progress(*Progress.get_default_columns()[:-1], TimeRemainingColumn(), console=err)

    def __enter__(self) -> _Bars:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def phase(self, title: str, steps: int) -> Step:
        task = self._bars.add_task(title, total=steps)
        return lambda: self._bars.advance(task)


def _show(result: QuantizeResult, as_json: bool) -> None:
    from export.quantize.gate import main_value

    name = result.before.main_metric
    facts = {
        "model": str(result.out),
        "flavour": result.scheme.flavour,
        "method": result.scheme.method,
        "metric": name,
        "fp32": main_value(result.before),
        "int8": main_value(result.after),
        "drop": result.drop,
        "drop_interval": None if result.loss is None else asdict(result.loss),
        "float_share": result.float_share,
        "num_judged": result.before.num_images,
        "agreement": result.verdict.agreement,
        "footage_agreement": result.verdict.figures.on_footage,
        "methods": {name: asdict(figures) for name, figures in result.methods.items()},
        "float_layers": sorted(result.scheme.float_layers or ()),
        "num_layers": result.num_layers,
        "kept_fp32": dict(result.overflowing),
        "bytes_fp32": result.path.stat().st_size,
        "bytes_int8": result.out.stat().st_size,
    }
    if as_json:
        print_json(facts)
        return
    out.print(
        f"{result.out}: {name} {facts['fp32']:.4f} → {facts['int8']:.4f} ({-result.drop:+.2%}{_interval(result)}), "
        "method "
        f"{result.scheme.method}, {len(result.scheme.float_layers or ())} of {result.num_layers} layers in float, "
        f"{_sight(result)}, {result.path.stat().st_size / 1e6:.1f} → {result.out.stat().st_size / 1e6:.1f} MB"
    )


def _interval(result: QuantizeResult) -> str:
    loss = result.loss
    if loss is None:
        return ""
    return f", 95 % {-loss.high:+.2%} to {-loss.low:+.2%} on {result.before.num_images} pictures"


def _sight(result: QuantizeResult) -> str:
    on_footage = result.verdict.figures.on_footage
    words = f"sees {result.verdict.agreement:.1%} as float does"
    return words if on_footage is None else f"{words} ({on_footage:.1%} on the footage)"
