"""Divergence: a loss that has become NaN or infinite, so that what was learned is no result."""

from collections.abc import Mapping
from math import isfinite


class DivergenceError(ValueError):
    """The end of a training, or of a job, whose loss is NaN or infinite."""


def why_diverged(metrics: Mapping[str, float], step: int, scaled: bool) -> str | None:
    """The first loss among logged numbers that is NaN or infinite, in words; None where all are finite.

    A mean over steps, or over processes, is not finite as soon as one of them is not: nothing else has to be kept.

    Args:
        metrics: as they are logged, ``train/loss`` and ``val/loss`` among them.
        step: at which they are.
        scaled: gradients are scaled, as in half precision, and steps left out that are not finite: those of training
            do not count then, as they change no weight; what they were about to break, validation tells.
    """
    for key, value in metrics.items():
        if key.endswith("/loss") and not isfinite(value) and not (scaled and key == "train/loss"):
            return f"{key} is {value} at step {step}"
    return None
