"""Where dropout goes in a model and how strong it is there: choose sites, give each its rate, install the layers.

    model = torchvision.models.resnet18(num_classes=10)
    install(model, Dropout, Placement("activations", p=0.2, rate="linear"))

Rates by depth, for site l = 1..L in call order and p the rate of the last site:

    constant    p
    linear      p * l / L              rises from p / L to p (Huang et al. 2016, "stochastic depth")
    geometric   1 - (1 - p) ** (l/L)   each site keeps the same fraction of what the one before keeps
    [p1, ...]   as listed
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import pairwise
from numbers import Real
from typing import NamedTuple

from torch import nn
from torch.fx import Node
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.dropout import _DropoutNd

from dropout_lab.dropout.attach import AFTER, BEFORE, attach, attached, detach
from dropout_lab.dropout.graph import Call, calls, index_digits, is_attached
from dropout_lab.dropout.maps import ACTIVATIONS, why_not_maps, why_not_maps_after

PLACES = ("default", "existing", "activations", "convolutions", "classifier", "input", "pattern")
RATES = ("constant", "linear", "geometric")


@dataclass(frozen=True)
class Placement:
    """Which sites of a model get dropout, and at what rate.

    Args:
        where: one place or several of
            "existing": instead of the dropout layers that the model has (whatever their p);
            "activations": after every activation module (ReLU, GELU, SiLU, ...);
            "convolutions": after every convolution;
            "classifier": before the last Linear, instead of a dropout layer that stands there;
            "input": on the model's input;
            "pattern": after the leaf modules whose path matches `pattern`, or instead of matching dropout layers;
            "default": "existing" if the model has any, else "classifier".
        p: probability to DROP, of every site or of the deepest one.
        rate: "constant", "linear", "geometric" (formulas at the top of this file) or a list with one p for each site.
        pattern: shell pattern, or several, on module paths: "layer4.*", "*.conv2"; `*` matches dots, too.

    A module that is called twice in a forward pass is one site, at the place of its first call.

    Raises:
        ValueError: an unknown place or rate rule; `p` outside [0, 1); "pattern" without a pattern,
            or a pattern without "pattern".
        TypeError: `p` is not a number.
    """

    where: str | Sequence[str] = "existing"
    p: float = 0.5
    rate: str | Sequence[float] = "constant"
    pattern: str | Sequence[str] | None = None

    def __post_init__(self) -> None:
        if not self.places:
            raise ValueError(f"placement.where is empty; allowed: {', '.join(PLACES)}")
        for place in self.places:
            if place not in PLACES:
                raise ValueError(f"placement.where={place!r} is not a place for dropout; allowed: {', '.join(PLACES)}")
        if isinstance(self.rate, str) and self.rate not in RATES:
            raise ValueError(f"placement.rate={self.rate!r} is unknown; allowed: {', '.join(RATES)}, or a list of p")
        if isinstance(self.p, bool) or not isinstance(self.p, Real):
            raise TypeError(f"placement.p is the probability to drop, a number with 0 <= p < 1, got {self.p!r}")
        if not 0 <= self.p < 1:
            raise ValueError(f"placement.p is the probability to drop and must be 0 <= p < 1, got {self.p!r}")
        if ("pattern" in self.places) != bool(self.patterns):
            raise ValueError(
                f"placement.where={self.where!r} with pattern={self.pattern!r}: "
                "where=pattern needs a pattern, and only that place uses one"
            )

    @property
    def places(self) -> tuple[str, ...]:
        """`where` as a tuple."""
        return (self.where,) if isinstance(self.where, str) else tuple(self.where)

    @property
    def patterns(self) -> tuple[str, ...]:
        """`pattern` as a tuple, empty if there is none."""
        if self.pattern is None or isinstance(self.pattern, str):
            return (self.pattern,) if self.pattern else ()
        return tuple(self.pattern)


class Installed(NamedTuple):
    """One installed layer: name, path of its site's module in the bare model (or "input"), drop probability."""

    name: str
    site: str
    p: float


