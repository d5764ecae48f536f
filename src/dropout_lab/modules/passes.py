"""Several passes through a network in one training step: the first alone counts in running statistics."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from dropout_lab.dropout.graph.hooks import intercepting

_STATISTICS = "running_mean", "running_var", "num_batches_tracked"


@contextmanager
def first_counts(net: nn.Module) -> Iterator[None]:
    """Passes after the first normalise with their own batch's statistics, as it does, and leave the running ones.

    Without that a step with k passes would be k steps to BatchNorm, and its momentum another one.
    """
    kept: dict[nn.Module, list[Any]] = {}

    def first_ended(*_: Any) -> None:
        for layer in net.modules():
            if isinstance(layer, _NormBase) and layer.training and layer.running_mean is not None:
                kept[layer] = [getattr(layer, name) for name in _STATISTICS]
                for name in _STATISTICS:  # the layers, those of all processes together among them, then keep none
                    setattr(layer, name, None)

    try:
        with intercepting([net], after=first_ended):
            yield
    finally:
        for layer, values in kept.items():
            for name, value in zip(_STATISTICS, values, strict=True):
                setattr(layer, name, value)
