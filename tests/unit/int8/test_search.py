"""Mixed precision leaves the fewest layers in float that the budget needs, or says what they cost."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calib.sensitivity import LayerEffect
from edge.errors import AccuracyError
from export.memo import Memo
from export.search import search_float_layers


def effects(count: int) -> list[LayerEffect]:
    return [LayerEffect(f"w{place}", "Conv", (8, 8, 3, 3), 10.0 + place, 1000 * (place + 1)) for place in range(count)]


@settings(max_examples=60, deadline=None)
@given(count=st.integers(1, 40), data=st.data())
def test_the_fewest_of_the_ranked_layers_are_freed(count: int, data: st.DataObject) -> None:
    needed = data.draw(st.integers(0, count))
    calls = 0

    def measure(layers: frozenset[str]) -> float:
        nonlocal calls
        calls += 1
        return 1.0 if {f"w{place}" for place in range(needed)} <= layers else 0.0

    found = search_float_layers(measure, effects(count), frozenset({"head"}), 0.9, max_pruning=3)
    assert found.best.float_layers == {"head", *(f"w{place}" for place in range(needed))}
    assert found.best.metric == 1.0
    # doubling, bisection and three prunings; never one try per layer
    assert calls <= 2 * count.bit_length() + 6


def test_a_freed_layer_that_does_not_help_goes_back_to_int8() -> None:
    found = search_float_layers(lambda layers: float({"w0", "w2"} <= layers), effects(6), frozenset(), 1.0)
    assert found.best.float_layers == {"w0", "w2"}


def test_a_budget_that_cannot_be_held_names_the_worst_layers() -> None:
    with pytest.raises(AccuracyError, match=r"INT8 gives 0\.1000 .* at least 0\.9000 .* cost most: w0 \(10 dB\), w1"):
        search_float_layers(lambda _: 0.1, effects(8), frozenset({"head"}), 0.9)


def test_layers_that_are_always_float_are_never_blamed() -> None:
    with pytest.raises(AccuracyError, match=r"cost most: w1 \(11 dB\)"):
        search_float_layers(lambda _: 0.1, effects(3), frozenset({"w0"}), 0.9)


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
