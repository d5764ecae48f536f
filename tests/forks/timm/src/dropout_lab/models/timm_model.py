"""Any network of timm (Wightman 2019) by its name, for the images of the data set."""

from collections.abc import Sequence
from typing import Any

import timm
from torch import nn


def timm_model(input_shape: Sequence[int], num_classes: int, name: str, **options: Any) -> nn.Module:
    """A network with random initial weights; ``options`` go to ``timm.create_model``."""
    net: nn.Module = timm.create_model(name, in_chans=input_shape[0], num_classes=num_classes, **options)
    return net
