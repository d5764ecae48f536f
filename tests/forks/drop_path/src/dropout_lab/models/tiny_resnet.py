"""A small residual network (He et al. 2016) whose branches end in a dropout layer."""

from collections.abc import Sequence

from torch import Tensor, nn


class Block(nn.Module):
    """Adds a branch of two convolutions to what it is given."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            *(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
            *(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.Dropout(0.0)),
        )
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Maps of the same shape."""
        out: Tensor = self.relu(x + self.branch(x))
        return out


class TinyResNet(nn.Module):
    """A convolution, residual blocks at one width, and a linear layer on the means of the maps."""

    def __init__(self, input_shape: Sequence[int], num_classes: int, width: int = 16, blocks: int = 4) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(input_shape[0], width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.blocks = nn.Sequential(*(Block(width) for _ in range(blocks)))
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) to logits (N, classes)."""
        logits: Tensor = self.classifier(self.blocks(self.stem(x)).mean(dim=(2, 3)))
        return logits
