"""Mixed precision leaves the fewest layers in float that the budget needs, or says what they cost."""

from __future__ import annotations

from pathlib import Path

import pytest
from effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from calib.sensitivity import LayerEffect
from edge.errors import AccuracyError
from export.quantize.budget import Budget, Figures
from export.quantize.cache import Memo
from export.quantize.search import search_float_layers


def accuracy(value: float) -> Figures:
    return Figures(value, agreement=1.0)


def at_least(value: float) -> Budget:
    return Budget("map", value)


def effects(count: int) -> list[LayerEffect]:
    return [LayerEffect(f"w{place}", "Conv", (8, 8, 3, 3), 10.0 + place, 1000 * (place + 1)) for place in range(count)]


@settings(max_examples=examples(60), deadline=None)
@given(count=st.integers(1, 40), data=st.data())
def test_the_fewest_of_the_ranked_layers_are_freed(count: int, data: st.DataObject) -> None:
    needed = data.draw(st.integers(0, count))
    calls = 0

    def measure(layers: frozenset[str]) -> Figures:
        nonlocal calls
        calls += 1
        return accuracy(1.0 if {f"w{place}" for place in range(needed)} <= layers else 0.0)

    found = search_float_layers(measure, effects(count), frozenset({"head"}), at_least(0.9), max_pruning=3)
    assert found.best.float_layers == {"head", *(f"w{place}" for place in range(needed))}
    assert found.best.figures.metric == 1.0
    # doubling, bisection and three prunings; never one try per layer
    assert calls <= 2 * count.bit_length() + 6


def test_a_freed_layer_that_does_not_help_goes_back_to_int8() -> None:
    def measure(layers: frozenset[str]) -> Figures:
        return accuracy({"w0", "w2"} <= layers)

    found = search_float_layers(measure, effects(6), frozenset(), at_least(1.0))
    assert found.best.float_layers == {"w0", "w2"}


def test_a_budget_that_cannot_be_held_names_the_worst_layers() -> None:
    with pytest.raises(AccuracyError, match=r"INT8: map 0\.1000 \(at least 0\.9000 .* cost most: w0 \(10 dB\), w1"):
        search_float_layers(lambda _: accuracy(0.1), effects(8), frozenset({"head"}), at_least(0.9))


def test_layers_are_freed_until_the_footage_is_seen_alike_too() -> None:
    def measure(layers: frozenset[str]) -> Figures:
        return Figures(metric=1.0, agreement=1.0, on_footage=0.95 if "w2" in layers else 0.5)

    found = search_float_layers(measure, effects(6), frozenset(), Budget("map", 0.9, on_footage=0.9))
    assert found.best.float_layers == {"w2"}
    with pytest.raises(AccuracyError, match=r"sees 50\.0% of the footage as float does \(at least 99\.0%\)"):
        search_float_layers(measure, effects(2), frozenset(), Budget("map", 0.9, on_footage=0.99))


def test_inside_the_budget_what_sees_as_float_does_is_best_and_outside_what_is_nearest() -> None:
    budget = Budget("map", 0.4, on_footage=0.9)
    inside = [Figures(0.41, 0.97, 0.91), Figures(0.45, 0.93, 0.95)]
    outside = [Figures(0.5, 0.99, 0.5), Figures(0.39, 0.8, 0.95), Figures(0.3, 0.99, 0.99)]
    ranked = sorted([*outside, *inside], key=budget.rank, reverse=True)
    assert ranked == [inside[1], inside[0], outside[1], outside[2], outside[0]]


def test_layers_that_are_always_float_are_never_blamed() -> None:
    with pytest.raises(AccuracyError, match=r"cost most: w1 \(11 dB\)"):
        search_float_layers(lambda _: accuracy(0.1), effects(3), frozenset({"w0"}), at_least(0.9))


def test_measurements_survive_an_interrupted_run_and_nothing_else(tmp_path: Path) -> None:
    calls: list[str] = []

    def measured(memo: Memo, name: str) -> float:
        return memo.value([name], lambda: calls.append(name) or float(len(calls)))  # type: ignore[func-returns-value]

    path = tmp_path / "m.trials.json"
    assert measured(Memo(path, "a"), "x") == 1.0
    again = Memo(path, "a")
    assert (measured(again, "x"), measured(again, "y")) == (1.0, 2.0)
    assert measured(Memo(path, "other ranges"), "x") == 3.0
    again.forget()
    assert not path.exists()
