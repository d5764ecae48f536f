"""Which tensors of a model are watched, and the names they go by in every plot and file."""

from collections.abc import Iterator

from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from dropout_lab.activations.meter import Tap
from dropout_lab.dropout.attach import attached
from dropout_lab.dropout.graph import calls

_WHOLE_MAPS = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.FeatureAlphaDropout)


def dropout_taps(model: nn.Module) -> list[Tap]:
    """Input (``<name>_in``) and output (``<name>``) of every dropout layer, one pair for each call in a forward pass.

    A layer that ``install`` has named keeps that name; others are named by their place in the order of calls.
    """
    taps = []
    for name, layer, call in _dropout_calls(model):
        whole_maps = isinstance(layer, _WHOLE_MAPS) or getattr(layer, "mask", None) == "channel"
        units = "channel" if whole_maps else "sample"
        taps += [Tap(f"{name}_in", layer, "input", call, units), Tap(name, layer, "output", call, units)]
    return taps


def model_of(module: nn.Module) -> nn.Module:
    """The network in a LightningModule: its only child with parameters if there is one, else the module itself.

    Layers are named within it, so that a network has the same layer names in every LightningModule.
    """
    children = [child for child in module.children() if next(child.parameters(), None) is not None]
    direct = next(module.parameters(recurse=False), None) is not None
    model = children[0] if len(children) == 1 and not direct else module
    return getattr(model, "_orig_mod", model)  # what torch.compile(model) wraps


def _dropout_calls(model: nn.Module) -> Iterator[tuple[str, nn.Module, int]]:
    seen = set()
    for call in calls(model):
        own = [call.module] if isinstance(call.module, _DropoutNd) else list(attached(call.module).values())
        for layer in own:
            seen.add(layer)
            given = getattr(layer, "name", None) if call.number == 1 else None
            yield given or call.name, layer, call.number - 1
    for layer in model.modules():  # attached where no leaf is: on containers, on the model itself
        name = getattr(layer, "name", None)
        if isinstance(layer, _DropoutNd) and layer not in seen and isinstance(name, str):
            yield name, layer, 0
