"""Readings of a meter, made of its sums: mean, std and zero fraction of each tensor, and the gain of each layer.

Standard errors treat units (samples, or (sample, channel) where whole maps are dropped) as independent draws.
"""

from dataclasses import dataclass
from math import nan, sqrt
from typing import NamedTuple

from torch import Tensor

COLUMNS = ("count", "sum", "square", "zeros", "units", "unit_square", "unit_cross")
TELLS = 0.5  # the largest standard error of a gain that says anything


@dataclass(frozen=True, slots=True)
class Stats:
    """Statistics of all elements seen of a tensor: count, mean, std (population) and fraction of exact zeros.

    ``reliable`` is False where mean²/variance > 1e4: the variance is a difference of fp32-based sums, and its
    relative error passes 1e-3 there. NaN where nothing was seen.
    """

    count: int
    mean: float
    std: float
    zeros: float
    reliable: bool


class Gain(NamedTuple):
    """Mean out / mean in of one layer within the same passes, with its standard error (delta method).

    Inverted dropout has gain 1 in train and in eval, classic q and q, unscaled q and 1. NaN where it says nothing:

    - The mean in is less than 3 of its standard errors from 0. It may have either sign, and an interval of the ratio
      (Fieller 1954, "Some problems in interval estimation") would have no ends.
    - The standard error of the gain is above 1/2. Behind a LayerNorm the mean in of each sample is nearly 0: known, but
      little beside the elements that a mask drops or scales, so that the ratio is the mask's noise. At 1/2 the 95 %
      interval of a mean that is kept, 1, reaches that of one that is lost, 0. This bound is not relative to the gain: a
      gain near 0 with a small error is what p near 1 does, and where no mask is drawn (eval) the error is 0.
    """

    value: float
    se: float


@dataclass(frozen=True)
class Readings:
    """One flush of a meter: its taps' names, their sums (rows, columns) per mode, and which rows are in and out."""

    names: list[str]
    sums: dict[str, Tensor]
    pairs: dict[str, tuple[int, int]]
    batches: dict[str, int]
    extra: Tensor | None

    def stats(self, mode: str) -> dict[str, Stats]:
        """Statistics of every tap, by name, in "train" or "eval"."""
        return {name: _stats(row) for name, row in zip(self.names, self.sums[mode].tolist(), strict=True)}

    def gains(self, mode: str) -> dict[str, Gain]:
        """Gain of every module tapped on both sides, under the name of its output."""
        rows = self.sums[mode].tolist()
        return {name: _gain(rows[into], rows[out]) for name, (into, out) in self.pairs.items()}


def _stats(row: list[float]) -> Stats:
    count, total, square, zeros, *_ = row
    if not count:
        return Stats(0, nan, nan, nan, True)
    mean = total / count
    variance = square / count - mean**2
    variance = max(variance, 0.0) if variance == variance else nan  # NaN in, NaN out
    return Stats(int(count), mean, sqrt(variance), zeros / count, not mean**2 > 1e4 * variance)


def _gain(into: list[float], out: list[float]) -> Gain:
    _, total, _, _, units, square, _ = into
    _, total_out, _, _, _, square_out, cross = out
    if not total:
        return Gain(nan, nan)
    spread = units / (units - 1) if units > 1 else nan  # makes a sum of squared deviations unbiased
    se_total = sqrt(max(square - total**2 / max(units, 1), 0.0) * spread)
    gain = total_out / total
    residual = max(square_out - 2 * gain * cross + gain**2 * square, 0.0)
    se = sqrt(residual * spread) / abs(total)  # NaN of one unit, which is kept: nothing is known against it
    return Gain(nan, nan) if abs(total) < 3 * se_total or se > TELLS else Gain(gain, se)
