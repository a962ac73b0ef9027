"""``edge inspect``: what a model file is, and a manifest for somebody else's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from edge.console import AsJson, err, out, print_json
from edge.errors import ManifestError, MissingError, UsageError


def inspect(
    model: Annotated[Path, typer.Argument(help="ONNX file, OpenVINO model (.xml) or TensorRT engine.")],
    head: Annotated[str | None, typer.Option(help="The head, where the file leaves it in doubt.")] = None,
    classes: Annotated[Path | None, typer.Option(help="Text file, one class name a line.")] = None,
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT, where the file leaves the size open.")] = None,
    activation: Annotated[str | None, typer.Option(help="none, sigmoid or softmax: what makes scores.")] = None,
    columns: Annotated[str | None, typer.Option(help="What a row is: 'x1 y1 x2 y2 score class'.")] = None,
    unit: Annotated[str | None, typer.Option(help="Of boxes: pixels or share.")] = None,
    colour: Annotated[str | None, typer.Option(help="bgr or rgb.")] = None,
    mean: Annotated[str | None, typer.Option(help="Three numbers on 0..255, comma between.")] = None,
    std: Annotated[str | None, typer.Option(help="Three numbers on 0..255, comma between.")] = None,
    resize: Annotated[str | None, typer.Option(help="letterbox, stretch, crop or stretch-crop.")] = None,
    interpolation: Annotated[
        str | None, typer.Option(help="bilinear, cubic, nearest, antialias, antialias-cubic, …")
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="Write the manifest next to the model.")] = False,
    to: Annotated[Path | None, typer.Option("--out", help="Write the manifest to this file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a model is; prove how a foreign one is read."""
    from edge.engines.choose import PLAN_SUFFIXES
    from edge.models.manifest import manifest_path, read_sidecar, write_sidecar

    if model.suffix in PLAN_SUFFIXES:
        _show_engine(model, write=write)
        return
    from edge.models.propose import Choices, propose_manifest

    beside = read_sidecar(model) if model.is_file() and not (write or to) else None
    choices = Choices(
        head, _size(size), _class_list(classes), activation, columns, unit, classes.name if classes else ""
    )
    proposal = propose_manifest(model, choices=choices)
    changes = {"colour": colour, "resize": resize, "interpolation": interpolation}
    readings = [_corrected(reading, changes, mean, std) for reading in (proposal.manifest, *proposal.others)]
    manifest, doubt = _proved(model, [beside] if beside else readings, proposal)
    origin = "next to the file" if beside else "in the file" if proposal.is_own else "proposed from the graph"
    if proposal.assumed and not any((mean, std, resize)):
        err.print(f"warning: {proposal.assumed}", style="yellow")
    if write:
        _refuse_card(manifest_path(model))
        err.print(f"wrote {write_sidecar(manifest, model)}")
    if to is not None:
        from edge.files import sha256_of, write_atomic

        write_atomic(to, manifest.model_copy(update={"sha256": sha256_of(model)}).to_json())
        err.print(f"wrote {to}")
    facts = _facts(model, manifest, proposal.graph, origin, doubt)
    if as_json:
        print_json(facts)
    else:
        _print(model, facts)


def _facts(model: Path, manifest: Any, graph: Any, origin: str, doubt: str) -> dict[str, Any]:
    return {
        "manifest": manifest.model_dump(mode="json", by_alias=True, exclude_none=True),
        "manifest_origin": origin,
        "probe": doubt or "passed",
        "opset": graph.opset,
        "size_bytes": model.stat().st_size,
        "parameters": graph.num_parameters,
        "multiply_adds": graph.multiply_adds,
        "weight_bytes": graph.weight_bytes,
        "operators": graph.operators,
        "inputs": [_tensor(tensor) for tensor in graph.inputs],
        "outputs": [_tensor(tensor) for tensor in graph.outputs],
    }


