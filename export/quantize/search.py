"""Mixed precision: leave as few layers in float as the accuracy budget allows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from calib.sensitivity import LayerEffect
from edge.errors import AccuracyError
from export.quantize.budget import Budget, Figures

log = logging.getLogger(__name__)

Measure = Callable[[frozenset[str]], Figures]
MAX_PRUNING = 8


@dataclass(frozen=True, slots=True)
class Trial:
    """One measured choice. Attributes: ``float_layers`` left in float, ``figures`` what that gave."""

    float_layers: frozenset[str]
    figures: Figures


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The choice that holds the budget, and all that was measured on the way to it."""

    best: Trial
    trials: tuple[Trial, ...]


def search_float_layers(
    measure: Measure,
    effects: Sequence[LayerEffect],
    always_float: frozenset[str],
    budget: Budget,
    *,
    max_pruning: int = MAX_PRUNING,
) -> SearchResult:
    """Find the fewest layers to leave in float so that what ``measure`` gives is inside the budget.

    Layers are freed in the order of their harm: 1, 2, 4, … until the budget holds, then bisection; at last the most
    expensive of the freed ones are tried in INT8 again.

    Args:
        measure: float layers → figures; costly.
        effects: worst first.
        always_float: stay float in every trial.
        max_pruning: how many freed layers are tried again.

    Raises:
        AccuracyError: even with all of them in float the budget does not hold.
    """
    trials: list[Trial] = []
    effects = [effect for effect in effects if effect.key not in always_float]
    order = [effect.key for effect in effects]

    def attempt(freed: frozenset[str]) -> bool:
        trials.append(Trial(always_float | freed, measure(always_float | freed)))
        log.info("%d layers in float: %s", len(freed), budget.describe(trials[-1].figures))
        return budget.holds(trials[-1].figures)

    count = _fewest(lambda number: attempt(frozenset(order[:number])), len(order))
    if count is None:
        raise AccuracyError(_blame(effects, trials, budget))
    kept = frozenset(order[:count])
    costs = {effect.key: effect.macs for effect in effects}
    # a layer freed last is what made the budget hold, so it is not tried again
    for key in sorted(order[: max(count - 1, 0)], key=lambda key: -costs[key])[:max_pruning]:
        if attempt(kept - {key}):
            kept = kept - {key}
    best = next(trial for trial in reversed(trials) if trial.float_layers == always_float | kept)
    return SearchResult(best, tuple(trials))


def _fewest(holds: Callable[[int], bool], limit: int) -> int | None:
    """The smallest number for which ``holds``, taking it for monotonous; None if not even ``limit`` does."""
    if holds(0):
        return 0
    low, high = 0, 1
    while high < limit and not holds(high):
        low, high = high, high * 2
    if high >= limit:
        high = limit
        if limit == 0 or not holds(limit):
            return None
    while high - low > 1:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle
    return high


def _blame(effects: Sequence[LayerEffect], trials: Sequence[Trial], budget: Budget) -> str:
    best = max((trial.figures for trial in trials), key=budget.rank)
    worst = ", ".join(f"{effect.key} ({effect.snr_db:.0f} dB)" for effect in effects[:5])
    return (
        f"INT8: {budget.describe(trials[0].figures)}; mixed precision: {budget.describe(best)}; "
        f"the layers that cost most: {worst}; calibrate with more varied frames, allow more with --max-drop "
        "(or less with --min-agreement), or fine-tune with quantization"
    )
