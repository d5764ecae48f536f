"""Mean, 95 % interval and paired differences over seeds."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtrit  # scipy.stats.t.ppf without the two seconds it takes to import scipy.stats

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean over n seeds with the half width of its 95 % interval; NaN where n is too small to tell."""

    mean: float
    half: float
    n: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return bool(self.n > 1 and abs(self.mean) > self.half)


def interval(values: Iterable[float]) -> Interval:
    """Mean and Student-t 95 % interval of the values that are numbers; one value has a mean and no interval."""
    finite = np.array([value for value in values if np.isfinite(value)], dtype=float)
    n = len(finite)
    mean = float(finite.mean()) if n else float("nan")
    half = float(stdtrit(n - 1, (1 + LEVEL) / 2) * finite.std(ddof=1) / n**0.5) if n > 1 else float("nan")
    return Interval(mean, half, n)


def paired(values: Mapping[Any, float], baseline: Mapping[Any, float]) -> Interval:
    """Interval of value - baseline over the seeds that both have.

    At one seed the runs share masks, initial weights and order of data, so the difference is much less noisy than
    the two means are.
    """
    return interval(values[seed] - baseline[seed] for seed in values if seed is not None and seed in baseline)


def over_seeds(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and half width of the interval along the last axis (seeds), which may hold NaN: two arrays."""
    n = np.isfinite(values).sum(axis=-1)
    known = np.where(np.isfinite(values), values, 0.0)
    mean = np.where(n > 0, known.sum(axis=-1) / np.maximum(n, 1), np.nan)
    squares = np.where(np.isfinite(values), (known - mean[..., None]) ** 2, 0.0).sum(axis=-1)
    free = np.maximum(n - 1, 1)
    half = stdtrit(free, (1 + LEVEL) / 2) * np.sqrt(squares / free / np.maximum(n, 1))
    return mean, np.where(n > 1, half, np.nan)
