"""A classification task of any size, shape and difficulty, made in memory."""

from collections.abc import Sequence
from typing import Any

import torch

from dropout_lab.data.module import InMemoryData
from dropout_lab.data.samples import Samples


class Synthetic(InMemoryData):
    """Noisy copies of one random prototype for each class.

    Args:
        size: number of samples in all.
        shape: (channels, height, width).
        num_classes: number of prototypes.
        noise: standard deviation of the noise; that of the prototypes is 1.
        arguments: as for :class:`InMemoryData`.
    """

    def __init__(self, *, size: int, shape: Sequence[int], num_classes: int, noise: float, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.size, self.noise, self.num_classes = size, noise, num_classes
        self.native_shape = tuple(shape)  # type: ignore[assignment]

    def load(self) -> Samples:
        """All samples: images (size, *shape), classes as equal in number as can be."""
        generator = torch.Generator().manual_seed(self.split_seed)
        prototypes = torch.randn(self.num_classes, *self.native_shape, generator=generator)
        classes = torch.arange(self.size) % self.num_classes
        noise = torch.randn(self.size, *self.native_shape, generator=generator)
        return Samples(prototypes[classes] + self.noise * noise, classes)
