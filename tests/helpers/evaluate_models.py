"""A network that folding must refuse."""

from torch import nn


class Sigmoid(nn.Sequential):
    """Dropout between two sigmoids: no weight can take its factor."""

    def __init__(self, input_shape, num_classes):
        super().__init__(
            nn.Flatten(), nn.Linear(64, 8), nn.Sigmoid(), nn.Dropout(), nn.Sigmoid(), nn.Linear(8, num_classes)
        )
