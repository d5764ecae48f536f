"""Points on two circles, made in memory."""

from typing import Any

import torch
from torch import Tensor

from dropout_lab.data.base import Undivided
from dropout_lab.data.samples import Samples


class Circles(Undivided):
    """Noisy points on two concentric circles, a class each; the same points for every seed.

    Args:
        size: how many.
        noise: standard deviation of each coordinate; the radii are 1 and 2.
        arguments: as for :class:`~dropout_lab.data.base.Undivided`.
    """

    num_classes = 2

    def __init__(self, *, size: int = 300, noise: float = 0.3, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.size, self.noise = size, noise

    @property
    def shape(self) -> tuple[int, ...]:
        """Two coordinates."""
        return (2,)

    def load(self) -> Samples:
        """All points, (size, 2)."""
        chance = torch.Generator().manual_seed(0)
        angles = 2 * torch.pi * torch.rand(self.size, generator=chance)
        classes = torch.arange(self.size) % 2
        points = (1 + classes)[:, None] * torch.stack([angles.cos(), angles.sin()], dim=1)
        return Samples(points + self.noise * torch.randn(self.size, 2, generator=chance), classes)

    def prepare(self, inputs: Tensor) -> Tensor:
        """Points as they are."""
        return inputs
