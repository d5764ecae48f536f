"""Wide residual networks for small images, with dropout between the convolutions of each block.

Source: Zagoruyko and Komodakis 2016, "Wide Residual Networks", section 2, figure 1(d) and table 1.
"""

from torch import Tensor, nn

from dropout_lab.models.small import require_image, require_size


class WideResNet(nn.Module):
    """WRN-depth-width: a convolution, three groups of (depth - 4) / 6 blocks, the second and third at half the size.

    Args:
        input_shape: (channels, height, width) of an image, at least 4 pixels a side.
        num_classes: number of outputs.
        depth: 6n + 4 for n blocks in each group: the paper counts all convolutions, the three in shortcuts too.
        width: the groups have 16, 32 and 64 times as many channels.

    Raises:
        ValueError: a depth that is not 6n + 4; no width; an image that is too small.
    """

    def __init__(self, input_shape: tuple[int, int, int], num_classes: int, depth: int = 28, width: int = 10) -> None:
        super().__init__()
        channels, height, image_width = require_image(input_shape)
        if not isinstance(depth, int) or depth < 10 or (depth - 4) % 6:
            raise ValueError(f"model.depth={depth}: must be 6n + 4, as 10, 16, 22, 28, 40")
        require_size("width", width)
        if min(height, image_width) < 4:
            raise ValueError(f"a wide residual net halves the image twice, too often for {height}x{image_width} pixels")
        before = 16
        self.conv = _conv(channels, before)
        self.groups = nn.Sequential()
        for number, after in enumerate((16 * width, 32 * width, 64 * width)):
            for place in range((depth - 4) // 6):
                stride = 2 if number and not place else 1
                self.groups.append(Block(before, after, stride))
                before = after
        self.norm = nn.BatchNorm2d(before)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.classifier = nn.Linear(before, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, channels, height, width) to logits (N, num_classes)."""
        x = self.relu(self.norm(self.groups(self.conv(x))))
        return self.classifier(self.flatten(self.pool(x)))  # type: ignore[no-any-return]


class Block(nn.Module):
    """A residual block: BatchNorm, ReLU, convolution, BatchNorm, ReLU, dropout, convolution; plus the input.

    Where the shape changes the shortcut is a 1x1 convolution, of what the first BatchNorm and ReLU made of the input.
    """

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(before)
        self.relu1 = nn.ReLU()
        self.conv1 = _conv(before, after, stride)
        self.norm2 = nn.BatchNorm2d(after)
        self.relu2 = nn.ReLU()
        self.dropout = nn.Dropout(0.0)
        self.conv2 = _conv(after, after)
        self.shortcut: nn.Module | None = None
        if (before, stride) != (after, 1):
            self.shortcut = nn.Conv2d(before, after, kernel_size=1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Feature maps (N, before, H, W) to (N, after, H / stride, W / stride), rounded up."""
        y = self.relu1(self.norm1(x))
        skip = x if self.shortcut is None else self.shortcut(y)
        y = self.relu2(self.norm2(self.conv1(y)))
        return skip + self.conv2(self.dropout(y))  # type: ignore[no-any-return]


def _conv(before: int, after: int, stride: int = 1) -> nn.Conv2d:
    """A convolution of 3x3 that keeps the size, or divides it by the stride."""
    return nn.Conv2d(before, after, kernel_size=3, stride=stride, padding=1, bias=False)