def install(model: nn.Module, make: Callable[[float], nn.Module], placement: Placement) -> list[Installed]:
    """Put dropout layers into `model`, in place, and say where; `state_dict` keys stay as they are.

    An existing dropout layer is replaced in its parent. Everywhere else the layer becomes a child of the site's module,
    which calls it from a hook, so the modules and the code of the model stay its own. What an earlier `install` put in
    is taken out first. If anything is refused, the model stays as it was.

    Args:
        model: any model that `torch.fx` can trace; in others, definition order stands for call order.
        make: called once for each site with its rate, returns the layer: `Dropout`, `partial(Dropout, mask="channel")`.
        placement: which sites, and their rates.

    Returns:
        One `Installed` for each site, in call order.

    Raises:
        ValueError: no site; a list of rates of another length than the sites; a rate outside [0, 1); `mask="channel"`
            at a site that does not carry (N, C, *spatial) maps from a convolution, unless the layer says `elsewhere`.
    """
    sites = _sites(model, placement)
    layers = [make(p) for p in rates(placement.p, placement.rate, len(sites))]
    for site, layer in zip(sites, layers, strict=True):
        _check_stateless(layer)
        _fit_mask(site, layer)
    uninstall(model)
    for site, layer in sorted(zip(sites, layers, strict=True), key=lambda pair: pair[0].kind != "replaced"):
        _put(model, site, layer)
    return [Installed(s.name, s.path, getattr(made, "p", 0.0)) for s, made in zip(sites, layers, strict=True)]


def uninstall(model: nn.Module) -> None:
    """Take out what `install` put into `model`, in place: attached layers go, replaced dropout layers come back."""
    for host in list(model.modules()):
        detach(host)
    for layer in list(model.modules()):
        if "replaced" in vars(layer):
            _replace(model, layer, vars(layer)["replaced"])


def rates(p: float, rate: str | Sequence[float], count: int) -> list[float]:
    """The drop probability of each of `count` sites in call order; formulas at the top of this file.

    Raises:
        ValueError: an explicit list of another length than `count`.
    """
    depths = [site / count for site in range(1, count + 1)]
    if rate == "constant":
        return [p] * count
    if rate == "linear":
        return [p * depth for depth in depths]
    if rate == "geometric":
        return [p if depth == 1 else -math.expm1(depth * math.log1p(-p)) for depth in depths]
    if len(rate) != count:
        raise ValueError(
            f"placement.rate lists {len(rate)} rates, and the placement has {count} sites; give one for each"
        )
    return list(rate)  # type: ignore[arg-type]


def table(model: nn.Module) -> str:
    """The installed layers of `model` as text: name, module, what the layer does there, mask, p."""
    rows = [("name", "module", "dropout", "mask", "p")]
    for path, module in model.named_modules():
        found = [(vars(module)["replaced"], "replaced", module)] if "replaced" in vars(module) else []
        found += [(module, "after" if child == AFTER else "before", layer) for child, layer in attached(module).items()]
        for host, kind, layer in found:
            where = f"{path} ({type(host).__name__})" if path else type(host).__name__
            rows.append((str(layer.name), where, kind, str(getattr(layer, "mask", "-")), f"{layer.p:.4g}"))
    rows[1:] = sorted(rows[1:])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


@dataclass(frozen=True)
class _Site:
    """A place for one layer; `kind` is one of `_ORDER`, `values` are the tensors that the layer will drop."""

    index: int
    name: str
    path: str
    kind: str
    module: nn.Module
    values: tuple[Node | None, ...]


