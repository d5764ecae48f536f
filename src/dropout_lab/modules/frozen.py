"""Trained networks that a loss asks, as a teacher: neither an optimizer nor a checkpoint of the module has them."""

from typing import Any

import torch
from torch import Tensor, nn


class Frozen:
    """A network in eval mode that no training changes.

    An attribute of a module that is one is no child of it: nothing trains it, sets its mode, averages its weights or
    saves them. What has made it makes it again where an interrupted run goes on.

    Args:
        net: trained; it is changed in place.
    """

    def __init__(self, net: nn.Module) -> None:
        self._net = net.requires_grad_(False).eval()

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Any:
        """Its output, where the input lies and in its precision."""
        first = next(self._net.parameters(), x)
        if (first.device, first.dtype) != (x.device, x.dtype):
            self._net.to(x.device, x.dtype if x.is_floating_point() else None)
        return self._net(x)
