"""Trained networks whose weights the test chooses, with data to measure them on."""

import torch
from small_networks import dense
from torch import nn

from dropout_lab.dropout import Dropout
from dropout_lab.verdict.trained_network import TrainedNetwork


def network_of(*layers, images, classes=None):
    """A network whose dropout layers are called a, b, ... as of a run; it was trained on what it is tested on."""
    net = nn.Sequential(*layers).eval()
    for name, layer in zip("ab", (layer for layer in net if isinstance(layer, Dropout)), strict=False):
        layer.name = name
    classes = torch.zeros(len(images), dtype=torch.long) if classes is None else classes
    return TrainedNetwork(net, images, classes, images, classes, seed=0)


def linear(weight, bias=None):
    weight = torch.as_tensor(weight, dtype=torch.float32)
    layer = nn.Linear(*reversed(weight.shape), bias=bias is not None)
    layer.weight.data = weight
    if bias is not None:
        layer.bias.data = torch.as_tensor(bias, dtype=torch.float32)
    return layer


def one_hidden_layer(p=0.5, images=7):
    torch.manual_seed(0)
    x = torch.randn(images, 3)
    layers = dense(Dropout(p), inputs=3, hidden=6, outputs=4)
    return network_of(*layers, images=x, classes=torch.arange(images) % 4)


def classic_and_inverted():
    """Two networks with the same weights, dropout at two sites; the classic one computes something else."""
    torch.manual_seed(0)
    first, second, x = nn.Linear(3, 6), nn.Linear(6, 4), torch.randn(5, 3)
    return (
        network_of(Dropout(0.4, scaling=scaling), first, nn.ReLU(), Dropout(0.2, scaling=scaling), second, images=x)
        for scaling in ("classic", "inverted")
    )
