"""Penalties: terms of the loss that dropout layers state themselves, such as that of a rate which is learned."""

from typing import Any

from torch import Tensor, nn

from dropout_lab.dropout.graph.fed import fed_layers


class Penalties:
    """The penalties of a network's dropout layers; a layer has one if it has a method ``penalty(fed, rows)``.

    Args:
        net: with dropout installed.

    Attributes:
        terms: method and what the layer feeds, for each layer that has one.
        samples: how many the loss is a mean of over an epoch; to be set before training.

    Raises:
        ValueError: what such a layer feeds can't be told, as the network can't be traced.
    """

    def __init__(self, net: nn.Module) -> None:
        layers: list[Any] = [layer for layer in net.modules() if hasattr(layer, "penalty")]
        fed: Any = fed_layers(net) if layers else {}
        self.terms = [(layer.penalty, fed.get(layer, [])) for layer in layers]
        self.samples = 1

    def total(self) -> Tensor:
        """Their sum, as the weights are now."""
        total: Tensor = sum(penalty(fed, self.samples) for penalty, fed in self.terms)  # type: ignore[assignment]
        return total
