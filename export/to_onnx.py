"""From a checkpoint to one ONNX file with its manifest, and the proof that both say the same.

Shape letters: N batch, h w pixels of the input.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx.version_converter
import torch

from edge.engines.ort_providers import session_options
from edge.errors import AccuracyError, UsageError
from edge.files import atomic_path
from edge.models.manifest import ONNX_KEY, Manifest, write_sidecar
from edge.types import Array, UInt8
from export.models.build import Network, build_network
from export.models.graph import INPUT, ExportGraph, make_manifest, output_names
from export.training.checkpoint import Checkpoint, load_checkpoint

log = logging.getLogger(__name__)

OPSETS = (17, 18, 19, 20, 21)
# the exporter writes no lower opset; 17 is made from it for TensorRT 8.6
LOWEST_EXPORTED = 18
SCOPES_KEY = "pkg.torch.onnx.name_scopes"
PARITY_BATCHES = (1, 3)
# boxes are hundreds of pixels, scores and probabilities at most 1: float32 sums in another order differ by this
TOLERANCE = {"boxes": 0.05, "scores": 1e-4, "probs": 1e-4, "prototypes": 1e-2, "beside": 0.05}
# share of outputs that may differ where a tie is decided the other way (labels, class maps, order of equal scores)
TIES = 0.01


@dataclass(frozen=True, slots=True)
class Parity:
    """Largest difference between torch and ONNX Runtime per output, over all checked batches.

    Attributes:
        max_error: output name → largest absolute difference; for integer outputs the share of differing values. Rows of
            objects are told apart: ``boxes``, ``scores``, ``labels``, and ``beside`` for coefficients and key points.
    """

    max_error: dict[str, float]


def export_onnx(checkpoint: Path, out: Path, *, opset: int = 20, many: bool | None = None) -> Manifest:
    """Write ``out`` and the manifest next to it; see ``export_checked``, which also tells the differences to torch."""
    return export_checked(checkpoint, out, opset=opset, many=many)[0]


def export_checked(
    checkpoint: Path | Checkpoint, out: Path, *, opset: int = 20, many: bool | None = None, score: float | None = None
) -> tuple[Manifest, Parity]:
    """Write ``out`` and the manifest next to it, and compare the file with torch.

    The graph takes ``frames`` (N, h, w, 3) uint8 BGR with any N; normalisation is folded into the first convolution,
    batch norms and branches into theirs; decoding and top-K are in the graph, NMS is not. Nodes are named by their
    module, so TensorRT's layer names are those of the source code.

    Args:
        checkpoint: of ``edge train``, or its file; its averaged weights are exported.
        out: the ONNX file.
        opset: 17 for TensorRT 8.6, else 18 to 21.
        many: export the many-boxes branch, for NMS in the runtime; None as the recipe says.
        score: in [0, 1], from which on the runtime shows an object; None keeps the usual one.

    Raises:
        UsageError: an opset that is not possible.
        ModelError: no checkpoint of ours.
        AccuracyError: the file does not compute what torch computes.
    """
    if opset not in OPSETS:
        raise UsageError(f"opset {opset} is not possible; expected one of {', '.join(map(str, OPSETS))}")
    saved = checkpoint if isinstance(checkpoint, Checkpoint) else load_checkpoint(checkpoint)
    network = restored(saved)
    manifest = make_manifest(saved.recipe, saved.classes, saved.dataset | {"source": saved.form.get("source", "")})
    manifest = manifest.model_copy(update={"name": out.stem})
    if many is not None and manifest.task == "detect":
        manifest = manifest.model_copy(update={"needs_nms": many})
    if score is not None:
        manifest = manifest.model_copy(update={"thresholds": manifest.thresholds.model_copy(update={"score": score})})
    keep = saved.recipe.model.num_kept(many=manifest.needs_nms)
    graph = ExportGraph(network, many=manifest.needs_nms, keep=keep).eval()
    names = output_names(network)
    model = to_model(graph, names, (manifest.input.height, manifest.input.width), opset)
    _store_manifest(model, manifest)
    with atomic_path(out) as temporary:
        onnx.save(model, temporary)
        parity = check_parity(graph, temporary, names, manifest)
    write_sidecar(manifest, out)
    log.info("%s: opset %d, largest difference to torch %s", out.name, opset, parity.max_error)
    return manifest, parity


def restored(saved: Checkpoint) -> Network:
    """The network of a checkpoint with its averaged weights, for inference."""
    network = build_network(saved.recipe, len(saved.classes), saved.form)
    network.load_state_dict(saved.ema)
    network.eval()
    return network


def to_model(graph: ExportGraph, names: Sequence[str], size: tuple[int, int], opset: int) -> onnx.ModelProto:
    """The ONNX model of a graph for frames of ``size`` (height, width), with a dynamic batch and named nodes."""
    # two, since the exporter takes a batch of one for a constant
    example = torch.zeros(2, *size, 3, dtype=torch.uint8)
    with _quiet():
        program = torch.onnx.export(
            graph,
            (example,),
            dynamo=True,
            opset_version=max(opset, LOWEST_EXPORTED),
            input_names=[INPUT],
            output_names=list(names),
            dynamic_shapes=({0: torch.export.Dim("N")},),
            verbose=False,
        )
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    name_nodes(model)
    if opset < LOWEST_EXPORTED:
        model = _lowered(model, opset)
    onnx.checker.check_model(model)
    return model


def name_nodes(model: onnx.ModelProto) -> None:
    """Name every node by module path and operator: ``backbone.stem.conv/Conv``; drop the exporter's own notes."""
    seen: Counter[str] = Counter()
    for node in model.graph.node:
        notes = {note.key: note.value for note in node.metadata_props}
        name = f"{_module_of(notes.get(SCOPES_KEY, ''))}/{node.op_type}"
        seen[name] += 1
        node.name = name if seen[name] == 1 else f"{name}_{seen[name]}"
        del node.metadata_props[:]


