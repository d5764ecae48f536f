"""Installing dropout in a model: choose sites, give each its rate, put the layers there.

model = torchvision.models.resnet18(num_classes=10)
install(model, Dropout, Placement("activations", p=0.2, rate="linear"))
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from numbers import Real
from typing import Any, NamedTuple

from torch import nn

from dropout_lab.dropout.graph.hooks import AFTER, BEFORE, INSIDE, attach, attached, detach, require_free, restore
from dropout_lab.dropout.placement.attention import put_inside, take_out
from dropout_lab.dropout.placement.attn_drop import forget_rows, show_rows
from dropout_lab.dropout.placement.placement import Placement, rates_of_sites
from dropout_lab.dropout.placement.sites import Site, find_sites, fit_mask, in_order, input_host
from dropout_lab.dropout.schedules import Schedule


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
    return install_all(model, [Part(make, placement)])


class Part(NamedTuple):
    """One of several strategies in a model.

    Attributes:
        make: as for :func:`install`.
        placement: as for :func:`install`.
        schedule: how its p changes over training; None: as that of the model's other layers.
    """

    make: Callable[..., nn.Module]
    placement: Placement
    schedule: Schedule | None = None


def install_all(model: nn.Module, parts: Sequence[Part]) -> list[Installed]:
    """Put the dropout layers of several strategies into `model`, each at sites of its own: see :func:`install`.

    Raises:
        ValueError: two of them meet at one site; else as :func:`install`.
    """
    made: list[tuple[Site, Any]] = []
    for make, placement, schedule in parts:
        sites = find_sites(model, placement.places, placement.patterns)
        named = "p" in getattr(make, "keywords", {})
        for site, p in zip(sites, rates_of_sites(placement, sites), strict=True):
            layer: Any = make(p=p) if named else make(p)
            _require_dropout_layer(layer)
            fit_mask(site, layer)
            if site.kind not in ("replaced", "inside"):
                require_free(site.module, _child(site))
            if schedule is not None:
                layer.schedule = schedule
            made.append((site, layer))
    made = in_order(made, " and ".join(",".join(part.placement.places) for part in parts))
    uninstall(model)
    for site, layer in sorted(made, key=lambda pair: pair[0].kind != "replaced"):
        _put(model, site, layer)
    return [Installed(site.name, site.path, layer.p) for site, layer in made]


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
