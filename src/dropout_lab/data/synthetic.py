"""A classification task of any size, shape and difficulty, made in memory."""

from collections.abc import Sequence
from typing import Any

import torch

from dropout_lab.data.images import InMemoryData
from dropout_lab.data.rules import is_integer, is_number, require, require_integer
from dropout_lab.data.samples import Samples


class Synthetic(InMemoryData):
    """Noisy copies of one random prototype for each class.

    Args:
        size: number of samples in all.
        shape: (channels, height, width).
        num_classes: number of prototypes, at least 2.
        noise: standard deviation of the noise, >= 0; that of the prototypes is 1.
        arguments: as for :class:`InMemoryData`.

    Raises:
        ValueError: an argument that is not what it is said to be here, and as :class:`InMemoryData`.
    """

    def __init__(self, *, size: int, shape: Sequence[int], num_classes: int, noise: float, **arguments: Any) -> None:
        super().__init__(**arguments)
        require_integer("size", size, 1)
        sizes = isinstance(shape, list | tuple) and len(shape) == 3 and all(is_integer(n) and n >= 1 for n in shape)
        require("shape", shape, sizes, "a list of 3 integers >= 1: channels, height, width")
        require_integer("num_classes", num_classes, 2)
        require("noise", noise, is_number(noise) and noise >= 0, "a number >= 0")
        self.size, self.noise, self.num_classes = size, noise, num_classes
        self.native_shape = tuple(shape)  # type: ignore[assignment]

    def load(self) -> Samples:
        """All samples: images (size, *shape), classes as equal in number as can be."""
        generator = torch.Generator().manual_seed(self.split_seed)
        prototypes = torch.randn(self.num_classes, *self.native_shape, generator=generator)
        classes = torch.arange(self.size) % self.num_classes
        noise = torch.randn(self.size, *self.native_shape, generator=generator)
        return Samples(prototypes[classes] + self.noise * noise, classes)
