"""Statistics over seeds: means with intervals, tests over paired seeds, Holm's correction. Numbers in, numbers out.

A table shows a mean with Student's 95 % interval, and the difference from a baseline over what both have.

A verdict assumes no normality: under the null hypothesis a paired difference is as likely to have one sign as the
other, so the mean that was seen is compared with the means under all 2^n choices of signs (Fisher's permutation test
for pairs), and the interval around it is a bootstrap.

``scipy.stats`` takes two seconds to import, and a table needs none of it: only the functions that test import it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit  # scipy.stats.t.ppf without importing scipy.stats

LEVEL = 0.95  # of every interval
EXACT = 16  # pairs up to which all 2^n sign patterns are tried
PATTERNS = 100_000  # random ones beyond
RESAMPLES = 10_000  # of the bootstrap


@dataclass(frozen=True)
class Interval:
    """A mean over n replicates with the half width of its 95 % interval; NaN where n is too small to tell."""

    mean: float
    half: float
    n: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return bool(self.n > 1 and abs(self.mean) > self.half)


def interval(values: Iterable[float], overlap: float = 0.0) -> Interval:
    """Mean and Student-t 95 % interval of the values that are numbers; one value has a mean and no interval.

    Args:
        values: of n replicates.
        overlap: what is added to 1/n in the variance of the mean of folds, whose training samples are the same in
            part: the ratio of test to training samples (Nadeau and Bengio 2003, the corrected resampled t-test).
    """
    finite = np.array([value for value in values if np.isfinite(value)], dtype=float)
    n = len(finite)
    mean = float(finite.mean()) if n else float("nan")
    error = float(finite.std(ddof=1)) * (1 / n + overlap) ** 0.5 if n > 1 else float("nan")
    half = float(stdtrit(max(n - 1, 1), (1 + LEVEL) / 2)) * error
    return Interval(mean, half, n)


def over_last_axis(values: np.ndarray, overlap: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Mean and half width of ``interval`` along the last axis, replicates, which may hold NaN: two arrays."""
    n = np.isfinite(values).sum(axis=-1)
    known = np.where(np.isfinite(values), values, 0.0)
    mean = np.where(n > 0, known.sum(axis=-1) / np.maximum(n, 1), np.nan)
    squares = np.where(np.isfinite(values), (known - mean[..., None]) ** 2, 0.0).sum(axis=-1)
    free = np.maximum(n - 1, 1)
    half = stdtrit(free, (1 + LEVEL) / 2) * np.sqrt(squares / free * (1 / np.maximum(n, 1) + overlap))
    return mean, np.where(n > 1, half, np.nan)


def p_greater(differences: Sequence[float], than: float = 0.0) -> float:
    """One-sided p-value of "the mean difference is greater than ``than``"; 1 where there are no differences.

    It is never below 2^-n, as one of the 2^n sign patterns is what was seen.

    Source: Fisher 1935, "The Design of Experiments", section 21.
    """
    shifted = np.asarray(differences, dtype=float) - than
    if len(shifted) < 2:  # scipy wants two
        return 0.5 if (shifted > 0).any() else 1.0
    from scipy import stats

    exact = len(shifted) <= EXACT
    result = stats.permutation_test(
        (shifted,),
        np.mean,
        permutation_type="samples",
        alternative="greater",
        vectorized=True,
        n_resamples=np.inf if exact else PATTERNS,
        rng=np.random.default_rng(0),
    )
    return float(result.pvalue)


def p_less(differences: Sequence[float], than: float = 0.0) -> float:
    """One-sided p-value of "the mean difference is less than ``than``"."""
    return p_greater([-difference for difference in differences], -than)


def p_equal(differences: Sequence[float], margin: float) -> float:
    """p-value of "the mean difference lies within -margin ... margin": both bounds are tested, the worse one counts.

    Two one-sided tests (TOST), each of which has to be passed: absence of evidence for a difference is not enough.

    Source: Schuirmann 1987, "A comparison of the two one-sided tests procedure and the power approach for assessing the
        equivalence of average bioavailability".
    """
    return max(p_greater(differences, -margin), p_less(differences, margin))


def smallest_p(pairs: int) -> float:
    """The smallest p-value that so many pairs can give in a one-sided test."""
    return 2.0**-pairs if pairs <= EXACT else 1 / (PATTERNS + 1)


def bootstrap_interval(differences: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the mean by resampling pairs (BCa); NaN below two pairs, a point where all are equal.

    Source: Efron 1987, "Better Bootstrap Confidence Intervals".
    """
    values = np.asarray(differences, dtype=float)
    if len(values) < 2:
        return float("nan"), float("nan")
    if np.ptp(values) <= 1e-12 * np.abs(values).max():  # nothing to resample: BCa would divide by zero
        return float(values.mean()), float(values.mean())
    from scipy import stats

    with np.errstate(all="ignore"):
        result = stats.bootstrap(
            (values,), np.mean, confidence_level=LEVEL, n_resamples=RESAMPLES, rng=np.random.default_rng(0)
        )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number: all those up to alpha can be claimed together with an error below alpha.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    order = sorted(range(len(p_values)), key=lambda claim: p_values[claim])
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, claim in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[claim]))
        corrected[claim] = largest
    return corrected