def _proved(model: Path, readings: list[Any], proposal: Any) -> tuple[Any, str]:
    """The reading that the model's own outputs bear out, and why it could not be tried here (empty: it was)."""
    from edge.model import prove_file

    try:
        flags = proposal.flags or ("--head NAME",)
        is_certain = proposal.is_certain or proposal.is_own
        return prove_file(model, readings, flags, is_certain=is_certain), ""
    except MissingError as error:
        return readings[0], f"not tried: {error}"


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    width, cross, height = text.partition("x")
    if not (cross and width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise UsageError(f"--size: expected WIDTHxHEIGHT in pixels, for example 640x640, found {text!r}")
    return int(width), int(height)


def _class_list(path: Path | None) -> tuple[str, ...] | None:
    if path is None:
        return None
    try:
        return tuple(path.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "no text"
        raise ManifestError(f"{path}: cannot be read ({reason}); expected one class name a line") from None


def _corrected(manifest: Any, changes: dict[str, str | None], mean: str | None, std: str | None) -> Any:
    """The proposal with the person's corrections, checked again."""
    from edge.models.manifest import parse_manifest

    raw = manifest.model_dump(mode="json", by_alias=True)
    raw["input"] |= {key: value for key, value in changes.items() if value is not None}
    for key, text in (("mean", mean), ("std", std)):
        if text is not None:
            raw["input"][key] = text.split(",")
    return parse_manifest(json.dumps(raw), "the proposed manifest")


def _refuse_card(path: Path) -> None:
    from edge.models.manifest import is_manifest

    if path.is_file() and not is_manifest(path):
        raise ManifestError(f"{path} exists and is no manifest of ours; write elsewhere with --out FILE")


def _show_engine(model: Path, *, write: bool) -> None:
    from edge.model import find_manifest
    from edge.models.manifest import write_sidecar

    manifest = find_manifest(model)
    if write:
        err.print(f"wrote {write_sidecar(manifest, model)}")
    print_json(manifest.model_dump(mode="json", by_alias=True, exclude_none=True))


def _tensor(tensor: Any) -> dict[str, Any]:
    return {"name": tensor.name, "shape": tensor.shape, "dtype": tensor.dtype}


def _print(model: Path, facts: dict[str, Any]) -> None:
    manifest = facts["manifest"]
    spec = manifest["input"]
    cost = facts["multiply_adds"]
    out.print(f"{model.name}  manifest {facts['manifest_origin']}")
    out.print(f"  task        {manifest['task']}, head {manifest['head']}, precision {manifest['precision']}")
    out.print(
        f"  input       {spec['name']} {spec['dtype']} {spec['layout']} {spec['width']}x{spec['height']} "
        f"{spec['colour']}, {spec['resize']} {spec['interpolation']}, mean {_three(spec['mean'])}, "
        f"std {_three(spec['std'])}"
    )
    for tensor in facts["outputs"]:
        shape = "x".join("N" if size is None else str(size) for size in tensor["shape"])
        out.print(f"  output      {tensor['name']} {tensor['dtype']} {shape}")
    names = manifest["classes"]
    out.print(f"  classes     {len(names)}: {', '.join(names[:8])}{' …' if len(names) > 8 else ''}")
    out.print(
        f"  size        {facts['size_bytes'] / 1e6:.2f} MB, {facts['parameters'] / 1e6:.2f} M parameters, "
        f"{'cost unknown' if cost is None else f'{cost / 1e9:.3f} G multiply-adds a frame'}, opset {facts['opset']}"
    )
    out.print(
        f"  weights     {', '.join(f'{kind} {size / 1e3:.0f} kB' for kind, size in facts['weight_bytes'].items())}"
    )
    out.print(f"  operators   {', '.join(f'{kind} {count}' for kind, count in list(facts['operators'].items())[:10])}")
    for sentence in manifest.get("decided") or ():
        out.print(f"  decided     {sentence}")
    out.print(f"  probe       {facts['probe']}")
    for precision, metrics in manifest.get("accuracy", {}).items():
        out.print(f"  accuracy    {precision}: {', '.join(f'{name} {value:.4f}' for name, value in metrics.items())}")


def _three(values: list[float]) -> str:
    return "/".join(f"{value:g}" for value in values)
