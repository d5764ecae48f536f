"""Taps: the tensors of a model that are watched, and the names they go by in every plot and file."""

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple, TypeVar

from torch import nn
from torch.fx import Node
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.dropout import _DropoutNd

from dropout_lab.dropout.graph.calls import Call, calls
from dropout_lab.dropout.graph.hooks import attached
from dropout_lab.dropout.graph.nodes import ACTIVATIONS

_DEFAULT = (*ACTIVATIONS, _ConvNd, nn.Linear)
_WHOLE_MAPS = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.FeatureAlphaDropout)
T = TypeVar("T")


class Tap(NamedTuple):
    """One tensor to watch: the input or the output of one call of a module.

    ``units`` says what varies independently, for the standard errors: "sample", or "channel" for each (sample,
    channel) where whole maps are dropped. ``before_norm`` notes that a BatchNorm reads this tensor. Of a tuple, list or
    dict the first floating-point tensor counts.
    """

    name: str
    module: nn.Module
    where: str = "output"
    call: int = 0
    units: str = "sample"
    before_norm: bool = False


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
    """The network in a LightningModule: what it calls ``watched``, else its only child with parameters, else itself.

    Layers are named within it, so that a network has the same layer names in every LightningModule.
    """
    children = [child for child in module.children() if next(child.parameters(), None) is not None]
    direct = next(module.parameters(recurse=False), None) is not None
    model = getattr(module, "watched", children[0] if len(children) == 1 and not direct else module)
    return getattr(model, "_orig_mod", model)  # what torch.compile(model) wraps


def chosen_for_loggers(taps: Sequence[Tap], most: int | None) -> set[str]:
    """Names of at most ``most`` tensors, for loggers, where each costs seven keys or more.

    Dropout layers come first, each with its input, then evenly spaced others.
    Where not even the dropout layers fit they are evenly spaced, too. The last of each kind is always among them.

    Args:
        taps: what is watched, in order of depth.
        most: at least 2; None: all.
    """
    if most is None or len(taps) <= most:
        return {tap.name for tap in taps}
    layers: dict[tuple[int, int], list[str]] = {}  # (layer, call): its input and its output
    others = []
    for tap in taps:
        if isinstance(tap.module, _DropoutNd):
            layers.setdefault((id(tap.module), tap.call), []).append(tap.name)
        else:
            others.append(tap.name)
    kept = {name for names in _spaced(list(layers.values()), most // 2) for name in names}
    return kept | set(_spaced(others, most - len(kept)))


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
        own = list(attached(call.module).values()) or [call.module] * _may_drop(call.module)
        for layer in own:
            seen.add(layer)
            given = getattr(layer, "name", None) if call.number == 1 else None
            yield given or call.name, layer, call.number - 1
    for layer in model.modules():  # attached where no leaf is: on containers, on the model itself
        name = getattr(layer, "name", None)
        if isinstance(layer, _DropoutNd) and layer not in seen and isinstance(name, str):
            yield name, layer, 0


def _may_drop(module: nn.Module) -> bool:
    """Whether a module is a dropout layer, and none that idles where no strategy was installed."""
    return isinstance(module, _DropoutNd) and (module.p > 0 or isinstance(getattr(module, "name", None), str))


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


def _spaced(items: Sequence[T], most: int) -> list[T]:
    """At most so many of the items, evenly spaced, the last and (of two or more) the first among them."""
    # Not `thinned` of runs, which stands above this room, rounds and keeps the first of one.
    count, last = min(most, len(items)), len(items) - 1
    return [items[last - number * last // max(count - 1, 1)] for number in range(count)]
