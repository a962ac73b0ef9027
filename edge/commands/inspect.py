"""``edge inspect``: what a model file is, and a manifest for somebody else's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edge.console import AsJson, err, out, print_json
from edge.errors import ManifestError


def inspect(
    model: Annotated[Path, typer.Argument(help="ONNX file or TensorRT engine.")],
    head: Annotated[str | None, typer.Option(help="The head, where the graph does not tell it.")] = None,
    classes: Annotated[Path | None, typer.Option(help="Text file, one class name a line.")] = None,
    colour: Annotated[str | None, typer.Option(help="bgr or rgb.")] = None,
    mean: Annotated[str | None, typer.Option(help="Three numbers on 0..255, comma between.")] = None,
    std: Annotated[str | None, typer.Option(help="Three numbers on 0..255, comma between.")] = None,
    resize: Annotated[str | None, typer.Option(help="letterbox or stretch.")] = None,
    write: Annotated[bool, typer.Option("--write", help="Write the manifest beside the model.")] = False,
    to: Annotated[Path | None, typer.Option("--out", help="Write the manifest to this file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a model is; propose a manifest for a foreign one."""
    from edge.engines.choose import PLAN_SUFFIXES
    from edge.models.manifest import manifest_path, read_sidecar, write_sidecar

    if model.suffix in PLAN_SUFFIXES:
        _show_engine(model)
        return
    from edge.models.propose import propose_manifest

    beside = read_sidecar(model) if model.is_file() and not (write or to) else None
    proposal = propose_manifest(model, head=head)
    manifest = beside or _corrected(proposal.manifest, classes, {"colour": colour, "resize": resize}, mean, std)
    origin = "beside the file" if beside else "in the file" if proposal.is_own else "proposed from the graph"
    if write:
        _refuse_card(manifest_path(model))
        err.print(f"wrote {write_sidecar(manifest, model)}")
    if to is not None:
        from edge.files import sha256_of, write_atomic

        write_atomic(to, manifest.model_copy(update={"sha256": sha256_of(model)}).to_json())
        err.print(f"wrote {to}")
    facts = {
        "manifest": manifest.model_dump(mode="json", by_alias=True, exclude_none=True),
        "manifest_origin": origin,
        "opset": proposal.graph.opset,
        "size_bytes": model.stat().st_size,
        "parameters": proposal.graph.num_parameters,
        "multiply_adds": proposal.graph.multiply_adds,
        "weight_bytes": proposal.graph.weight_bytes,
        "operators": proposal.graph.operators,
        "inputs": [_tensor(tensor) for tensor in proposal.graph.inputs],
        "outputs": [_tensor(tensor) for tensor in proposal.graph.outputs],
    }
    if as_json:
        print_json(facts)
    else:
        _print(model, facts)


def _corrected(
    manifest: Any, classes: Path | None, changes: dict[str, str | None], mean: str | None, std: str | None
) -> Any:
    """The proposal with the person's corrections, checked again."""
    from edge.model import COUNTED_HEADS
    from edge.models.manifest import parse_manifest

    raw = manifest.model_dump(mode="json", by_alias=True)
    raw["input"] |= {key: value for key, value in changes.items() if value is not None}
    for key, text in (("mean", mean), ("std", std)):
        if text is not None:
            raw["input"][key] = text.split(",")
    if classes is not None:
        try:
            raw["classes"] = classes.read_text().split("\n")[: len(classes.read_text().splitlines())]
        except OSError as error:
            raise ManifestError(
                f"{classes}: cannot be read ({error.strerror}); expected one class name a line"
            ) from None
        found, room = len(raw["classes"]), len(manifest.classes)
        if manifest.head in COUNTED_HEADS and found != room:
            raise ManifestError(f"{classes} has {found} names, the model's output has room for {room} classes")
    import json

    return parse_manifest(json.dumps(raw), "the proposed manifest")


def _refuse_card(path: Path) -> None:
    from edge.models.manifest import is_manifest

    if path.is_file() and not is_manifest(path):
        raise ManifestError(f"{path} exists and is no manifest of ours; write elsewhere with --out FILE")


def _show_engine(model: Path) -> None:
    from edge.models.manifest import read_sidecar

    manifest = read_sidecar(model) if model.is_file() else None
    if manifest is None:
        raise ManifestError(f"{model}: no engine with a manifest beside it; run: edge build MODEL.onnx")
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
        f"{spec['colour']}, {spec['resize']}, mean {_three(spec['mean'])}, std {_three(spec['std'])}"
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
    for precision, metrics in manifest.get("accuracy", {}).items():
        out.print(f"  accuracy    {precision}: {', '.join(f'{name} {value:.4f}' for name, value in metrics.items())}")


def _three(values: list[float]) -> str:
    return "/".join(f"{value:g}" for value in values)
