"""How sure a figure is: the same figure on pictures drawn again from the judged ones (Efron 1979, the bootstrap).

P judged pictures, N detections, C classes, T overlaps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge.types import Bool, Float64, Int64

ROUNDS = 200
CONFIDENCE = 0.95
RECALLS = np.linspace(0, 1, 101)
# how often each picture counts, (P,) -> the main metrics
Redrawn = Callable[[Float64], dict[str, float]]


def draws(num_pictures: int, rounds: int = ROUNDS, seed: int = 0) -> Iterator[Float64]:
    """How often each picture was drawn, ``rounds`` times; the same for the same arguments, whatever the model."""
    rng = np.random.default_rng(seed)
    for _ in range(rounds):
        yield np.bincount(rng.integers(0, num_pictures, num_pictures), minlength=num_pictures).astype(np.float64)


def intervals(redrawn: Redrawn, num_pictures: int, confidence: float = CONFIDENCE) -> dict[str, tuple[float, float]]:
    """Metric → lower and upper edge between which it lies with this confidence."""
    found = [redrawn(weights) for weights in draws(num_pictures)]
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    edges = {name: np.quantile([values[name] for values in found], tails) for name in found[0]}
    return {name: (float(low), float(high)) for name, (low, high) in edges.items()}


@dataclass(frozen=True, slots=True)
class Drop:
    """What a smaller model loses on the same pictures, as a share of the larger one's figure.

    Attributes:
        value: measured.
        low, high: edges of the interval in which it lies with twice the one-sided confidence.
        edge: with this confidence no more than that is lost.
    """

    value: float
    low: float
    high: float
    edge: float


def drop_between(before: Redrawn, after: Redrawn, name: str, num_pictures: int, confidence: float = CONFIDENCE) -> Drop:
    """The drop of a metric from one model to another, both judged on the same pictures in the same order."""
    whole = np.ones(num_pictures)
    found = [1 - after(weights)[name] / max(before(weights)[name], 1e-9) for weights in draws(num_pictures)]
    low, high = np.quantile(found, [(1 - confidence) / 2, (1 + confidence) / 2])
    value = 1 - after(whole)[name] / max(before(whole)[name], 1e-9)
    return Drop(value, float(low), float(high), float(np.quantile(found, confidence)))


@dataclass(frozen=True, slots=True)
class _Ranked:
    """The detections of one class, best first. ``right``, ``counted`` (T, N); ``picture`` (N,); ``truth`` (P,)."""

    right: Bool
    counted: Bool
    picture: Int64
    truth: Float64


def redrawn_detections(judge: Any, num_pictures: int) -> Redrawn:
    """``map`` and ``map50`` of a finished ``COCOeval`` with pictures counted more or less often."""
    classes = [_ranked(judge, column, num_pictures) for column in range(len(judge.params.catIds))]

    def measure(weights: Float64) -> dict[str, float]:
        rows = [_precisions(one, weights) for one in classes]
        known = [row for row in rows if row is not None]
        if not known:
            return {"map": 0.0, "map50": 0.0}
        return {"map": float(np.mean(known)), "map50": float(np.mean([row[0] for row in known]))}

    return measure


def _ranked(judge: Any, column: int, num_pictures: int) -> _Ranked:
    # evaluated by class, then area range (the first is "all"), then picture
    start = column * len(judge.params.areaRng) * num_pictures
    limit = judge.params.maxDets[-1]
    right, counted, score, picture = [], [], [], []
    truth = np.zeros(num_pictures)
    for place, found in enumerate(judge.evalImgs[start : start + num_pictures]):
        if found is None:
            continue
        truth[place] = int((np.asarray(found["gtIgnore"]) == 0).sum())
        matched = np.asarray(found["dtMatches"])[:, :limit] > 0
        right.append(matched)
        counted.append(~np.asarray(found["dtIgnore"], bool)[:, :limit])
        score.append(np.asarray(found["dtScores"], np.float64)[:limit])
        picture.append(np.full(matched.shape[1], place))
    if not score:
        empty = np.zeros((len(judge.params.iouThrs), 0), bool)
        return _Ranked(empty, empty, np.zeros(0, np.int64), truth)
    order = np.argsort(-np.concatenate(score), kind="mergesort")
    parts = (np.concatenate(right, 1)[:, order], np.concatenate(counted, 1)[:, order], np.concatenate(picture)[order])
    return _Ranked(*parts, truth)


def _precisions(one: _Ranked, weights: Float64) -> Float64 | None:
    """(T,) average precision, as COCOeval accumulates it; None where no object was drawn."""
    objects = float((one.truth * weights).sum())
    if objects == 0:
        return None
    share = weights[one.picture]
    hits = np.cumsum((one.right & one.counted) * share, axis=1)
    misses = np.cumsum((~one.right & one.counted) * share, axis=1)
    precision = hits / np.maximum(hits + misses, 1e-12)
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    found = np.zeros(len(best))
    for row, (recall, values) in enumerate(zip(hits / objects, best, strict=True)):
        places = np.searchsorted(recall, RECALLS, side="left")
        inside = places < len(values)
        found[row] = values[places[inside]].sum() / len(RECALLS)
    return found


def redrawn_counts(counts: Sequence[Int64], judged: Sequence[int]) -> Redrawn:
    """``miou`` from one (C, C + 1) confusion matrix per picture."""
    stacked = np.stack(counts).astype(np.float64)
    rows = list(judged)

    def measure(weights: Float64) -> dict[str, float]:
        whole = np.tensordot(weights, stacked, 1)
        square = whole[:, :-1]
        union = (whole.sum(1) + square.sum(0) - square.diagonal())[rows]
        overlap = square.diagonal()[rows][union > 0] / union[union > 0]
        return {"miou": float(overlap.mean()) if len(overlap) else 0.0}

    return measure


def redrawn_hits(hits: Sequence[tuple[bool, bool]]) -> Redrawn:
    """``top1`` and ``top5`` from what was right in each picture."""
    table = np.asarray(hits, np.float64).reshape(-1, 2)

    def measure(weights: Float64) -> dict[str, float]:
        top1, top5 = (weights @ table) / max(weights.sum(), 1e-9)
        return {"top1": float(top1), "top5": float(top5)}

    return measure
