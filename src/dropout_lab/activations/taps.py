"""Which tensors of a model are watched, and the names they go by in every plot and file."""

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from torch import nn
from torch.fx import Node
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.dropout import _DropoutNd

from dropout_lab.activations.meter import Tap
from dropout_lab.dropout.attach import attached
from dropout_lab.dropout.graph import Call, calls
from dropout_lab.dropout.maps import ACTIVATIONS

_DEFAULT = (*ACTIVATIONS, _ConvNd, nn.Linear)
_WHOLE_MAPS = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.FeatureAlphaDropout)


def taps_of(model: nn.Module, layers: Sequence[str] | None = None) -> list[Tap]:
    """The tensors to watch in a model, in the order of its calls.

    Input (``<name>_in``) and output (``<name>``) of dropout layers, and the outputs of other layers: one row for each
    call in a forward pass. A dropout layer that ``install`` has hung on a module bears the module's name, so there
    ``<name>_in`` is what the module gave. Functional calls (``F.relu``) are no modules and not seen.

    Args:
        model: looked at without being run; where ``torch.fx`` can't follow it, order of definition is order of calls.
        layers: shell patterns on names (``03_features_3``) or paths (``features.3``), for layers of any kind; all calls
            of a matching module are watched. Default: dropout, activations, convolutions and Linear.

    Raises:
        ValueError: a pattern matches nothing.
    """
    found = calls(model)
    before_norm = _before_norm(found)
    rows: dict[str, list[Tap]] = {}
    for name, layer, number in _dropout_calls(model, found):
        whole_maps = isinstance(layer, _WHOLE_MAPS) or getattr(layer, "mask", None) == "channel"
        units = "channel" if whole_maps else "sample"
        output = Tap(name, layer, "output", number, units, name in before_norm)
        rows[name] = [Tap(f"{name}_in", layer, "input", number, units), output]
    for call in found:
        if layers is not None or isinstance(call.module, _DEFAULT):
            tap = Tap(call.name, call.module, call=call.number - 1, before_norm=call.name in before_norm)
            rows.setdefault(call.name, [tap])
    chosen = sorted(rows) if layers is None else _matching(rows, layers, {call.name: call.path for call in found})
    return [tap for name in chosen for tap in rows[name]]


def model_of(module: nn.Module) -> nn.Module:
    """The network in a LightningModule: its only child with parameters if there is one, else the module itself.

    Layers are named within it, so that a network has the same layer names in every LightningModule.
    """
    children = [child for child in module.children() if next(child.parameters(), None) is not None]
    direct = next(module.parameters(recurse=False), None) is not None
    model = children[0] if len(children) == 1 and not direct else module
    return getattr(model, "_orig_mod", model)  # what torch.compile(model) wraps


def _before_norm(found: list[Call]) -> set[str]:
    """Names of the calls whose output a BatchNorm reads: there the variance shift of Li et al. (2019) does harm."""
    names = {call.node: call.name for call in found if call.node is not None}
    result = set()
    for call in found:
        if isinstance(call.module, _BatchNorm) and call.node is not None:
            source = call.node.args[0]
            while isinstance(source, Node) and source not in names and source.op == "call_module":
                source = source.args[0]  # an attached dropout layer: the row of its host
            if isinstance(source, Node) and source in names:
                result.add(names[source])
    return result


def _dropout_calls(model: nn.Module, found: list[Call]) -> Iterator[tuple[str, nn.Module, int]]:
    seen = set()
    for call in found:
        own = [call.module] if isinstance(call.module, _DropoutNd) else list(attached(call.module).values())
        for layer in own:
            seen.add(layer)
            given = getattr(layer, "name", None) if call.number == 1 else None
            yield given or call.name, layer, call.number - 1
    for layer in model.modules():  # attached where no leaf is: on containers, on the model itself
        name = getattr(layer, "name", None)
        if isinstance(layer, _DropoutNd) and layer not in seen and isinstance(name, str):
            yield name, layer, 0


def _matching(rows: dict[str, list[Tap]], patterns: Sequence[str], paths: dict[str, str]) -> list[str]:
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    modules = set()
    for pattern in patterns:
        names = [name for name in rows if fnmatchcase(name, pattern) or fnmatchcase(paths.get(name, name), pattern)]
        if not names:
            known = ", ".join(f"{name} ({paths[name]})" if name in paths else name for name in sorted(rows))
            raise ValueError(f"layers={pattern!r} matches no layer; the model has {known}")
        modules |= {rows[name][0].module for name in names}
    return sorted(name for name, taps in rows.items() if taps[0].module in modules)
