"""Copies of a trained network that are changed after training: its statistics, its scaling, its p, its weights."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dropout_lab.dropout import convert, mask_keys
from dropout_lab.verdict.trained_network import TrainedNetwork, dropout_layers, logits

EPOCHS, ROWS = 5, 50  # of fine-tuning, and the size of its batches


def with_new_statistics(network: TrainedNetwork) -> nn.Module:
    """A copy whose BatchNorm layers have the mean and variance of the training part with dropout off.

    Source: Hendrycks and Gimpel 2016, "Adjusting for Dropout Variance in Batch Normalization and Weight
        Initialization".
    """
    net = copy.deepcopy(network.net)
    for layer in net.modules():
        if isinstance(layer, _BatchNorm):
            layer.train()
            layer.momentum = 1.0  # of the last batch, which is the only one
    logits(net, network.train_images)
    return net.eval()


def with_other_scaling(net: nn.Module, example: Tensor) -> nn.Module:
    """A copy with the other scaling: classic where a layer is inverted, else inverted.

    Args:
        net: with dropout layers.
        example: a batch as it takes it.

    Raises:
        ValueError: as :func:`dropout_lab.dropout.convert`.
    """
    inverted = any(layer.scaling == "inverted" for layer in dropout_layers(net))
    return convert(copy.deepcopy(net), "classic" if inverted else "inverted", example)


def with_rate(net: nn.Module, p: float) -> nn.Module:
    """A copy whose dropout layers have another p, and the same weights."""
    net = copy.deepcopy(net)
    for layer in dropout_layers(net):
        layer.p = p
    return net


def fine_tuned(network: TrainedNetwork, p: float) -> nn.Module:
    """A copy with another p that went on training for 5 epochs: SGD with momentum, learning rate 0.01."""
    net = with_rate(network.net, p).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    shuffled = torch.Generator().manual_seed(network.seed)
    for epoch in range(EPOCHS):
        batches = torch.split(torch.randperm(len(network.train_images), generator=shuffled), ROWS)
        for number, rows in enumerate(batches):
            with mask_keys(network.seed, epoch * len(batches) + number, range(len(rows))):
                loss = F.cross_entropy(net(network.train_images[rows]), network.train_classes[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return net.eval()
