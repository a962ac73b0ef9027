"""Histograms keep what calibration needs, in fixed memory, and merge exactly; clip points follow their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from calib.clipping import METHODS, Method, clip_range
from calib.observers import NUM_BINS, TensorObserver

Values = NDArray[np.float32]
finite = st.floats(-1e4, 1e4, width=32)
tensors = arrays(np.float32, st.integers(1, 200), elements=finite)


def observed(*frames: Values) -> TensorObserver:
    seen = TensorObserver()
    for frame in frames:
        seen.observe(frame)
    return seen


@settings(max_examples=examples(30), deadline=None)
@given(st.lists(tensors, min_size=1, max_size=5))
def test_every_value_is_counted_and_the_extremes_are_exact(frames: list[Values]) -> None:
    seen = observed(*frames)
    assert int(seen.bins.sum()) == sum(frame.size for frame in frames)
    assert seen.low == min(float(frame.min()) for frame in frames)
    assert seen.high == max(float(frame.max()) for frame in frames)
    assert len(seen.bins) == NUM_BINS


@settings(max_examples=examples(30), deadline=None)
@given(st.lists(tensors, min_size=1, max_size=3), st.lists(tensors, min_size=1, max_size=3))
def test_merging_two_runs_gives_what_one_run_would_have_given(first: list[Values], second: list[Values]) -> None:
    merged, whole = observed(*first).merge(observed(*second)), observed(*first, *second)
    assert merged.exponent == whole.exponent
    np.testing.assert_array_equal(merged.bins, whole.bins)
    assert (merged.low, merged.high, merged.frames, merged.zeros) == (whole.low, whole.high, whole.frames, whole.zeros)


def test_growing_keeps_earlier_counts_in_the_right_place() -> None:
    seen = observed(np.full(10, 0.9, np.float32), np.full(5, -700, np.float32))
    centres = seen.centres[seen.bins > 0]
    width = 2.0 ** (seen.exponent + 1) / NUM_BINS
    assert np.abs(centres - [-700, 0.9]).max() <= width


@settings(max_examples=examples(30), deadline=None)
@given(st.lists(tensors, min_size=1, max_size=4), st.sampled_from(METHODS))
def test_a_clip_range_lies_inside_the_observed_one_and_contains_zero(frames: list[Values], method: Method) -> None:
    seen = observed(*frames)
    low, high = clip_range(seen, method)
    slack = 2.0 ** (seen.exponent + 1) / NUM_BINS
    assert min(seen.low, 0) - slack <= low <= 0 <= high <= max(seen.high, 0) + slack


def test_minmax_covers_all_values() -> None:
    assert clip_range(observed(np.array([-2, 7], np.float32)), "minmax") == (-2, 7)


def test_the_average_is_moved_little_by_one_odd_frame() -> None:
    frames = [np.array([-1, 1], np.float32)] * 99 + [np.array([-100, 100], np.float32)]
    assert clip_range(observed(*frames), "average") == pytest.approx((-1.99, 1.99))


def test_the_percentile_leaves_the_asked_share_outside() -> None:
    values = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)
    low, high = clip_range(observed(values), "percentile", percentile=99)
    assert low == pytest.approx(np.quantile(values, 0.01), abs=0.01)
    assert high == pytest.approx(np.quantile(values, 0.99), abs=0.01)


# for mse, 50 is where two clipped values cost what finer steps for 100,000 others gain
@pytest.mark.parametrize(("method", "limit"), [("entropy", 20), ("mse", 50), ("percentile", 20)])
def test_lone_outliers_are_clipped(method: Method, limit: float) -> None:
    values = np.random.default_rng(1).standard_normal(100_000).astype(np.float32)
    values[:2] = 60, -60
    _, high = clip_range(observed(values), method)
    assert 2.5 < high < limit


def test_entropy_is_not_minmax_in_disguise() -> None:
    values = np.random.default_rng(2).laplace(size=200_000).astype(np.float32)
    seen = observed(values)
    assert clip_range(seen, "entropy")[1] < 0.9 * clip_range(seen, "minmax")[1]


def test_mse_is_near_the_best_threshold_found_by_brute_force() -> None:
    values = np.random.default_rng(3).laplace(size=50_000).astype(np.float32)

    def error(threshold: float) -> float:
        step = threshold / 127
        return float(np.square(values - np.clip(np.round(values / step), -128, 127) * step).mean())

    best = min(error(threshold) for threshold in np.linspace(1, np.abs(values).max(), 200))
    assert error(max(np.abs(clip_range(observed(values), "mse")))) <= 1.05 * best


@pytest.mark.parametrize("method", METHODS)
def test_a_uniform_tensor_keeps_nearly_its_whole_range(method: Method) -> None:
    values = np.random.default_rng(4).uniform(0, 1, 100_000).astype(np.float32)
    assert clip_range(observed(values), method)[1] > 0.9


def test_large_tensors_are_sampled_but_their_extremes_are_exact() -> None:
    values = np.zeros(1_000_000, np.float32)
    values[123_457] = 5
    seen = observed(values)
    assert seen.high == 5
    assert seen.bins.sum() < 200_000


def test_nan_and_infinity_are_counted_and_left_out() -> None:
    seen = observed(np.array([1, np.nan, np.inf, -2], np.float32))
    assert seen.not_finite == 2
    assert (seen.low, seen.high) == (-2, 1)


def test_nothing_observed_is_an_error() -> None:
    with pytest.raises(ValueError, match="no values"):
        clip_range(TensorObserver(), "minmax")
