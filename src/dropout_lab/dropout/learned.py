"""What strategies learn: which of a model's parameters belong to its dropout layers."""

from torch import nn

from dropout_lab.dropout.layer import Dropout


def own_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of the dropout layers of ``model``, by their names in it."""
    return {
        f"{path}.{name}" if path else name: parameter
        for path, layer in model.named_modules()
        if isinstance(layer, Dropout)
        for name, parameter in layer.named_parameters()
    }
