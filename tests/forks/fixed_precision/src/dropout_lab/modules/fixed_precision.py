"""Regression with an observation precision that is given (Gal and Ghahramani 2016, section 3)."""

from typing import Any

import torch
from torch import Tensor

from dropout_lab.modules.regression import Gaussians, OneVariance


class FixedPrecision(OneVariance):
    """Minimises the squared error; what a pass predicts is a normal distribution of variance 1 / tau.

    Args:
        tau: precision of the observations, in units of standardised targets.
    """

    def __init__(self, *arguments: Any, tau: float, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if not tau > 0:
            raise ValueError(f"tau={tau}: must be a number > 0")
        del self.raw_variance
        self.variance = 1 / tau

    def loss(self, batch: Any) -> Tensor:
        """The mean squared error, in units of standardised targets."""
        prediction: Gaussians = self.predict(batch[0])
        errors: Tensor = (prediction.mean - batch[1]) / self.target_std
        return errors.square().mean()

    def standardised(self, out: Tensor) -> tuple[Tensor, Tensor]:
        """The network's output is the mean; the variance is given."""
        means = out.to(torch.promote_types(out.dtype, torch.float32))
        return means, torch.full_like(means, self.variance)
