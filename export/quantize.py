"""Float ONNX model in, INT8 model out: only with its measured accuracy beside it and inside the budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

import onnx
from onnx import ModelProto

from calib.clipping import METHODS, Method
from calib.collect import Step, TensorSource
from calib.frames import choose_frames, dataset_candidates
from calib.graph import MIN_QDQ_OPSET, GraphIndex, load_float_model, opset_of, with_opset
from calib.ranges import RangeTable, check_table
from calib.sensitivity import LayerEffect, scan
from edge.errors import AccuracyError, UsageError
from edge.files import atomic_path
from edge.manifest import Calibration, Manifest, content_hash, write_sidecar
from edge.model import find_manifest
from export.data.sample import Dataset
from export.evaluate import Report
from export.fp16 import MIN_TYPED_QDQ_OPSET, decode_tensors, to_half
from export.gate import Gate, Shots, main_value, unseen_part
from export.memo import Memo
from export.placement import default_float_layers
from export.qdq import Flavour, Scheme, insert_qdq, scheme_for
from export.search import Trial, search_float_layers

MethodChoice: TypeAlias = Method | Literal["auto"]
SCAN_FRAMES = 8
TYPED: frozenset[Flavour] = frozenset({"fp16", "fp8"})
PREFERENCE: tuple[Method, ...] = ("average", "mse", "entropy", "percentile", "minmax")


@dataclass(frozen=True, slots=True)
class QuantizeOptions:
    """What is wanted.

    Attributes:
        flavour: see ``export.qdq.Scheme``.
        opset: of the written file; 0 keeps the model's, or the least that the flavour needs. TensorRT 8.6 wants 17.
        method: how ranges are clipped; ``auto`` measures all and takes the best.
        max_drop: share of the float model's accuracy that may be lost, 0.01 = one percent of it.
        float_layers: keys of layers that must stay float, besides the last ones.
        threads: of ONNX Runtime.
        ranks_layers: measure every layer's effect for the report even where the budget holds without a search.
    """

    flavour: Flavour = "fp32"
    opset: int = 0
    method: MethodChoice = "auto"
    max_drop: float = 0.01
    float_layers: frozenset[str] = frozenset()
    threads: int = 1
    ranks_layers: bool = True


@dataclass(frozen=True)
class QuantizeResult:
    """All that was measured, for the manifest and the report.

    Attributes:
        before, after: reports of the float and of the written model.
        methods: clip method → accuracy with only the last layers in float.
        effects: per layer, worst first; empty where they were not asked for or needed.
        num_layers: of the network.
        trials: of the mixed precision search; empty where it was not needed.
        shots: the same few pictures with what the float and the written model find in them.
    """

    path: Path
    out: Path
    manifest: Manifest
    scheme: Scheme
    table: RangeTable
    before: Report
    after: Report
    methods: Mapping[Method, float]
    effects: Sequence[LayerEffect]
    num_layers: int
    trials: Sequence[Trial] = ()
    shots: tuple[Shots, Shots] = field(default_factory=lambda: (Shots(), Shots()))

    @property
    def drop(self) -> float:
        """Share of the float accuracy that was lost; negative where INT8 is better."""
        return 1 - main_value(self.after) / main_value(self.before)


class Progress(Protocol):
    """Told what is being done."""

    def phase(self, title: str, steps: int) -> Step:
        """A phase of so many steps begins; what is returned is called after each."""


class _Silent:
    def phase(self, title: str, steps: int) -> Step:
        return lambda: None


def quantize(
    path: Path,
    table: RangeTable,
    dataset: Dataset,
    out: Path,
    options: QuantizeOptions,
    progress: Progress | None = None,
) -> QuantizeResult:
    """Quantize a model and write it with its manifest.

    Args:
        path: the float ONNX model.
        table: its ranges.
        dataset: labelled pictures to judge by; those that were used for calibration are left out.
        out: the ONNX file to write.

    Raises:
        ModelError: the model cannot be used.
        DataError: the ranges are of another model, or the float model is useless on this data.
        AccuracyError: the budget cannot be held; nothing is written.
    """
    if out.suffix != ".onnx":
        raise UsageError(f"{out}: expected a name that ends in .onnx")
    work = _Work(path, table, dataset, out, options, progress or _Silent())
    shots = Shots(), Shots()
    before = work.gate.baseline(path, on_sample=shots[0])
    least = main_value(before) * (1 - options.max_drop)
    methods = work.judge_methods()
    # among equals the one that single odd frames move least
    method = max(sorted(methods, key=PREFERENCE.index), key=lambda name: methods[name])
    must_search = methods[method] < least
    effects = work.scan(method) if must_search or options.ranks_layers else []
    trials: tuple[Trial, ...] = ()
    chosen = work.always_float
    if must_search:
        found = search_float_layers(lambda layers: work.measure(method, layers), effects, work.always_float, least)
        trials, chosen = found.trials, found.best.float_layers
    final = work.finished(method, chosen)
    after = work.judged(final, shots[1])
    if main_value(after) < least:
        raise AccuracyError(
            f"{path.name} as {options.flavour} INT8 has {after.main_metric} {main_value(after):.4f}, at least "
            f"{least:.4f} was asked for; allow more with --max-drop"
        )
    manifest = _write(final, out, work, method, chosen, before, after)
    work.memo.forget()
    scheme = work.scheme(method, chosen)
    return QuantizeResult(
        path, out, manifest, scheme, table, before, after, methods, effects, len(work.index.layers), trials, shots
    )


class _Work:
    """One quantization: the float model, the judge, and what must stay float."""

    def __init__(
        self, path: Path, table: RangeTable, dataset: Dataset, out: Path, options: QuantizeOptions, progress: Progress
    ) -> None:
        self.model = _at_opset(load_float_model(path), options, path)
        self.index = GraphIndex(self.model)
        self.manifest = find_manifest(path)
        self.table = table
        self.options = options
        self.progress = progress
        check_table(table, self.index, self.manifest.input, path.name)
        judged = unseen_part(dataset, table.frame_ids, table.dataset_sha256)
        self.gate = Gate(self.manifest, judged, threads=options.threads)
        self.always_float = default_float_layers(self.index) | options.float_layers
        identity = [self.index.fingerprint, table.sha256, judged.fingerprint, options.flavour, self.index.opset]
        self.memo = Memo(out.with_suffix(".trials.json"), content_hash(identity))

    def scheme(self, method: Method, float_layers: frozenset[str]) -> Scheme:
        return scheme_for(self.options.flavour, method, float_layers)

    def with_qdq(self, method: Method, float_layers: frozenset[str]) -> ModelProto:
        return insert_qdq(self.model, self.table, self.scheme(method, float_layers))

    def measure(self, method: Method, float_layers: frozenset[str]) -> float:
        """Accuracy with these layers in float; what an interrupted run measured is not measured again."""
        return self.memo.value(
            [method, sorted(float_layers)], lambda: main_value(self.judged(self.finished(method, float_layers)))
        )

    def judged(self, model: ModelProto, shots: Shots | None = None) -> Report:
        """Accuracy of a model as it will be written; typed ones run as written, because TensorRT will run them."""
        return self.gate.measure(model, is_exact=self.options.flavour in TYPED, on_sample=shots)

    def judge_methods(self) -> dict[Method, float]:
        """Accuracy by clip method."""
        wanted = METHODS if self.options.method == "auto" else (self.options.method,)
        step = self.progress.phase("clip methods", len(wanted))
        found: dict[Method, float] = {}
        for method in wanted:
            found[method] = self.measure(method, self.always_float)
            step()
        return found

    def scan(self, method: Method) -> list[LayerEffect]:
        """Effect of every layer alone."""
        everything = frozenset(layer.key for layer in self.index.layers)
        step = self.progress.phase("layer sensitivity", len(everything))
        return scan(
            self.model,
            self.table,
            lambda keys: self.with_qdq(method, everything - keys),
            self._scan_source(),
            threads=self.options.threads,
            step=step,
            remember=lambda key, measure: self.memo.value(["effect", method, key], measure),
        )

    def _scan_source(self) -> TensorSource:
        candidates = dataset_candidates(self.gate.dataset, seed=0)
        spec = self.manifest.input
        return choose_frames(candidates, spec, SCAN_FRAMES, origin=self.gate.dataset.name, min_frames=1).source()

    def finished(self, method: Method, float_layers: frozenset[str]) -> ModelProto:
        """The model as it will be written."""
        model = self.with_qdq(method, float_layers)
        return to_half(model, decode_tensors(self.model)) if self.options.flavour in TYPED else model


def _at_opset(model: ModelProto, options: QuantizeOptions, path: Path) -> ModelProto:
    least = MIN_TYPED_QDQ_OPSET if options.flavour in TYPED else MIN_QDQ_OPSET
    if options.opset and options.opset < least:
        raise UsageError(f"--opset {options.opset}: flavour {options.flavour} needs at least {least}")
    return with_opset(model, options.opset or max(opset_of(model), least), str(path))


def _write(
    model: ModelProto,
    out: Path,
    work: _Work,
    method: Method,
    float_layers: frozenset[str],
    before: Report,
    after: Report,
) -> Manifest:
    accuracy = dict(work.manifest.accuracy) | {"fp32": before.metrics, "int8": after.metrics}
    calibration = Calibration(
        method=method,
        num_frames=work.table.frames,
        frames_sha256=work.table.frames_sha256,
        ranges_sha256=work.table.sha256,
        float_layers=tuple(sorted(float_layers)),
    )
    update = {"name": out.stem, "precision": "int8", "accuracy": accuracy, "calibration": calibration}
    manifest = work.manifest.model_copy(update={**update, "sha256": ""})
    save_model(model, out, manifest)
    write_sidecar(manifest, out)
    return manifest


def save_model(model: ModelProto, out: Path, manifest: Manifest) -> None:
    """Write an ONNX file with its manifest in the metadata."""
    from edge.manifest import ONNX_KEY

    kept = [item for item in model.metadata_props if item.key != ONNX_KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    model.metadata_props.add(key=ONNX_KEY, value=manifest.to_json())
    with atomic_path(out) as temporary:
        onnx.save(model, temporary)
