"""Where dropout goes in a model and how strong it is there: choose sites, give each its rate, install the layers.

    model = torchvision.models.resnet18(num_classes=10)
    install(model, Dropout, Placement("activations", p=0.2, rate="linear"))

Rates by depth, for site l = 1..L in call order and p the rate of the last site; of branches, l counts blocks:

    constant    p
    linear      p * l / L              rises from p / L to p (Huang et al. 2016, "stochastic depth")
    geometric   1 - (1 - p) ** (l/L)   each site keeps the same fraction of what the one before keeps
    [p1, ...]   as listed
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple

from torch import nn

from dropout_lab.dropout.axes import require_rate
from dropout_lab.dropout.graph.hooks import AFTER, BEFORE, INSIDE, attach, attached, detach, require_free, restore
from dropout_lab.dropout.placement.attention import put_inside, take_out
from dropout_lab.dropout.placement.attn_drop import forget_rows, show_rows
from dropout_lab.dropout.placement.sites import PLACES, Site, find_sites, fit_mask, input_host

RATES = ("constant", "linear", "geometric")


@dataclass(frozen=True)
class Placement:
    """Which sites of a model get dropout, and at what rate.

    Args:
        where: one place or several of
            "existing": instead of the dropout layers that the model has (whatever their p);
            "activations": after every activation module (ReLU, GELU, SiLU, ...) that sees data, not parameters only;
            "convolutions": after every convolution, likewise;
            "classifier": before the last Linear, instead of a dropout layer that stands there;
            "input": on the model's input;
            "branches": at the end of every residual branch, before it is added to its shortcut; instead of stochastic
                depth (DropPath) that stands there; where a model can't be traced, only there;
            "attention": on the attention weights, (N, heads, L, S): of `nn.MultiheadAttention`, of torchvision's Swin
                and MaxViT, and instead of dropout layers behind a softmax or called `attn_drop` (timm);
            "pattern": after the leaf modules whose path matches `pattern`, or instead of dropout and stochastic depth;
                where it matches none, after the blocks that it matches;
            "default": "existing" if the model has any, else "classifier";
            "none": nowhere, and dropout layers that the model has stay as they are.
        p: probability to DROP, of every site or of the deepest one.
        rate: "constant", "linear", "geometric" (formulas at the top of this file) or a list with one p for each site.
        pattern: shell pattern, or several, on module paths: "layer4.*", "*.conv2"; `*` matches dots, too.

    A module that is called twice in a forward pass is one site, at the place of its first call.

    Raises:
        ValueError: an unknown place or rate rule; `p`, or one of the list, outside [0, 1); "pattern" without a
            pattern, or a pattern without "pattern".
        TypeError: `p`, or one of the list, is not a number.
    """

    where: str | Sequence[str] = "existing"
    p: float = 0.5
    rate: str | Sequence[float] = "constant"
    pattern: str | Sequence[str] | None = None

    def __post_init__(self) -> None:
        unknown = [str(place) for place in self.places if place not in PLACES]
        if unknown or not self.places:
            raise ValueError(f"placement.where={','.join(unknown)}: must be one or several of {', '.join(PLACES)}")
        if "none" in self.places and len(self.places) > 1:
            raise ValueError(f"placement.where={','.join(self.places)}: none can't be together with other places")
        if isinstance(self.rate, str) and self.rate not in RATES:
            raise ValueError(f"placement.rate={self.rate}: must be {', '.join(RATES)}, or a list of p")
        require_rate(self.p, "placement.")
        for p in () if isinstance(self.rate, str) else self.rate:
            require_rate(p, "placement.rate: ")
        if ("pattern" in self.places) != bool(self.patterns):
            raise ValueError(
                f"placement.where={self.where!r} with pattern={self.pattern!r}: "
                "where=pattern needs a pattern, and only that place uses one"
            )

    @property
    def places(self) -> tuple[str, ...]:
        """The places of `where` as a tuple."""
        return (self.where,) if isinstance(self.where, str) else tuple(self.where)

    @property
    def patterns(self) -> tuple[str, ...]:
        """The patterns of `pattern` as a tuple, empty if there is none."""
        if self.pattern is None or isinstance(self.pattern, str):
            return (self.pattern,) if self.pattern else ()
        return tuple(self.pattern)


class Installed(NamedTuple):
    """One installed layer: name, path of its site's module in the bare model (or "input"), drop probability."""

    name: str
    site: str
    p: float