def _sites(model: nn.Module, placement: Placement) -> list[_Site]:
    found = calls(model)
    sites: dict[tuple[nn.Module, str], _Site] = {}
    for place in placement.places:
        here = list(_sites_at(place, model, found, placement.patterns))
        if not here:
            raise ValueError(_no_site(place, model, found))
        for site in here:
            sites.setdefault((site.module, site.kind), site)
    result = sorted(sites.values(), key=lambda site: (site.index, _ORDER.index(site.kind)))
    for first, second in pairwise(result):
        if first.name == second.name:
            raise ValueError(f"placement.where={placement.where!r} puts two dropout layers at {first.name}; choose one")
    return result


_ORDER = ("input", "before", "replaced", "after")


def _sites_at(place: str, model: nn.Module, found: list[Call], patterns: tuple[str, ...]) -> Iterator[_Site]:
    if place == "default":
        place = "existing" if any(isinstance(call.module, _DropoutNd) for call in found) else "classifier"
    if place == "input":
        yield _input_site(model, found)
    elif place == "classifier":
        yield from _classifier_site(model, found)
    else:
        for pattern in patterns or ("",):
            chosen = [call for call in found if _belongs(call, place, pattern)]
            if place == "pattern" and not chosen:
                raise ValueError(_no_site(f"pattern {pattern!r}", model, found))
            for call in chosen:
                yield _module_site(call, found)


def _belongs(call: Call, place: str, pattern: str) -> bool:
    if place == "pattern":
        return fnmatchcase(call.path, pattern)
    return isinstance(call.module, _KINDS[place])


_KINDS: dict[str, tuple[type[nn.Module], ...]] = {
    "existing": (_DropoutNd,),
    "activations": ACTIVATIONS,
    "convolutions": (_ConvNd,),
}


def _module_site(call: Call, found: list[Call]) -> _Site:
    same = [other for other in found if other.module is call.module]
    first = same[0]
    if isinstance(call.module, _DropoutNd):
        values = tuple(other.node and other.node.all_input_nodes[0] for other in same)
        return _Site(first.index, first.name, first.path, "replaced", call.module, values)
    return _Site(first.index, first.name, first.path, "after", call.module, tuple(other.node for other in same))


def _classifier_site(model: nn.Module, found: list[Call]) -> Iterator[_Site]:
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
        yield _Site(head.index, head.name, head.path, "before", head.module, (value,))


def _input_site(model: nn.Module, found: list[Call]) -> _Site:
    # A child added to a Sequential would be run as its last step: its first module takes the input in its stead.
    host = model
    while isinstance(host, nn.Sequential) and len(host):
        host = host[0]
    graph = next((call.node.graph for call in found if call.node), None)
    value = next((node for node in graph.nodes if node.op == "placeholder"), None) if graph else None
    return _Site(-1, f"{0:0{index_digits(len(found))}d}_input", "input", "input", host, (value,))


def _no_site(place: str, model: nn.Module, found: list[Call]) -> str:
    shown = ", ".join(f"{call.path} ({type(call.module).__name__})" for call in found[:8])
    more = f", ... ({len(found)} in all)" if len(found) > 8 else ""
    return (
        f"{type(model).__name__} has no site for dropout at placement.where={place}; its leaf modules are {shown}{more}"
    )


def _check_stateless(layer: nn.Module) -> None:
    keys = list(layer.state_dict())
    if keys:
        raise ValueError(
            f"{type(layer).__name__} keeps {keys[0]!r} in state_dict; a dropout layer must keep nothing there"
        )


def _fit_mask(site: _Site, layer: nn.Module) -> None:
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


def _put(model: nn.Module, site: _Site, layer: nn.Module) -> None:
    layer.name = site.name  # type: ignore[assignment]
    layer.train(site.module.training)
    if site.kind == "replaced":
        bare = model.get_submodule(site.path)  # not site.module, which may be a layer of an earlier install
        vars(layer)["replaced"] = bare  # not registered as a child: kept only for uninstall
        _replace(model, bare, layer)
    else:
        attach(site.module, layer, AFTER if site.kind == "after" else BEFORE)


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    for parent in model.modules():
        for name, child in parent._modules.items():
            if child is old:
                parent._modules[name] = new
