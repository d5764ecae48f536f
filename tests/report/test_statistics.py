import numpy as np
import pytest

from dropout_lab.report.statistics import interval, over_seeds, paired


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


def test_pairs_are_made_at_equal_seeds():
    difference = paired({0: 0.9, 1: 0.8, 2: 0.5}, {1: 0.7, 0: 0.8, 3: 0.1})
    assert difference.n == 2
    assert difference.mean == pytest.approx(0.1)
    assert difference.half == pytest.approx(0.0, abs=1e-12)


def test_an_interval_on_one_side_of_zero_excludes_it():
    assert interval([1.0, 1.1, 0.9]).excludes_zero
    assert not interval([1.0, -1.0, 0.5]).excludes_zero


def test_intervals_along_an_axis_are_those_of_the_rows():
    values = np.array([[1.0, 2.0, 3.0], [1.0, np.nan, 3.0], [5.0, np.nan, np.nan], [np.nan] * 3])
    mean, half = over_seeds(values)
    for row, of_mean, of_half in zip(values, mean, half, strict=True):
        single = interval(row)
        np.testing.assert_allclose([of_mean, of_half], [single.mean, single.half])
