"""The laws of the tests and intervals behind the verdicts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dropout_lab.verdict.statistics import (
    bootstrap_interval,
    holm,
    interval,
    over_last_axis,
    p_equal,
    p_greater,
    p_less,
    smallest_p,
)

few = settings(max_examples=15, deadline=None)
numbers = st.lists(st.integers(-50, 50).map(float), min_size=1, max_size=8)  # whole numbers: sums are exact
p_values = st.lists(st.floats(0, 1), min_size=1, max_size=12)


def by_hand(values):
    """Part of all sign patterns whose sum is at least the one that was seen."""
    signs = np.array(np.meshgrid(*[[1, -1]] * len(values))).reshape(len(values), -1)
    return float((signs.T @ np.array(values) >= sum(values)).mean())


@few
@given(numbers)
def test_the_p_value_is_the_part_of_sign_patterns_that_are_as_extreme(values):
    assert p_greater(values) == pytest.approx(by_hand(values))


def test_differences_of_one_sign_reach_the_smallest_p():
    for n in (1, 5, 8):
        assert p_greater([0.5 + 0.1 * k for k in range(n)]) == pytest.approx(smallest_p(n)) == pytest.approx(2.0**-n)
        assert p_greater([-0.5 - 0.1 * k for k in range(n)]) == 1


@few
@given(numbers, st.sampled_from([0.25, 4.0, 1024.0]))
def test_p_does_not_depend_on_unit_or_order(values, unit):
    assert p_greater([unit * value for value in values[::-1]]) == pytest.approx(p_greater(values))


@few
@given(numbers, st.integers(-5, 5))
def test_less_is_greater_of_the_negative(values, than):
    assert p_less(values, than) == p_greater([-value for value in values], -than)


def test_symmetric_differences_give_p_values_that_are_not_too_small():
    """Under the null hypothesis P(p <= a) <= a, and close to it."""
    rng = np.random.default_rng(0)
    found = np.array([p_greater(rng.standard_t(3, size=7)) for _ in range(200)])
    for level in (0.05, 0.25, 0.5):
        assert (found <= level).mean() == pytest.approx(level, abs=3.5 * (level * (1 - level) / 200) ** 0.5)


def test_many_pairs_use_random_patterns_that_are_the_same_each_time():
    values = np.random.default_rng(1).normal(0.3, 1, 17)
    assert p_greater(values) == p_greater(values)
    assert p_greater(values) == pytest.approx(by_hand(values), abs=0.003)


def test_no_pairs_show_nothing():
    assert p_greater([]) == p_less([]) == p_equal([], 1.0) == smallest_p(0) == 1


def test_equality_has_to_be_shown_against_both_margins():
    near = [0.001, -0.002, 0.003, 0.0, -0.001, 0.002]
    assert p_equal(near, 0.01) == 2.0**-6
    assert p_equal([value + 0.02 for value in near], 0.01) == 1
    assert p_equal([value - 0.02 for value in near], 0.01) == 1
    assert p_equal([0.0] * 6, 0.01) == 2.0**-6  # equal bit for bit
    assert p_equal([0.5, -0.5, 0.4, -0.4, 0.3, -0.3], 0.01) > 0.3  # a mean of zero alone is no evidence


def test_the_interval_holds_the_mean_and_narrows_with_the_spread():
    values = np.random.default_rng(2).normal(1, 1, 12)
    low, high = bootstrap_interval(values)
    assert low < values.mean() < high
    narrow = bootstrap_interval(1 + (values - 1) / 10)
    assert narrow[1] - narrow[0] == pytest.approx((high - low) / 10, rel=1e-3)
    assert bootstrap_interval(values) == (low, high)


def test_an_interval_needs_two_values_that_differ():
    assert np.isnan(bootstrap_interval([1.0])).all()
    assert bootstrap_interval([0.25] * 5) == (0.25, 0.25)


def test_the_interval_covers_the_true_mean_about_as_often_as_it_says(monkeypatch):
    monkeypatch.setattr("dropout_lab.verdict.statistics.RESAMPLES", 500)
    rng = np.random.default_rng(3)
    covered = []
    for _ in range(100):
        low, high = bootstrap_interval(rng.normal(size=12))
        covered.append(low <= 0 <= high)
    assert 0.84 <= np.mean(covered) <= 0.99  # a bootstrap over 12 values is a little narrow


@given(p_values)
def test_holm_keeps_the_order_and_never_lowers_p(values):
    corrected = holm(values)
    assert all(value <= p <= 1 for value, p in zip(values, corrected, strict=True))
    order = np.argsort(values, kind="stable")
    assert np.all(np.diff(np.array(corrected)[order]) >= 0)
    assert max(corrected) <= min(1.0, len(values) * max(values)) + 1e-12


@given(p_values, st.floats(0, 1))
def test_one_more_claim_never_helps_another(values, another):
    assert all(p >= q for p, q in zip(holm([*values, another]), holm(values), strict=False))


def test_holm_of_a_textbook_example():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.2]) == [0.2]


def test_the_interval_is_student_t_over_seeds():
    result = interval([1.0, 2.0, 3.0])
    assert (result.mean, result.n) == (2.0, 3)
    assert result.half == pytest.approx(4.302652729911275 / 3**0.5)  # t(0.975, 2 degrees of freedom)


def test_one_seed_has_no_interval():
    assert interval([0.7]).mean == 0.7
    assert np.isnan(interval([0.7]).half)
    assert not interval([0.7]).excludes_zero


def test_values_that_are_missing_are_not_samples():
    assert interval([1.0, float("nan"), 3.0]).n == 2
    assert interval([]).n == 0


@pytest.mark.parametrize("folds", [2, 5, 10])
def test_overlapping_training_samples_widen_an_interval_as_nadeau_and_bengio_say(folds):
    values = np.random.default_rng(0).normal(size=folds)
    corrected = stats.t.ppf(0.975, folds - 1) * np.sqrt((1 / folds + 1 / (folds - 1)) * values.var(ddof=1))
    assert interval(values, overlap=1 / (folds - 1)).half == pytest.approx(corrected)
    _, half = over_last_axis(values[None], overlap=1 / (folds - 1))
    assert half[0] == pytest.approx(corrected)


def test_an_interval_on_one_side_of_zero_excludes_it():
    assert interval([1.0, 1.1, 0.9]).excludes_zero
    assert not interval([1.0, -1.0, 0.5]).excludes_zero


def test_intervals_along_an_axis_are_those_of_the_rows():
    values = np.array([[1.0, 2.0, 3.0], [1.0, np.nan, 3.0], [5.0, np.nan, np.nan], [np.nan] * 3])
    mean, half = over_last_axis(values)
    for row, of_mean, of_half in zip(values, mean, half, strict=True):
        single = interval(row)
        np.testing.assert_allclose([of_mean, of_half], [single.mean, single.half])