def _module_of(scopes: str) -> str:
    """The innermost module of a list such as ``['', 'net', 'net.stem', 'net.stem.conv', 'conv2d_1']``."""
    # the last scope is the operation itself
    modules = [scope.strip(" '\"") for scope in scopes.strip("[]").split(",")][:-1]
    return (modules[-1].removeprefix("net").lstrip(".") if modules else "") or "graph"


def _lowered(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """The same model at a lower opset; node names stay."""
    for node in model.graph.node:
        # attributes that came with opset 18, at their default values
        for attribute in list(node.attribute):
            if attribute.name in {"noop_with_empty_axes", "antialias", "keep_aspect_ratio_policy"}:
                node.attribute.remove(attribute)
    lowered: onnx.ModelProto = onnx.version_converter.convert_version(model, opset)
    # the IR version that goes with opset 17; older parsers check it
    lowered.ir_version = 8
    return lowered


def check_parity(graph: ExportGraph, path: Path, names: Sequence[str], manifest: Manifest) -> Parity:
    """Run torch and ONNX Runtime on the same random frames, batches of 1 and 3.

    Raises:
        AccuracyError: they differ by more than rounding.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), session_options(threads=0), providers=["CPUExecutionProvider"])
    errors: dict[str, float] = {}
    for batch in PARITY_BATCHES:
        frames = random_frames(batch, manifest.input.height, manifest.input.width)
        with torch.inference_mode():
            expected = [value.numpy() for value in graph(torch.from_numpy(frames))]
        found = session.run(list(names), {INPUT: frames})
        for name, error in _errors(names, expected, found).items():
            errors[name] = max(errors.get(name, 0.0), error)
    for name, error in errors.items():
        if not error <= TOLERANCE.get(name, TIES):
            raise AccuracyError(
                f"{path.name}: output {name!r} differs from torch by {error:.3g}, expected at most "
                f"{TOLERANCE.get(name, TIES):.3g}; the exported graph is wrong, please report it with the checkpoint"
            )
    return Parity(errors)


def random_frames(batch: int, height: int, width: int) -> UInt8:
    """(N, h, w, 3) uint8 frames with structure of several sizes, the same for the same arguments."""
    rng = np.random.default_rng(batch)
    frames = np.zeros((batch, height, width, 3), np.float32)
    for cell in (64, 16, 4, 1):
        shape = (batch, -(-height // cell), -(-width // cell), 3)
        coarse = rng.uniform(0, 64, shape).astype(np.float32)
        frames += coarse.repeat(cell, 1).repeat(cell, 2)[:, :height, :width]
    return frames.astype(np.uint8)


def _errors(names: Sequence[str], expected: Sequence[Array], found: Sequence[Array]) -> dict[str, float]:
    """Per output, how far they are apart."""
    errors: dict[str, float] = {}
    if names[0] in ("boxes", "objects"):
        is_rows = names[0] == "objects"
        sides = [_columns(side[0]) if is_rows else side for side in (expected, found)]
        rows = zip(zip(*sides[0], strict=True), zip(*sides[1], strict=True), strict=True)
        errors = _worst([_object_errors(torch_row, onnx_row) for torch_row, onnx_row in rows])
        first = 1 if is_rows else len(names)
        names, expected, found = names[first:], expected[first:], found[first:]
    for name, torch_value, onnx_value in zip(names, expected, found, strict=True):
        differing = torch_value != onnx_value if torch_value.dtype.kind in "iu" else np.abs(torch_value - onnx_value)
        errors[name] = float(differing.mean() if torch_value.dtype.kind in "iu" else differing.max(initial=0.0))
    return errors


def _columns(rows: Array) -> tuple[Array, Array, Array, Array]:
    """Boxes, scores, labels and the rest of (N, K, 6 + E)."""
    return rows[..., :4], rows[..., 4], rows[..., 5], rows[..., 6:]


def _object_errors(expected: Sequence[Array], found: Sequence[Array]) -> dict[str, float]:
    """Errors of one picture's boxes, scores and labels.

    Equal scores may come in another order, and the last places may go to others, so each object is compared with the
    most similar one. The error of a box is relative to its size where that is above 100 pixels.
    """
    boxes, scores, labels, *beside = expected
    other_boxes, other_scores, other_labels, *other_beside = found
    kept = scores > scores[-1] + 1e-5
    side = np.maximum(100.0, (boxes[:, 2:] - boxes[:, :2]).max(-1))
    box_error = np.abs(boxes[:, None] - other_boxes[None]).max(-1) / side[:, None] * 100.0
    score_error = np.abs(scores[:, None] - other_scores[None])
    is_other = labels[:, None] != other_labels[None]
    match = (box_error + score_error * 100.0 + is_other * 100.0).argmin(1)
    rows = np.arange(len(scores))
    errors = {
        "boxes": float(box_error[rows, match][kept].max(initial=0.0)),
        "scores": float(score_error[rows, match][kept].max(initial=0.0)),
        "labels": float(is_other[rows, match][kept].mean()) if kept.any() else 0.0,
    }
    for mine, theirs in zip(beside, other_beside, strict=True):
        errors["beside"] = float(np.abs(mine - theirs[match])[kept].max(initial=0.0))
    return errors


def _worst(errors: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: max(error[name] for error in errors) for name in errors[0]}


def _store_manifest(model: onnx.ModelProto, manifest: Manifest) -> None:
    model.producer_name = "edgeloop"
    del model.metadata_props[:]
    entry = model.metadata_props.add()
    entry.key, entry.value = ONNX_KEY, manifest.to_json()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's notes about libraries that it could use and deprecations inside of it."""
    noisy = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in noisy]
    for logger in noisy:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(noisy, levels, strict=True):
            logger.setLevel(level)
