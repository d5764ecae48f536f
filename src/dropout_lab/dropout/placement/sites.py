"""The sites of a model where dropout can go, found by place: existing layers, activations, convolutions, ...

A site is a module with the values that pass it; `install.py` decides on rates and puts the layers there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import combinations

from torch import nn
from torch.fx import Node
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.dropout import _DropoutNd

from dropout_lab.dropout.graph.calls import Call, calls, depends_on_input, is_attached
from dropout_lab.dropout.graph.feature_maps import why_not_maps, why_not_maps_after
from dropout_lab.dropout.graph.layer_names import layer_name
from dropout_lab.dropout.graph.nodes import ACTIVATIONS

PLACES = ("default", "existing", "activations", "convolutions", "classifier", "input", "pattern", "none")
KINDS = ("input", "before", "replaced", "after")


@dataclass(frozen=True)
class Site:
    """A place for one dropout layer.

    Attributes:
        index: position of its first call among the leaf calls of the bare model; -1 for the model's input.
        name: the name of that call, which the layer gets; `00_input` for the model's input.
        path: path of the module in the bare model; `input` for the model's input.
        kind: what the layer does there: drops the "input" of the model, "before" the module, "replaced" (it stands
            instead of the module, a dropout layer), "after" the module.
        module: the module that is replaced or gets the layer attached.
        values: what will be dropped, one for each call of the module; None where the graph does not show it.
    """

    index: int
    name: str
    path: str
    kind: str
    module: nn.Module
    values: tuple[Node | None, ...]


def find_sites(model: nn.Module, places: Sequence[str], patterns: Sequence[str]) -> list[Site]:
    """The sites of `model` at these places, in call order, each once; "none" has none.

    Raises:
        ValueError: a place or pattern without any site (the message lists candidates), two layers at one site.
    """
    if "none" in places:
        return []
    found = calls(model)
    sites: dict[tuple[nn.Module, str], Site] = {}
    for place in places:
        here = list(_sites_at(place, model, found, patterns))
        if not here:
            raise ValueError(_no_site(place, model, found))
        for site in here:
            sites.setdefault((site.module, site.kind), site)
    result = sorted(sites.values(), key=lambda site: (site.index, KINDS.index(site.kind)))
    for first, second in combinations(result, 2):
        same_host = first.module is second.module and {first.kind, second.kind} == {"input", "before"}
        if first.name == second.name or same_host:
            raise ValueError(f"placement.where={','.join(places)} puts two dropout layers at {second.name}; choose one")
    return result


def input_host(model: nn.Module) -> nn.Module:
    """The module whose input is the model's input: the model, or what comes first in a Sequential.

    A child added to a Sequential would be run as its last step, so the model itself can't host a layer there.
    """
    host = model
    while isinstance(host, nn.Sequential) and len(host):
        host = host[0]
    return host


def fit_mask(site: Site, layer: nn.Module) -> None:
    """Fit the mask of a layer to its site: whole channels go only where there are maps.

    Raises:
        ValueError: `layer.mask` is "channel", the site carries no maps, and `layer.elsewhere` names no other mask.
    """
    if getattr(layer, "mask", None) != "channel":
        return
    reasons = [why_not_maps(value) if value else why_not_maps_after(site.module) for value in site.values]
    reason = next(filter(None, reasons), None)
    if reason is None:
        return
    elsewhere = getattr(layer, "elsewhere", None)
    if elsewhere is None:
        raise ValueError(
            f"channel dropout can't go {site.kind.replace('replaced', 'in place of')} {site.path} ({site.name}): "
            f"it needs (N, C, *spatial) maps made by a convolution, and {reason}; "
            "use dropout.elsewhere=element, another placement (convolutions, a pattern) or another dropout"
        )
    layer.mask = elsewhere


def _sites_at(place: str, model: nn.Module, found: list[Call], patterns: Sequence[str]) -> Iterator[Site]:
    if place == "default":
        place = "existing" if any(isinstance(call.module, _DropoutNd) for call in found) else "classifier"
    if place == "input":
        yield _input_site(model, found)
    elif place == "classifier":
        yield from _classifier_site(model, found)
    else:
        for pattern in patterns if place == "pattern" else ("",):
            chosen = [call for call in found if _belongs(call, place, pattern)]
            if place == "pattern" and not chosen:
                raise ValueError(_no_site(f"pattern {pattern!r}", model, found))
            for call in chosen:
                yield _module_site(call, found)


def _belongs(call: Call, place: str, pattern: str) -> bool:
    if place == "pattern":
        return fnmatchcase(call.path, pattern)
    if place != "existing" and call.node is not None and not depends_on_input(call.node):
        return False
    return isinstance(call.module, _KINDS[place])


_KINDS: dict[str, tuple[type[nn.Module], ...]] = {
    "existing": (_DropoutNd,),
    "activations": ACTIVATIONS,
    "convolutions": (_ConvNd,),
}


def _module_site(call: Call, found: list[Call]) -> Site:
    same = [other for other in found if other.module is call.module]
    first = same[0]
    if isinstance(call.module, _DropoutNd):
        values = tuple(other.node and other.node.all_input_nodes[0] for other in same)
        return Site(first.index, first.name, first.path, "replaced", call.module, values)
    return Site(first.index, first.name, first.path, "after", call.module, tuple(other.node for other in same))


def _classifier_site(model: nn.Module, found: list[Call]) -> Iterator[Site]:
    head = next((call for call in reversed(found) if isinstance(call.module, nn.Linear)), None)
    if head is None:
        return
    value = head.node and head.node.all_input_nodes[0]
    while value is not None and value.op == "call_module" and is_attached(model, str(value.target)):
        value = value.all_input_nodes[0]
    feeding = next((call for call in found if call.node is value is not None), None)
    if feeding is not None and isinstance(feeding.module, _DropoutNd):
        yield _module_site(feeding, found)
    else:
        yield Site(head.index, head.name, head.path, "before", head.module, (value,))


def _input_site(model: nn.Module, found: list[Call]) -> Site:
    graph = next((call.node.graph for call in found if call.node), None)
    value = next((node for node in graph.nodes if node.op == "placeholder"), None) if graph else None
    return Site(-1, layer_name(0, len(found), "input"), "input", "input", input_host(model), (value,))


def _no_site(place: str, model: nn.Module, found: list[Call]) -> str:
    some = ", ".join(f"{call.path} ({type(call.module).__name__})" for call in found[:8])
    more = f", ... ({len(found)} in all)" if len(found) > 8 else ""
    return (
        f"{type(model).__name__} has no site for dropout at placement.where={place}; its leaf modules are {some}{more}"
    )
