"""Three small networks with a place for a dropout layer: dense, convolutional, and with batch norm."""

from torch import nn


def dense(layer: nn.Module, inputs: int = 4, hidden: int = 8, outputs: int = 2) -> nn.Sequential:
    """A hidden layer with a ReLU."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), layer, nn.Linear(hidden, outputs))


def convolutional(layer: nn.Module, size: int, inputs: int = 1, channels: int = 8, outputs: int = 3) -> nn.Sequential:
    """A convolution of square images with a ReLU."""
    head = nn.Flatten(), nn.Linear(channels * (size - 2) ** 2, outputs)
    return nn.Sequential(nn.Conv2d(inputs, channels, 3), nn.ReLU(), layer, *head)


def normalised(layer: nn.Module, inputs: int = 4, hidden: int = 8, outputs: int = 8) -> nn.Sequential:
    """A hidden layer with batch norm."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden), layer, nn.Linear(hidden, outputs))