def install(model: nn.Module, make: Callable[..., nn.Module], placement: Placement) -> list[Installed]:
    """Put dropout layers into `model`, in place, and say where; `state_dict` keys stay, those of a learned p are new.

    An existing dropout layer is replaced in its parent. Everywhere else the layer becomes a child of the site's module,
    which calls it from a hook, or as a subclass of its own class if it is attention, so the modules and the code of the
    model stay its own. What an earlier `install` put in is taken out first. If anything is refused, the model stays as
    it was.

    Args:
        model: any model that `torch.fx` can trace; in others, definition order stands for call order.
        make: called once for each site with its rate, returns the layer: `Dropout`, `partial(Dropout, mask="channel")`.
            A partial that already names a p (what Hydra makes of conf/dropout) gets the site's rate instead of it.
        placement: which sites, and their rates.

    Returns:
        One `Installed` for each site, in call order.

    Raises:
        ValueError: no site; a list of rates of another length than the sites; a rate outside [0, 1); `mask="channel"`
            at a site that does not carry (N, C, *spatial) maps from a convolution, unless the layer says `elsewhere`.
        TypeError: `make` returns something without a drop probability `p`.
    """
    sites = find_sites(model, placement.places, placement.patterns)
    named = "p" in getattr(make, "keywords", {})
    layers: list[Any] = [make(p=p) if named else make(p) for p in _rates(placement, sites)]
    for site, layer in zip(sites, layers, strict=True):
        _require_dropout_layer(layer)
        fit_mask(site, layer)
        if site.kind not in ("replaced", "inside"):
            require_free(site.module, _child(site))
    uninstall(model)
    for site, layer in sorted(zip(sites, layers, strict=True), key=lambda pair: pair[0].kind != "replaced"):
        _put(model, site, layer)
    return [Installed(site.name, site.path, layer.p) for site, layer in zip(sites, layers, strict=True)]


def uninstall(model: nn.Module) -> None:
    """Take out what `install` put into `model`, in place: attached layers go, replaced dropout layers come back."""
    for host in list(model.modules()):
        detach(host)
        take_out(host)
        forget_rows(host)
        restore(host)
    for layer in list(model.modules()):
        if "replaced" in vars(layer):
            _replace(model, layer, vars(layer)["replaced"])


def layers_of(model: nn.Module) -> Iterator[nn.Module]:
    """The layers that `install` has put into `model`."""
    return (layer for *_, layer in _placed(model))


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
            f"placement.rate={list(rate)}: lists {len(rate)} rates, and the placement has {count} sites; "
            "give one for each"
        )
    return list(rate)  # type: ignore[arg-type]


def site_table(model: nn.Module) -> str:
    """The installed layers of `model` as text: name, module, what the layer does there, mask, p."""
    rows = [("name", "module", "dropout", "mask", "p")]
    for path, host, kind, layer in _placed(model):
        where = f"{path} ({type(host).__name__})" if path else type(host).__name__
        rows.append((str(layer.name), where, kind, str(getattr(layer, "mask", "-")), f"{layer.p:.4g}"))
    rows[1:] = sorted(rows[1:])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _placed(model: nn.Module) -> Iterator[tuple[str, nn.Module, str, Any]]:
    """Path and module of each site of an installed model, what its layer does there, and the layer."""
    for path, module in model.named_modules():
        if "replaced" in vars(module):
            yield path, vars(module)["replaced"], "replaced", module
        for child, layer in attached(module).items():
            yield path, module, "after" if child == AFTER else "before", layer
        if INSIDE in module._modules:
            yield path, module, "inside", module.get_submodule(INSIDE)


def _rates(placement: Placement, sites: Sequence[Site]) -> list[float]:
    """The drop probability of each site; sites of one block have the same depth."""
    if not isinstance(placement.rate, str):
        return rates(placement.p, placement.rate, len(sites))
    blocks = list(dict.fromkeys(site.block or site.name for site in sites))
    of_block = dict(zip(blocks, rates(placement.p, placement.rate, len(blocks)), strict=True))
    return [of_block[site.block or site.name] for site in sites]


def _require_dropout_layer(layer: object) -> None:
    if not isinstance(layer, nn.Module):
        raise TypeError(f"make(p) must return a dropout layer, a torch.nn.Module, got {type(layer).__name__}")
    if not isinstance(getattr(layer, "p", None), Real):
        raise TypeError(f"{type(layer).__name__} has no drop probability p, so it is no dropout layer")
    own = dict(layer.named_parameters())
    if other := next((key for key in layer.state_dict() if key not in own), None):
        raise ValueError(
            f"{type(layer).__name__} keeps {other!r} in state_dict; a dropout layer must keep nothing there but "
            "parameters of its own (a buffer: persistent=False)"
        )
    if scalar := next((name for name, parameter in own.items() if parameter.ndim == 0), None):
        raise ValueError(
            f"{type(layer).__name__}: its parameter {scalar!r} has no dimension; give it one, torch.ones(1), as what "
            "splits parameters over processes (FSDP) does so along the first"
        )


def _child(site: Site) -> str:
    return AFTER if site.kind == "after" else BEFORE


def _put(model: nn.Module, site: Site, layer: Any) -> None:
    layer.name = site.name
    layer.train(site.module.training)
    if site.kind == "replaced":
        bare = model.get_submodule(site.path)  # not site.module, which may be a layer of an earlier install
        vars(layer)["replaced"] = bare  # not registered as a child: kept only for uninstall
        _replace(model, bare, layer)
        show_rows(model, site.path, layer)
        if any(
            isinstance(parent, nn.TransformerEncoderLayer) and layer in parent.children() for parent in model.modules()
        ):
            layer.register_forward_pre_hook(_no_fast_path)
    elif site.kind == "inside":
        put_inside(model, site.module, layer)
    else:
        attach(input_host(model) if site.kind == "input" else site.module, layer, _child(site))


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    for parent in model.modules():
        for name, child in parent._modules.items():
            if child is old:
                parent._modules[name] = new


def _no_fast_path(layer: nn.Module, args: tuple[Any, ...]) -> None:
    """A hook that only keeps `nn.TransformerEncoderLayer` from its eval kernel, which skips dropout layers."""
