"""Float ONNX model in, INT8 model out: only with its measured accuracy next to it and inside the budget."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

import numpy as np
import onnx
from onnx import ModelProto

from calib.clipping import METHODS, Method
from calib.collect import Step, TensorSource
from calib.frames import FrameSet, choose_frames, dataset_candidates
from calib.graph import MIN_QDQ_OPSET, GraphIndex, load_float_model, opset_of, with_opset
from calib.ranges import RangeTable, check_table
from calib.sensitivity import LayerEffect, multiplications, scan
from edge.errors import AccuracyError, UsageError
from edge.files import atomic_path
from edge.model import find_manifest
from edge.models.manifest import Calibration, Manifest, content_hash, write_sidecar
from export.data.sample import Dataset
from export.evaluate.bootstrap import CONFIDENCE, Drop, drop_between
from export.evaluate.evaluate import Report
from export.quantize.budget import Figures
from export.quantize.cache import Memo
from export.quantize.fp16 import MIN_TYPED_QDQ_OPSET, decode_tensors, fp32_tensors, loud_tensors, to_half
from export.quantize.gate import EVERY, Gate, Part, Remembered, Shots, Verdict, main_value, unseen_part
from export.quantize.placement import default_float_layers
from export.quantize.qdq import Flavour, Scheme, insert_qdq, scheme_for
from export.quantize.search import Trial, search_float_layers

MethodChoice: TypeAlias = Method | Literal["auto"]
SCAN_FRAMES = 8
# a file in which more of the multiplications than this stay in float is INT8 in name only
MOST_FLOAT = 0.5
PREFERENCE: tuple[Method, ...] = ("average", "mse", "entropy", "percentile", "minmax")


@dataclass(frozen=True, slots=True)
class QuantizeOptions:
    """What is wanted.

    Attributes:
        flavour: see ``export.quantize.qdq.Scheme``.
        opset: of the written file; 0 keeps the model's, or the least that the flavour needs. TensorRT 8.6 wants 17.
        method: how ranges are clipped; ``auto`` measures all and takes the best (``Budget.rank``).
        max_drop: share of the float model's accuracy that may be lost, 0.01 = one percent of it.
        min_agreement: share of what the float model sees in footage that must stay.
        float_layers: keys of layers that must stay float, besides the last ones.
        threads: of ONNX Runtime.
        confidence: with which the drop must be inside ``max_drop``, on the two thirds of the pictures that methods
            and layers were not chosen on; 0 asks for the measured drop on all pictures only.
        allow_float: write a file even if most of the multiplications stayed in float.
        ranks_layers: measure every layer's effect for the report even where the budget holds without a search.
    """

    flavour: Flavour = "fp32"
    opset: int = 0
    method: MethodChoice = "auto"
    max_drop: float = 0.01
    min_agreement: float = 0.9
    float_layers: frozenset[str] = frozenset()
    threads: int = 1
    confidence: float = 0.0
    allow_float: bool = False
    ranks_layers: bool = True


@dataclass(frozen=True)
class QuantizeResult:
    """All that was measured, for the manifest and the report.

    Attributes:
        before: report of the float model.
        verdict: what was measured of the written one.
        methods: clip method → figures with only the last layers in float.
        effects: per layer, worst first; empty where they were not asked for or needed.
        num_layers: of the network.
        trials: of the mixed precision search; empty where it was not needed.
        shots: the same few pictures with what the float and the written model find in them.
        overflowing: tensor → largest magnitude, kept in FP32 for it; typed flavours only.
        loss: the drop with its interval; None where too few pictures were judged to draw them again.
        float_share: share of the multiplications that stayed in float.
    """

    path: Path
    out: Path
    manifest: Manifest
    scheme: Scheme
    table: RangeTable
    before: Report
    verdict: Verdict
    methods: Mapping[Method, Figures]
    effects: Sequence[LayerEffect]
    num_layers: int
    trials: Sequence[Trial] = ()
    shots: tuple[Shots, Shots] = field(default_factory=lambda: (Shots(), Shots()))
    overflowing: Mapping[str, float] = field(default_factory=dict)
    loss: Drop | None = None
    float_share: float = 0.0

    @property
    def after(self) -> Report:
        """Accuracy of the written model."""
        return self.verdict.report

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
    *,
    footage: FrameSet | None = None,
    reference: Path | None = None,
) -> QuantizeResult:
    """Quantize a model and write it with its manifest.

    Args:
        path: the float ONNX model.
        table: its ranges.
        dataset: labelled pictures to judge by; those that were used for calibration are left out.
        out: the ONNX file to write.
        footage: unlabelled frames of the place where the model will run; ``min_agreement`` holds for them.
        reference: the float model whose accuracy is to be kept; None for the one that is quantized.

    Raises:
        ModelError: the model cannot be used.
        DataError: the ranges are of another model, or the float model is useless on this data or footage.
        AccuracyError: the budget cannot be held; nothing is written.
    """
    if out.suffix != ".onnx":
        raise UsageError(f"{out}: expected a name that ends in .onnx")
    shots = Shots(), Shots()
    work = _Work(path, table, dataset, out, options, progress or _Silent(), footage, shots[0], reference)
    budget = work.gate.budget(options.max_drop, options.min_agreement)
    methods = work.judge_methods()
    # among equals the one that single odd frames move least
    method = max(sorted(methods, key=PREFERENCE.index), key=lambda name: budget.rank(methods[name]))
    must_search = not budget.holds(methods[method])
    effects = work.scan(method) if must_search or options.ranks_layers else []
    trials: tuple[Trial, ...] = ()
    chosen = work.always_float
    if must_search:
        found = search_float_layers(lambda layers: work.measure(method, layers), effects, work.always_float, budget)
        trials, chosen = found.trials, found.best.float_layers
    float_share = work.float_share(chosen)
    if float_share > MOST_FLOAT and not options.allow_float:
        raise AccuracyError(
            f"{path.name} as {options.flavour} INT8: the budget is held only with {float_share:.0%} of the "
            "multiplications in float, which is INT8 in name only; fine-tune it (edge qat), exchange its activations "
            "(edge export --activation relu), allow more with --max-drop, or ask for it with --allow-float"
        )
    final = work.finished(method, chosen)
    verdict = work.final_verdict(final, shots[1])
    budget = work.final_gate.budget(options.max_drop, options.min_agreement)
    if options.confidence == 0 and not budget.holds(verdict.figures):
        raise AccuracyError(
            f"{path.name} as {options.flavour} INT8: {budget.describe(verdict.figures)}; allow more with --max-drop or "
            "less with --min-agreement"
        )
    loss = loss_of(work.final_gate.before, verdict.report, options.confidence or CONFIDENCE)
    if options.confidence:
        check_edge(path, options, loss, work.final_gate.before.num_drawn)
    manifest = _write(final, out, work, method, chosen, verdict)
    work.memo.forget()
    scheme = work.scheme(method, chosen)
    num_layers, before = len(work.index.layers), work.final_gate.before
    return QuantizeResult(
        path, out, manifest, scheme, table, before, verdict, methods, effects, num_layers, trials, shots, work.loud,
        loss, float_share,
    )  # fmt: skip


def loss_of(before: Report, after: Report, confidence: float) -> Drop | None:
    """The drop of the main metric with its interval; None where there is nothing to draw again."""
    if before.redrawn is None or after.redrawn is None or before.num_drawn < 2:
        return None
    if before.main_metric not in before.redrawn(np.ones(before.num_drawn)):
        # masks and key points are judged once, on all pictures
        return None
    return drop_between(before.redrawn, after.redrawn, before.main_metric, before.num_drawn, confidence)


def check_edge(path: Path, options: QuantizeOptions, loss: Drop | None, num_pictures: int) -> None:
    """The drop must be inside the budget even at the edge of its interval.

    Raises:
        AccuracyError: it is not; the message says how many pictures could tell.
    """
    if loss is not None and loss.edge <= options.max_drop:
        return
    found = "no interval" if loss is None else f"a drop of {loss.value:+.2%}, at worst {loss.edge:+.2%}"
    advice = "allow more with --max-drop, leave more layers in float (--float-layer), fine-tune (edge qat)"
    if loss is not None and loss.value < options.max_drop:
        # the width of an interval shrinks with the root of the number of pictures
        needed = num_pictures * ((loss.edge - loss.value) / (options.max_drop - loss.value)) ** 2
        # only EVERY - 1 pictures of EVERY judge
        given, wanted = (math.ceil(count * EVERY / (EVERY - 1)) for count in (num_pictures, needed))
        advice = f"judge on about {wanted} pictures instead of {given}, or {advice}"
    raise AccuracyError(
        f"{path.name} as {options.flavour} INT8: {found} with a confidence of {options.confidence:.0%} on the "
        f"{num_pictures} pictures that nothing was chosen on, at most {options.max_drop:.2%} is wanted; {advice}"
    )


class _Work:
    """One quantization: the float model, the judge, and what must stay float."""

    def __init__(
        self,
        path: Path,
        table: RangeTable,
        dataset: Dataset,
        out: Path,
        options: QuantizeOptions,
        progress: Progress,
        footage: FrameSet | None,
        shots: Shots,
        reference: Path | None,
    ) -> None:
        self.model = _at_opset(load_float_model(path), options, path)
        self.index = GraphIndex(self.model)
        self.manifest = find_manifest(path)
        self.table = table
        self.options = options
        self.progress = progress
        check_table(table, self.index, self.manifest.input, path.name)
        judged = unseen_part(Remembered(dataset), table)
        kept, own = (path, None) if reference is None else (reference, find_manifest(reference))
        if options.confidence:
            judged, sealed = Part(judged, is_chosen_on=True), Part(judged, is_chosen_on=False)
            self.final_gate = Gate(kept, self.manifest, sealed, footage=footage, threads=options.threads, own=own)
        self.gate = Gate(
            kept, self.manifest, judged, footage=footage, threads=options.threads, on_sample=shots, own=own
        )
        if not options.confidence:
            self.final_gate = self.gate
        self.loud = loud_tensors(self.index, table) if options.flavour == "fp16" else {}
        self.always_float = default_float_layers(self.index, table) | options.float_layers
        filmed = [footage.origin, *footage.frame_ids] if footage else []
        identity = [self.index.fingerprint, table.sha256, judged.fingerprint, options.flavour, self.index.opset, filmed]
        self.memo = Memo(out.with_suffix(".trials.json"), content_hash(identity))

    def scheme(self, method: Method, float_layers: frozenset[str]) -> Scheme:
        return scheme_for(self.options.flavour, method, float_layers)

    def with_qdq(self, method: Method, float_layers: frozenset[str]) -> ModelProto:
        return insert_qdq(self.model, self.table, self.scheme(method, float_layers))

    def measure(self, method: Method, float_layers: frozenset[str]) -> Figures:
        """Figures with these layers in float; what an interrupted run measured is not measured again."""
        return Figures(
            *self.memo.value(
                [method, sorted(float_layers)],
                lambda: astuple(self.judged(self.finished(method, float_layers)).figures),
            )
        )

    def judged(self, model: ModelProto, shots: Shots | None = None) -> Verdict:
        """Measures a model as it will be written; typed ones run as written, because TensorRT will run them."""
        return self.gate.judge(model, is_exact=self.options.flavour == "fp16", on_sample=shots)

    def final_verdict(self, model: ModelProto, shots: Shots) -> Verdict:
        """As ``judged``, on the pictures that nothing was chosen on where a confidence is asked for."""
        return self.final_gate.judge(model, is_exact=self.options.flavour == "fp16", on_sample=shots)

    def float_share(self, float_layers: frozenset[str]) -> float:
        """Share of the multiplications of one frame that stay in float."""
        macs = multiplications(self.index, self.table)
        return sum(macs[key] for key in float_layers if key in macs) / max(1, sum(macs.values()))

    def judge_methods(self) -> dict[Method, Figures]:
        """Figures by clip method."""
        wanted = METHODS if self.options.method == "auto" else (self.options.method,)
        step = self.progress.phase("clip methods", len(wanted))
        found: dict[Method, Figures] = {}
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
        if self.options.flavour != "fp16":
            return model
        return to_half(model, decode_tensors(self.model) | fp32_tensors(model, self.loud))


def _at_opset(model: ModelProto, options: QuantizeOptions, path: Path) -> ModelProto:
    least = MIN_TYPED_QDQ_OPSET if options.flavour == "fp16" else MIN_QDQ_OPSET
    if options.opset and options.opset < least:
        raise UsageError(f"--opset {options.opset}: flavour {options.flavour} needs at least {least}")
    return with_opset(model, options.opset or max(opset_of(model), least), str(path))


def _write(
    model: ModelProto,
    out: Path,
    work: _Work,
    method: Method,
    float_layers: frozenset[str],
    verdict: Verdict,
) -> Manifest:
    after = verdict.report.metrics | {"agreement": verdict.agreement}
    if verdict.footage is not None:
        after["footage_agreement"] = verdict.footage.share
    accuracy = dict(work.manifest.accuracy) | {"fp32": work.final_gate.before.metrics, "int8": after}
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
    from edge.models.manifest import ONNX_KEY

    kept = [item for item in model.metadata_props if item.key != ONNX_KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    model.metadata_props.add(key=ONNX_KEY, value=manifest.to_json())
    with atomic_path(out) as temporary:
        onnx.save(model, temporary)
