"""Regression: a network that predicts a normal distribution of numbers, and the numbers that are reported."""

from collections.abc import Iterable
from math import log, pi
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dropout_lab.modules.base import Batch, Loss, Module
from dropout_lab.modules.columns import Column
from dropout_lab.modules.sums import at_least_float32

INTERVALS = (50, 90)  # per cent of the predictive distribution
FLOOR = 1e-6  # of a variance of standardised targets (Lakshminarayanan et al. 2017, section 2.2)


class Gaussians(NamedTuple):
    """A mixture of M normal distributions, each as likely, for N samples of k targets.

    Attributes:
        means: (M, N, k), in the units of the targets.
        variances: (M, N, k).
    """

    means: Tensor
    variances: Tensor

    @property
    def mean(self) -> Tensor:
        """The mean of the mixture, (N, k)."""
        return self.means.mean(0)

    @property
    def variance(self) -> Tensor:
        """The variance of the mixture, (N, k), by the law of total variance: mean of variances, variance of means."""
        return self.variances.mean(0) + self.means.var(0, correction=0)

    def nll(self, y: Tensor) -> Tensor:
        """Minus the logarithm of the density at targets (N, k), all k together: (N,), nats."""
        each = (-0.5 * ((y - self.means) ** 2 / self.variances + self.variances.log() + log(2 * pi))).sum(-1)
        return -(each.logsumexp(0) - log(len(each)))

    def below(self, y: Tensor) -> Tensor:
        """The probability of less than targets (N, k), of each by itself: (N, k)."""
        return torch.special.ndtr((y - self.means) / self.variances.sqrt()).mean(0)  # type: ignore[no-any-return]


class Regression(Module):
    """Trains a network to predict numbers: for each target a mean and a variance (Nix and Weigend 1994).

    The network has two outputs for each target, in the units of targets that are standardised by the training part;
    all that is logged is in the targets' own units: the negative logarithm of the density (nats, of all targets of a
    sample together), RMSE over all targets, and the share of targets within the central 50 and 90 % intervals.

    Args:
        arguments, options: as for :class:`~dropout_lab.modules.base.Module`; its network gives (N, 2k).
    """

    columns: ClassVar[tuple[Column, ...]] = (
        Column("rmse", "RMSE"),
        Column("loss", "NLL", "nats"),
        *(
            Column(
                f"coverage_{share}", f"coverage of the {share} % interval", "%", 1, None, f"cover {share}", shown=False
            )
            for share in INTERVALS
        ),
    )

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.register_buffer("target_mean", torch.zeros(1), persistent=False)
        self.register_buffer("target_std", torch.ones(1), persistent=False)

    @staticmethod
    def outputs(data: Any) -> int:
        """A mean and a variance for each target."""
        return 2 * _targets(data)

    def adapt_to(self, data: Any) -> None:
        """Take the units of the targets."""
        self.target_mean, self.target_std = (each.to(self.device) for each in (data.target_mean, data.target_std))

    def loss(self, batch: Batch) -> Loss:
        """The mean negative logarithm of the density at the targets."""
        x, y = batch
        return self.predict(x).nll(y).mean()

    def predict(self, x: Tensor) -> Gaussians:
        """The normal distribution of one pass."""
        means, variances = self.standardised(self.net(x))
        return Gaussians(
            (self.target_mean + self.target_std * means)[None], (self.target_std**2 * (variances + FLOOR))[None]
        )

    def standardised(self, out: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance, (N, k) each, of standardised targets from the network's output (N, 2k)."""
        means, raw = at_least_float32(out).chunk(2, dim=-1)
        return means, F.softplus(raw)

    def mix(self, passes: Iterable[Gaussians]) -> Gaussians:
        """The mixture of the distributions of all passes."""
        return Gaussians(*(torch.cat(parts) for parts in zip(*passes, strict=True)))

    def scores(self, prediction: Gaussians, batch: Batch) -> dict[str, Tensor]:
        """The density at each sample's targets, its squared error, and the share of them within each interval."""
        _, y = batch
        below = prediction.below(y)
        inside = {f"coverage_{share}": ((below - 0.5).abs() <= share / 200).float().mean(-1) for share in INTERVALS}
        return {"loss": prediction.nll(y), "se": ((y - prediction.mean) ** 2).mean(-1), **inside}

    def summarize(self, means: dict[str, float]) -> dict[str, float]:  # type: ignore[override]
        """The root of the mean squared error beside the means."""
        return {**means, "rmse": means["se"] ** 0.5}


class OneVariance(Regression):
    """Regression with one variance for all samples, learned beside the weights, in units of standardised targets.

    Args:
        arguments, options: as for :class:`Regression`; its network gives (N, k).
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.raw_variance = nn.Parameter(torch.zeros(1))

    @staticmethod
    def outputs(data: Any) -> int:
        """A mean for each target."""
        return _targets(data)

    def standardised(self, out: Tensor) -> tuple[Tensor, Tensor]:
        """The network's output is the mean; the variance is the one for all."""
        means = at_least_float32(out)
        return means, F.softplus(self.raw_variance).expand_as(means)


def _targets(data: Any) -> int:
    """How many numbers are predicted; refused where there are classes."""
    if data.num_classes is not None:
        classes = f"{type(data).__name__} has {data.num_classes} classes"
        raise ValueError(f"regression predicts numbers, but {classes}: module=classification takes them")
    return data.num_targets  # type: ignore[no-any-return]
