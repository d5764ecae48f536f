"""The sites of a model where dropout can go, found by place: existing layers, activations, convolutions, ...

A site is a module with the values that pass it; `install.py` decides on rates and puts the layers there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from itertools import combinations
from typing import TypeVar

from torch import nn
from torch.fx import Node
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.dropout import _DropoutNd

from dropout_lab.dropout.graph.calls import Call, calls, depends_on_input, is_attached
from dropout_lab.dropout.graph.feature_maps import why_not_maps, why_not_maps_after
from dropout_lab.dropout.graph.layer_names import layer_name
from dropout_lab.dropout.graph.nodes import ACTIVATIONS
from dropout_lab.dropout.placement.attention import attention_calls
from dropout_lab.dropout.placement.attn_drop import hidden_calls, is_attn_drop
from dropout_lab.dropout.placement.branches import branches, drops_branches

PLACES = (
    "default", "existing", "activations", "convolutions", "classifier", "input", "branches", "attention", "pattern",
    "none",
)  # fmt: skip
T = TypeVar("T")
KINDS = ("input", "before", "replaced", "after", "inside")


@dataclass(frozen=True)
class Site:
    """A place for one dropout layer.

    Attributes:
        index: position of its first call among the leaf calls of the bare model; -1 for the model's input.
        name: the name of that call, which the layer gets; `00_input` for the model's input.
        path: path of the module in the bare model; `input` for the model's input.
        kind: what the layer does there: drops the "input" of the model, "before" the module, "replaced" (it stands
            instead of the module, a dropout layer), "after" the module, "inside" it (attention drops its weights).
        module: the module that is replaced or gets the layer attached.
        values: what will be dropped, one for each call of the module; None where the graph does not show it.
        block: what shares one depth where rates rise with it; by default the module.
    """

    index: int
    name: str
    path: str
    kind: str
    module: nn.Module
    values: tuple[Node | None, ...]
    block: str | None = None


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
    return [site for site, _ in in_order([(site, None) for site in sites.values()], ",".join(places))]


def in_order(filled: Iterable[tuple[Site, T]], where: str) -> list[tuple[Site, T]]:
    """Sites, each with what it gets, in call order.

    Args:
        filled: the sites of all places.
        where: these places, to be told.

    Raises:
        ValueError: two of them are the same for the layers that they get.
    """
    result = sorted(filled, key=lambda pair: (pair[0].index, KINDS.index(pair[0].kind)))
    for (first, _), (second, _) in combinations(result, 2):
        same_host = first.module is second.module and {first.kind, second.kind} == {"input", "before"}
        if first.name == second.name or same_host:
            raise ValueError(f"placement.where={where} puts two dropout layers at {second.name}; choose one")
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
    if site.kind == "inside" or is_attn_drop(site.path, site.module):
        reasons = ["attention weights are no maps"]
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
    elif place == "branches":
        for call, block in branches(model, found):
            yield _module_site(call, found, block)
    elif place == "attention":
        for call in attention_calls(model, found):
            if isinstance(call.module, _DropoutNd):
                yield _module_site(call, found)
            else:
                yield Site(call.index, call.name, call.path, "inside", call.module, (None,))
    elif place == "pattern":
        for pattern in patterns:
            yield from _pattern_sites(pattern, model, found)
    else:
        for call in [*found, *hidden_calls(model, found)]:
            if _belongs(call, place):
                yield _module_site(call, found)


def _belongs(call: Call, place: str) -> bool:
    if place != "existing" and call.node is not None and not depends_on_input(call.node):
        return False
    return isinstance(call.module, _KINDS[place])


_KINDS: dict[str, tuple[type[nn.Module], ...]] = {
    "existing": (_DropoutNd,),
    "activations": ACTIVATIONS,
    "convolutions": (_ConvNd,),
}


def _pattern_sites(pattern: str, model: nn.Module, found: list[Call]) -> Iterator[Site]:
    """The leaf modules that a pattern names; where it names none, what else it names that has a forward pass."""
    leaves = [call for call in [*found, *hidden_calls(model, found)] if fnmatchcase(call.path, pattern)]
    for call in leaves:
        yield _module_site(call, found)
    if leaves:
        return
    blocks = _containers(model, found)
    named = [path for path in blocks if fnmatchcase(path, pattern)]
    if not named:
        close = get_close_matches(pattern, [*blocks, *(call.path for call in found)], n=1)
        near = f"did you mean {close[0]!r}? " if close else ""
        some = ", ".join([*list(blocks)[:6], *["..."] * (len(blocks) > 6)]) or "none"
        raise ValueError(_no_site(f"pattern {pattern!r}", model, found, f"{near}its blocks are {some}; "))
    for path in named:
        last = blocks[path]
        module = model.get_submodule(path)
        # A child added to a plain Sequential would be run as its last step.
        if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
            inner = f"{path}.{len(module) - 1}"
            yield _module_site(last, found) if last.path == inner else _container_site(inner, model, last, len(found))
        else:
            yield _container_site(path, model, last, len(found))


def _container_site(path: str, model: nn.Module, last: Call, count: int) -> Site:
    return Site(last.index, layer_name(last.index, count, path), path, "after", model.get_submodule(path), (None,))


def _containers(model: nn.Module, found: list[Call]) -> dict[str, Call]:
    """The modules with children that a forward pass calls, each with the last leaf call in it, in call order."""
    graph = next((call.node.graph for call in found if call.node), None)
    called = {path for node in graph.nodes for path in node.meta.get("nn_module_stack", {})} if graph else None
    last: dict[str, Call] = {}
    for call in found:
        owner = call.path.rpartition(".")[0]
        while owner:
            silent = type(model.get_submodule(owner)).forward is nn.Module.forward  # a ModuleList
            if not silent and (called is None or owner in called):
                last[owner] = call
            owner = owner.rpartition(".")[0]
    return dict(sorted(last.items(), key=lambda each: each[1].index))


def _module_site(call: Call, found: list[Call], block: str | None = None) -> Site:
    """A site after a module, or instead of dropout that it is; at the end of a block's branch, of depth that it is."""
    same = [other for other in found if other.module is call.module] or [call]
    first = same[0]
    if (isinstance(call.module, _DropoutNd) and block is None) or drops_branches(call.module):
        values = tuple(other.node and other.node.all_input_nodes[0] for other in same)
        return Site(first.index, first.name, first.path, "replaced", call.module, values, block)
    return Site(first.index, first.name, first.path, "after", call.module, tuple(other.node for other in same), block)


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


def _no_site(place: str, model: nn.Module, found: list[Call], near: str = "") -> str:
    if place == "branches" and found and all(call.node is None for call in found):
        place += (
            ": torch.fx can't trace it, so of its residual branches only DropPath modules would be seen; name modules "
        )
        place += "with placement.pattern"
    some = ", ".join(f"{call.path} ({type(call.module).__name__})" for call in found[:8])
    more = f", ... ({len(found)} in all)" if len(found) > 8 else ""
    where = f"{type(model).__name__} has no site for dropout at placement.where={place}"
    return f"{where}; {near}its leaf modules are {some}{more}"
