"""Concrete dropout: each layer learns its rate by the gradient (Gal, Hron and Kendall 2017)."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dropout_lab.dropout.layer import Dropout
from dropout_lab.dropout.noise import uniform


class ConcreteDropout(Dropout):
    """Dropout whose p is a parameter, with masks that are relaxed so that the gradient reaches it.

    A unit is kept to the share 1 - sigmoid((logit p + logit u) / temperature), u uniform: nearly all or nothing.
    The regulariser is that of a variational approximation whose weights have the prior N(0, 1 / length_scale^2): it is
    smaller the more rows there are, which leaves the rate to the data. Source: section 3, where p is the rate, too.

    Args:
        p: the rate to begin with, 0 < p < 1.
        temperature: of the relaxation, > 0; towards 0 the masks are those of dropout.
        length_scale: l of the prior, >= 0; with 0 the weights are left to the optimizer's own decay.
        rows: weigh the regulariser as if there were so many training samples; None: as many as there are.
        axes: as for :class:`Dropout`; ``mask="channel"`` is the paper's spatial variant, for convolutions.
    """

    def __init__(
        self,
        p: float = 0.5,
        *,
        temperature: float = 0.1,
        length_scale: float = 0.0001,
        rows: int | None = None,
        **axes: Any,
    ) -> None:
        super().__init__(p, **axes)
        if not p > 0:
            raise ValueError(f"p={p}: must be > 0, as a rate of 0 learns nothing")
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature={temperature}: must be a finite number > 0")
        if not 0 <= length_scale < math.inf:
            raise ValueError(f"length_scale={length_scale}: must be a finite number >= 0")
        if rows is not None and not rows > 0:
            raise ValueError(f"rows={rows}: must be > 0, or null for as many as there are")
        self.temperature, self.length_scale, self.rows = temperature, length_scale, rows
        self.logit = nn.Parameter(torch.tensor([math.log(p) - math.log1p(-p)]))

    @property
    def learned_p(self) -> Tensor:
        """The sigmoid of the parameter."""
        return self.logit.sigmoid()

    def draw(self, x: Tensor) -> Tensor:
        """What is kept of each unit, in [0, 1]."""
        return self._kept(uniform(self, x, self.noise_shape(x)))

    def penalty(self, fed: Sequence[nn.Module], rows: int) -> Tensor:
        """The divergence from the prior, a row's share: (l^2 / 2 * q * |weights|^2 - units * entropy of p) / rows."""
        q, (p,) = self.q, self.learned_p
        squares = [each.weight.square().sum() for each in fed]  # type: ignore[operator, union-attr]
        # Of the weights that the raw mask multiplies: inverted dropout has divided them by q.
        weights = sum(squares) / q**2 if self.scaling == "inverted" else sum(squares)
        units = max((_inputs(each) for each in fed), default=1)
        entropy = -(p * p.log() + q * q.log())
        total: Tensor = self.length_scale**2 / 2 * q * weights - units * entropy
        return total / (self.rows or rows)

    @property
    def mean(self) -> float:
        """Mean of what is kept: not quite 1 - p, as it is relaxed."""
        return self._moments()[0]

    @property
    def variance(self) -> float:
        """Variance of what is kept: less than p (1 - p), as it is relaxed."""
        return self._moments()[1]

    def extra_repr(self) -> str:
        """As the base's, with the arguments of one's own."""
        return f"{super().extra_repr()}, temperature={self.temperature}, length_scale={self.length_scale}"

    def _kept(self, u: Tensor) -> Tensor:
        return torch.sigmoid(-(self.logit.reshape(()) + u.log() - (-u).log1p()) / self.temperature)

    @torch.no_grad()
    def _moments(self) -> tuple[float, float]:
        """Mean and variance of what is kept, over evenly spaced u."""
        kept = self._kept((torch.arange(2**16, dtype=torch.float64) + 0.5) * 2**-16)
        return kept.mean().item(), kept.var().item()


def _inputs(layer: nn.Module) -> int:
    """How many inputs, or channels, an affine layer has."""
    inputs: int = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels  # type: ignore[assignment]
    return inputs
