"""Variance that masks bring about: of the means of feature maps, and of the gradient of a batch."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dropout_lab.dropout import Dropout, mask_keys
from dropout_lab.dropout.graph.hooks import intercepting
from dropout_lab.verdict.trained_network import TrainedNetwork, dropout_layers, logits

BATCH = 64  # images whose maps and gradient are looked at
DRAWS = 200  # of their masks


def map_mean_variance(network: TrainedNetwork, over: str = "1") -> float:
    """How much more the mean of a feature map varies when whole maps are dropped than when pixels are.

    The maps are those at the first dropout layer that has any. A mask of variance v gives the mean of n pixels x the
    variance v * mean(x)^2 for whole maps and v * mean(x^2) / n for pixels: where neighbours agree, dropping pixels
    hardly touches the mean (Tompson et al. 2015, section 3.2, say it of the gradient).

    Args:
        network: one with feature maps.
        over: "theory": over n * mean(x)^2 / mean(x^2), sums over all maps; "1": as it is.
    """
    seen: list[Tensor] = []
    with intercepting(dropout_layers(network.net), before=lambda _, args: seen.append(args[0])):
        logits(network.net, network.images[:BATCH])
    maps = next(x for x in seen if x.ndim == 4)
    whole, pixels = (_variance_of_means(maps, mask, network.seed) for mask in ("channel", "element"))
    ratio = whole / pixels
    if over == "1":
        return ratio
    x = maps.double().flatten(2)
    return float(ratio / (x.shape[2] * x.mean(2).square().sum() / x.square().mean(2).sum()))


def shared_masks(network: TrainedNetwork, ranks: int) -> float:
    """How much noisier a gradient is when so many ranks draw the same masks than when every row has its own.

    The batch stays the same, so the variance, summed over all parameters, is that of the masks alone. With rho the mean
    correlation of the gradients of two samples that share a mask, the ratio is about 1 + (ranks - 1) * rho.
    """
    net = copy.deepcopy(network.net)
    for layer in dropout_layers(net):
        layer.train()
    own = torch.arange(BATCH)
    shared = torch.arange(BATCH // ranks).repeat(ranks)
    return gradient_variance(net, network, shared) / gradient_variance(net, network, own)


def gradient_variance(net: nn.Module, network: TrainedNetwork, rows: Tensor) -> float:
    """Variance over masks of the mean gradient of a batch, summed over all parameters.

    Args:
        net: the network, its dropout layers in train mode.
        network: the same with its data; the batch is the first training samples, as many as there are rows.
        rows: the row of the global batch whose masks each sample has, (N,).
    """
    images, classes = network.train_images[: len(rows)], network.train_classes[: len(rows)]
    found = []
    for step in range(DRAWS):
        with mask_keys(network.seed, step, rows):
            loss = F.cross_entropy(net(images), classes)
        gradients = torch.autograd.grad(loss, list(net.parameters()))
        found.append(torch.cat([gradient.flatten() for gradient in gradients]))
    return float(torch.stack(found).double().var(0).sum())


def _variance_of_means(maps: Tensor, mask: str, seed: int) -> float:
    """Variance over masks of the mean of each map, summed over all maps."""
    layer = Dropout(0.5, mask=mask)
    layer.name = mask
    means = []
    for step in range(DRAWS):
        with mask_keys(seed, step, range(len(maps))):
            means.append(layer(maps).mean((2, 3)))
    return float(torch.stack(means).double().var(0).sum())
