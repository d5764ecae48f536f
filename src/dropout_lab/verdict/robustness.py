"""Robustness of a trained network: the accuracy that is left without some of its units, and on noisy images."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from dropout_lab.dropout.graph.hooks import intercepting
from dropout_lab.verdict.trained_network import TrainedNetwork, accuracy, dropout_layers

REPEATS = 10  # random subsets of units, draws of noise


def accuracy_without_units(network: TrainedNetwork, fraction: float) -> float:
    """Accuracy when a random fraction of the units of each layer is 0 for good, and nothing makes up for it."""
    found = []
    generator = torch.Generator().manual_seed(network.seed)
    for _ in range(REPEATS):
        with _without(fraction, network.net, generator):
            found.append(accuracy(network, network.images))
    return float(np.mean(found))


def accuracy_with_noise(network: TrainedNetwork, std: float) -> float:
    """Accuracy on images with Gaussian noise added, in units of the standard deviation of the training images."""
    found = []
    generator = torch.Generator().manual_seed(network.seed)
    for _ in range(REPEATS):
        noise = torch.randn(network.images.shape, generator=generator)
        found.append(accuracy(network, network.images + std * noise))
    return float(np.mean(found))


@contextmanager
def _without(fraction: float, net: nn.Module, generator: torch.Generator) -> Iterator[None]:
    """Inside, a random fraction of the units of each dropout layer is 0, other ones in each forward pass."""

    def remove(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        (x,) = args
        kept = torch.ones(x.shape[1])
        kept[torch.randperm(len(kept), generator=generator)[: round(fraction * len(kept))]] = 0
        return (x * kept.view(-1, *(1 for _ in x.shape[2:])),)

    with intercepting(dropout_layers(net), before=remove):
        yield
