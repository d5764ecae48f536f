"""Units of a trained network: what those of the first layer look for in an image, and how alike two of them are."""

import numpy as np
import torch
from torch import Tensor

from dropout_lab.dropout.graph.hooks import intercepting
from dropout_lab.verdict.trained_network import TrainedNetwork, dropout_layers, logits


def filters(network: TrainedNetwork) -> np.ndarray:
    """The weights from the image into each unit of the first layer, as images.

    Returns:
        Shape (units, H, W, C); H and W are those of the image, or of the kernel of a convolution.
    """
    weight = next(value for value in network.net.parameters() if value.ndim > 1).detach()
    if weight.ndim == 2:
        weight = weight.reshape(len(weight), *network.images.shape[1:])
    return weight.movedim(1, -1).numpy()


def unit_correlation(network: TrainedNetwork, layer: str) -> float:
    """Mean |correlation| of two different units that go into a dropout layer, over images and positions.

    Units that never vary have no correlation and are left out.

    Args:
        network: one with such a layer.
        layer: the dropout layer's name.
    """
    (of_layer,) = (module for module in dropout_layers(network.net) if module.name == layer)
    seen: list[Tensor] = []
    with intercepting([of_layer], before=lambda _, args: seen.append(args[0])):
        logits(network.net, network.images)
    units = seen[0].double().movedim(1, -1).flatten(0, -2)
    varying = units[:, units.std(0) > 0]
    correlations = varying.T.corrcoef()[*torch.triu_indices(varying.shape[1], varying.shape[1], 1)]
    return float(correlations.abs().mean())
