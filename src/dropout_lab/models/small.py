"""The two small networks of the default experiments, and the convolutional one of the paper, written to be read.

Each marks with an idle ``nn.Dropout`` where dropout belongs; ``dropout_lab.dropout.install`` puts the strategy there.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn


class CNN(nn.Module):
    """Blocks of convolution, ReLU, pooling and dropout, then one hidden layer with dropout and a classifier.

    Args:
        input_shape: (channels, height, width) of an image; each block halves height and width.
        num_classes: number of outputs.
        widths: channels of each block.
        hidden: units of the hidden layer.
        batch_norm: BatchNorm between convolution and ReLU, as Li et al. 2019 would have it: dropout comes after.

    Raises:
        ValueError: the image is too small for so many poolings; a width that is no number of channels or units;
            ``batch_norm`` that is not true or false.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_classes: int,
        widths: Sequence[int] = (32, 64),
        hidden: int = 128,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        _require_sizes("widths", widths, 1)
        require_size("hidden", hidden)
        _require_switch("batch_norm", batch_norm)
        channels, height, width = require_image(input_shape)
        if min(height, width) < 2 ** len(widths):
            raise ValueError(
                f"{len(widths)} blocks halve the image {len(widths)} times, too often for {height}x{width} pixels; "
                "use a larger data.image_size or fewer model.widths"
            )
        blocks = []
        for before, after in zip([channels, *widths], widths, strict=False):
            blocks.append(_block(before, after, batch_norm))
        self.blocks = nn.Sequential(*blocks)
        self.flatten = nn.Flatten()
        features = widths[-1] * (height >> len(widths)) * (width >> len(widths))
        self.hidden = nn.Linear(features, hidden)
        self.relu = nn.ReLU()
        self.dropout = nn.Dropout(0.0)
        self.classifier = nn.Linear(hidden, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, channels, height, width) to logits (N, num_classes)."""
        x = self.flatten(self.blocks(x))
        x = self.dropout(self.relu(self.hidden(x)))
        return self.classifier(x)  # type: ignore[no-any-return]


class MLP(nn.Module):
    """Hidden layers of Linear, ReLU and dropout, then a classifier: the nets of Srivastava et al. 2014, section 6.1.

    Args:
        input_shape: shape of a sample, flattened.
        num_classes: number of outputs.
        widths: units of each hidden layer.
        batch_norm: BatchNorm before each ReLU.

    Raises:
        ValueError: a width that is no number of units; ``batch_norm`` that is not true or false.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_classes: int,
        widths: Sequence[int] = (256, 256),
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        _require_sizes("widths", widths, 0)
        _require_switch("batch_norm", batch_norm)
        self.flatten = nn.Flatten()
        features = 1
        for size in input_shape:
            features *= size
        layers = []
        for before, after in zip([features, *widths], widths, strict=False):
            layers.append(_layer(before, after, batch_norm))
        self.layers = nn.Sequential(*layers)
        self.classifier = nn.Linear(widths[-1] if widths else features, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Samples (N, *input_shape) to logits (N, num_classes)."""
        return self.classifier(self.layers(self.flatten(x)))  # type: ignore[no-any-return]


class ConvNet(nn.Module):
    """The SVHN and CIFAR net of Srivastava et al. 2014, appendix B.2: convolutions of 5x5, pooling of 3x3, stride 2.

    Args:
        input_shape: (channels, height, width) of an image; each pooling halves height and width, rounded up.
        num_classes: number of outputs.
        widths: filters of each convolution.
        hidden: units of each hidden layer behind them.

    Raises:
        ValueError: a width that is no number of filters or units.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_classes: int,
        widths: Sequence[int] = (96, 128, 256),
        hidden: Sequence[int] = (2048, 2048),
    ) -> None:
        super().__init__()
        _require_sizes("widths", widths, 1)
        _require_sizes("hidden", hidden, 0)
        channels, height, width = require_image(input_shape)
        blocks = []
        for before, after in zip([channels, *widths], widths, strict=False):
            block = nn.Sequential()
            block.add_module("conv", nn.Conv2d(before, after, kernel_size=5, padding=2))
            block.add_module("relu", nn.ReLU())
            block.add_module("pool", nn.MaxPool2d(3, stride=2, padding=1))
            block.add_module("dropout", nn.Dropout(0.0))
            blocks.append(block)
            height, width = (height + 1) // 2, (width + 1) // 2
        self.blocks = nn.Sequential(*blocks)
        self.head = MLP((widths[-1], height, width), num_classes, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, channels, height, width) to logits (N, num_classes)."""
        return self.head(self.blocks(x))  # type: ignore[no-any-return]


def require_image(input_shape: Sequence[int]) -> tuple[int, int, int]:
    """The channels, height and width of images.

    Raises:
        ValueError: samples of that shape are none.
    """
    if len(input_shape) != 3:
        raise ValueError(
            f"takes images (channels, height, width), not samples of the shape {tuple(input_shape)}; mlp does"
        )
    channels, height, width = input_shape
    return channels, height, width


def require_size(key: str, size: Any) -> None:
    """Refuse what is no number of channels or units.

    Raises:
        ValueError: ``model.<key>``, and what it may be.
    """
    if not _is_size(size):
        raise ValueError(f"model.{key}={size}: must be an integer >= 1")


def _require_sizes(key: str, sizes: Any, least: int) -> None:
    """Refuse what is no list of at least so many widths."""
    if not isinstance(sizes, list | tuple) or len(sizes) < least or not all(map(_is_size, sizes)):
        raise ValueError(f"model.{key}={sizes}: must be a list of {least} or more integers >= 1, such as [32,64]")


def _require_switch(key: str, value: Any) -> None:
    """Refuse what is neither true nor false: any word would count as true."""
    if not isinstance(value, bool):
        raise ValueError(f"model.{key}={value}: must be true or false")


def _is_size(size: Any) -> bool:
    """Tell whether a value is a number of channels or units: an integer >= 1."""
    return isinstance(size, int) and not isinstance(size, bool) and size >= 1


def _block(before: int, after: int, batch_norm: bool) -> nn.Sequential:
    """Convolution, ReLU, pooling, and where dropout belongs."""
    block = nn.Sequential()
    block.add_module("conv", nn.Conv2d(before, after, kernel_size=3, padding=1, bias=not batch_norm))
    if batch_norm:
        block.add_module("norm", nn.BatchNorm2d(after))
    block.add_module("relu", nn.ReLU())
    block.add_module("pool", nn.MaxPool2d(2))
    block.add_module("dropout", nn.Dropout(0.0))
    return block


def _layer(before: int, after: int, batch_norm: bool) -> nn.Sequential:
    """Linear, ReLU, and where dropout belongs."""
    layer = nn.Sequential()
    layer.add_module("linear", nn.Linear(before, after, bias=not batch_norm))
    if batch_norm:
        layer.add_module("norm", nn.BatchNorm1d(after))
    layer.add_module("relu", nn.ReLU())
    layer.add_module("dropout", nn.Dropout(0.0))
    return layer
