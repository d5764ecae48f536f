"""Two networks to place dropout in, and where its places are."""

import torch
from torch import Tensor, nn

from dropout_lab.dropout.keys import mask_keys
from dropout_lab.dropout.layer import Dropout


class Cnn(nn.Module):
    """Convolution, batch norm, ReLU, pool, dropout, linear, ReLU, dropout, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2))
        self.drop = nn.Dropout(0.1)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 5))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.features(x)))


class Residual(nn.Module):
    """No dropout layer, one ReLU called twice, a Linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(3, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.relu(x + self.relu(self.conv(x))).mean((2, 3)))


IMAGE = torch.randn(4, 3, 6, 6)


SITES = {
    "existing": ["drop", "head.3"],
    "default": ["drop", "head.3"],
    "activations": ["features.2", "head.2"],
    "convolutions": ["features.0"],
    "classifier": ["head.3"],  # the dropout layer that stands before the last Linear
    "input": ["input"],
}


EVERYWHERE = ["input", "convolutions", "activations", "existing"]


def layers(model: nn.Module) -> dict[str, Dropout]:
    return {str(layer.name): layer for layer in model.modules() if isinstance(layer, Dropout)}


def passes(model: nn.Module, *x: Tensor, training: bool = True) -> list[Tensor]:
    """Two forward passes at the same masks; none may touch a generator."""
    state = torch.get_rng_state()
    with torch.no_grad(), mask_keys(0, 0, range(len(x[0]))):
        outputs = [model.train(training)(*x) for _ in range(2)]
    assert torch.equal(torch.get_rng_state(), state)
    return outputs
