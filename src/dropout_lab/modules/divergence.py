"""Divergence: a loss that has become NaN or infinite, so that what was learned is no result."""

from collections.abc import Mapping
from math import isfinite
from typing import Any


class DivergenceError(ValueError):
    """The end of a training, or of a job, whose loss is NaN or infinite."""


def why_diverged(metrics: Mapping[str, float], trainer: Any) -> str | None:
    """The first loss among logged numbers that is NaN or infinite, in words; None where all are finite.

    A mean over steps, or over processes, is not finite as soon as one of them is not: nothing else has to be kept.

    Where gradients are scaled, as in half precision, steps that are not finite are left out: those of training do not
    count then, as they change no weight, and validation tells.

    Args:
        metrics: as they are logged, ``train/loss`` and ``val/loss`` among them.
        trainer: whose step it is.
    """
    scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
    for key, value in metrics.items():
        if key.endswith("/loss") and not isfinite(value) and not (scaled and key == "train/loss"):
            return f"{key} is {value} at step {trainer.global_step}"
    return None
