"""Changing a model while cameras run: trial, loading, shadow run, take-over between two batches, probation.

Whatever goes wrong on the way keeps or brings back the old model, and the report says why. No frame is lost: the frames
on which a new model fails are seen by the old one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from edge.errors import ModelError
from edge.model import Model, load_model
from edge.models.checks import check_outputs, check_sane
from edge.pipeline.inference import FAULTS, Probation, Tap
from edge.pipeline.swap.agreement import Agreement, Comparison
from edge.pipeline.swap.class_mapping import MappedHead, check_points, mapping_table
from edge.pipeline.swap.report import Outcome, Phase, SwapReport
from edge.pipeline.swap.shadow import Judge, ShadowBatch, ShadowTap
from edge.pipeline.swap.trial import check_golden, golden_frames, try_model

if TYPE_CHECKING:
    from edge.config.daemon import SwapSettings
    from edge.config.schema import ModelSettings
    from edge.types import Frame

log = logging.getLogger(__name__)
TAKE_OVER_TIMEOUT_S = 10.0
POLL_S = 0.05
# below this a model is fast enough whatever the old one took: clocks and other threads make more noise than that
FAST_ENOUGH_MS = 5.0
# share of a frame's objects below which both models see hardly the same
DISAGREEMENT = 0.5


class InferencePort(Protocol):
    """What a swap needs of the pipeline."""

    def replace(self, name: str, model: Model, probation: Probation | None, timeout_s: float) -> bool: ...

    def watch(self, name: str, tap: Tap | None) -> None: ...


@dataclass(frozen=True, slots=True)
class Order:
    """What shall be changed into what.

    Attributes:
        config: of the model that runs.
        path: of the new file.
        renamed: new class name → old class name; an empty old name leaves the class out.
        has_trial: whether the golden frames run in a process of their own first.
        rehearse: runs the clip tests; raises EdgeError where something expected is lost.
        on_disagreement: told of a live frame in which both models hardly see the same.
    """

    config: ModelSettings
    path: Path
    renamed: Mapping[str, str]
    has_trial: bool = True
    rehearse: Callable[[], None] = lambda: None
    on_disagreement: Callable[[Frame], None] = lambda frame: None


class Swap:
    """One swap; ``run`` it once, in a thread of its own. The caller closes ``retired`` when the pipeline has ended."""

    def __init__(
        self,
        order: Order,
        old: Model,
        inference: InferencePort,
        settings: SwapSettings,
        stopping: threading.Event,
        on_phase: Callable[[Phase], None] = lambda phase: None,
    ) -> None:
        """Args: what to do, the model that runs, where it runs, the rules, what ends it early, who is told."""
        self._order = order
        self._old = old
        self._inference = inference
        self._settings = settings
        self._stopping = stopping
        self._on_phase = on_phase
        self._phase: Phase = "load"
        self._new: Model | None = None
        self._failure: Exception | None = None
        self._failed = threading.Event()
        self._has_taken_over = False
        self._agreement: Agreement | None = None
        self._times_ms = (0.0, 0.0)

    def run(self) -> tuple[SwapReport, Model]:
        """Do it; the report, and the model that runs now. The other one is closed."""
        started = time.monotonic()
        outcome: Outcome = "refused"
        reason = ""
        try:
            self._prepare()
            self._take_over()
            outcome = "kept"
        except FAULTS as error:
            reason = str(error) or type(error).__name__
            outcome = "rolled back" if self._has_taken_over else "refused"
        report = SwapReport(
            self._order.config.name,
            str(self._order.path),
            outcome,
            reason,
            self._phase,
            self._agreement,
            round(self._times_ms[0], 3),
            round(self._times_ms[1], 3),
            round(time.monotonic() - started, 3),
        )
        return report, self._finish(report)

    def _finish(self, report: SwapReport) -> Model:
        if report.outcome == "kept":
            assert self._new is not None
            log.info("%s: runs %s now", report.model, self._order.path.name)
            self._old.close()
            return self._new
        log.error("%s: %s was %s in phase %s: %s", report.model, self._order.path.name, *_verdict(report))
        if self._new is not None:
            self._new.close()
        return self._old

    def _enter(self, phase: Phase) -> None:
        if self._stopping.is_set():
            raise ModelError("the daemon stops")
        self._phase = phase
        self._on_phase(phase)
        log.debug("%s: swap: %s", self._order.config.name, phase)

    def _prepare(self) -> None:
        config, path = self._order.config, self._order.path
        if self._order.has_trial:
            self._enter("trial")
            timeout_s = self._settings.trial_timeout_s
            try_model(path, manifest=None, engine=config.engine, threads=config.threads, timeout_s=timeout_s)
        self._enter("tests")
        self._order.rehearse()
        self._enter("load")
        # no trial while cameras run: the new model takes the batches of the old one
        max_batch = config.max_batch or (None if self._old.engine.is_fixed_batch else self._old.engine.max_batch)
        update = {"path": path, "manifest": None, "max_batch": max_batch}
        new = load_model(config.model_copy(update=update), is_ahead=True)
        self._new = new
        if new.manifest.task != self._old.manifest.task:
            raise ModelError(f"{path.name} is made to {new.manifest.task}, expected {self._old.manifest.task}")
        check_points(self._old.manifest, new.manifest)
        table = mapping_table(self._old.manifest.classes, new.manifest.classes, self._order.renamed)
        self._enter("golden")
        check_golden(new, golden_frames())
        if table is not None:
            classes = self._old.manifest.classes
            new.head = MappedHead(new.head, table, len(classes))
            new.manifest = new.manifest.model_copy(update={"classes": classes})
        self._enter("shadow")
        self._shadow(new)

    def _shadow(self, new: Model) -> None:
        """Let the new model see live frames; nothing of it comes out."""
        num_wanted = self._settings.shadow_frames
        if not num_wanted:
            return
        tap = ShadowTap()
        comparison = Comparison(self._old.manifest.thresholds.score)
        old_ms: list[float] = []
        new_ms: list[float] = []
        deadline = time.monotonic() + self._settings.shadow_timeout_s
        self._inference.watch(self._order.config.name, tap.offer)
        try:
            while len(new_ms) == 0 or comparison.result().num_frames < num_wanted:
                batch = tap.take(POLL_S)
                if self._stopping.is_set():
                    raise ModelError("the daemon stops")
                if time.monotonic() > deadline:
                    raise ModelError(_too_few(comparison.result().num_frames, num_wanted, self._settings))
                if batch is not None:
                    old_ms.append(batch.infer_ns / 1e6)
                    new_ms.append(self._compare(new, batch, comparison))
        finally:
            self._inference.watch(self._order.config.name, None)
        self._agreement = comparison.result()
        # the first batch warms caches and threads
        self._times_ms = float(np.median(old_ms[1:] or old_ms)), float(np.median(new_ms[1:] or new_ms))
        self._judge(self._agreement)

    def _compare(self, new: Model, batch: ShadowBatch, comparison: Comparison) -> float:
        """Milliseconds per frame of the new engine."""
        started_ns = time.monotonic_ns()
        predictions = new.predict([frame.planes for frame in batch.frames], check_outputs)
        spent_ms = (time.monotonic_ns() - started_ns) / 1e6 / len(batch.frames)
        for frame, old, found in zip(batch.frames, batch.predictions, predictions, strict=True):
            check_sane(found, len(self._old.manifest.classes))
            if comparison.add(old, found) < DISAGREEMENT:
                self._order.on_disagreement(frame)
        return spent_ms

    def _judge(self, agreement: Agreement) -> None:
        if agreement.share < self._settings.min_agreement:
            raise ModelError(
                f"both models agree on {agreement.share:.0%} of what they saw in {agreement.num_frames} live frames "
                f"({agreement.num_old} and {agreement.num_new} objects), expected at least "
                f"{self._settings.min_agreement:.0%}"
            )
        old_ms, new_ms = self._times_ms
        if new_ms > self._limit_ms(old_ms):
            raise ModelError(
                f"it takes {new_ms:.1f} ms per frame where the old one takes {old_ms:.1f} ms, "
                f"expected at most {self._settings.max_slowdown:g} times as much"
            )

    def _limit_ms(self, old_ms: float) -> float:
        return max(FAST_ENOUGH_MS, old_ms * self._settings.max_slowdown)

    def _take_over(self) -> None:
        assert self._new is not None
        name = self._order.config.name
        self._enter("take over")
        judge = Judge(len(self._old.manifest.classes), self._limit_ms(max(self._times_ms)))
        probation = Probation(self._old, judge, self._on_failure)
        if not self._inference.replace(name, self._new, probation, TAKE_OVER_TIMEOUT_S):
            raise ModelError(f"inference did not come to the end of a batch within {TAKE_OVER_TIMEOUT_S:g} s")
        self._has_taken_over = True
        self._enter("probation")
        deadline = time.monotonic() + self._settings.probation_s
        while not self._failed.is_set() and not self._stopping.is_set():
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                break
            self._failed.wait(min(left_s, POLL_S))
        # also where it failed: after this no batch uses the model that is closed
        self._inference.replace(name, self._old if self._failure else self._new, None, TAKE_OVER_TIMEOUT_S)
        if self._failure is not None:
            raise self._failure

    def _on_failure(self, error: Exception) -> None:
        self._failure = error
        self._failed.set()


def _verdict(report: SwapReport) -> tuple[str, str, str]:
    return report.outcome, report.phase, report.reason


def _too_few(num_seen: int, num_wanted: int, settings: SwapSettings) -> str:
    return (
        f"only {num_seen} of {num_wanted} live frames came within {settings.shadow_timeout_s:g} s; "
        "are the cameras on? swap.shadow_frames = 0 does without"
    )
