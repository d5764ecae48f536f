"""Stochastic depth (Huang et al. 2016): a sample's whole residual branch is dropped."""

import torch
from torch import Tensor

from dropout_lab.dropout import Dropout
from dropout_lab.dropout.noise import Rate, bernoulli


class DropPath(Dropout):
    """Drops all that a branch says of a sample, or nothing of it."""

    def draw(self, x: Tensor) -> Tensor:
        """A mask of one number a sample."""
        shape = torch.Size([len(x)] + [1] * (x.ndim - 1))
        return bernoulli(self, x, shape, Rate.of(self.p))
