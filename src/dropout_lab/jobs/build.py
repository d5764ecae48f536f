"""Building what a configuration describes: the data, the network with dropout installed, the optimizer."""

import pkgutil
from collections.abc import Collection
from functools import partial
from typing import Any, NamedTuple, Protocol

import hydra
import torch
from omegaconf import DictConfig, open_dict
from torch import nn

from dropout_lab.dropout import Part, ScheduledRates, install_all, none
from dropout_lab.dropout.graph.calls import calls
from dropout_lab.dropout.learned import own_parameters
from dropout_lab.dropout.placement.other_noise import switch_off
from dropout_lab.dropout.schedules import Schedule
from dropout_lab.jobs.build_errors import unlocatable
from dropout_lab.jobs.overrides import WHOLE


class Data(Protocol):
    """A data module, of this package or of a fork, as far as a network depends on it."""

    num_classes: int | None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of what the model sees of a sample."""

    def suit(self, channels: int | None, image_size: int) -> None:
        """Take what a model wants for what was left open."""


def instantiate(node: DictConfig, **arguments: Any) -> Any:
    """The object that a node with a ``_target_`` describes, its lists and dictionaries plain Python."""
    return hydra.utils.instantiate(node, _convert_="all", **arguments)


def build_data(cfg: DictConfig) -> Any:
    """The data module of a configuration, its images as the model wants them where that is left open.

    A model says so with an attribute ``wants(**its configuration) -> (channels, pixels)`` of its ``_target_``;
    of channels None are any.
    """
    data: Data = instantiate(cfg.data)
    try:
        wants = getattr(pkgutil.resolve_name(cfg.model["_target_"]), "wants", None)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"model.{unlocatable(cfg.model['_target_'])}") from error
    if wants is not None:
        data.suit(*wants(**{key: value for key, value in cfg.model.items() if key != "_target_"}))
    return data


class Network(NamedTuple):
    """A network with dropout installed.

    Attributes:
        net: the network.
        layers: layer name -> module path for every layer whose numbers can be logged.
        switched_off: the noise that it had of its own, a line each.
    """

    net: nn.Module
    layers: dict[str, str]
    switched_off: list[str]


def build_network(cfg: DictConfig, data: Data) -> Network:
    """The network of a configuration with dropout installed, its initial weights drawn from torch's generator.

    Raises:
        ValueError: dropout that does not fit the network, or noise in it that can't be switched off.
    """
    outputs = module_class(cfg).outputs(data)
    net: nn.Module = instantiate(cfg.model, input_shape=data.shape, num_classes=outputs)
    sites = install_all(net, parts(cfg))
    off = switch_off(net) if cfg.get("other_noise") == "remove" else []  # runs of before there was the key have kept it
    if cfg.channels_last:
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Network(net, {call.name: call.path for call in calls(net)} | {site.name: site.site for site in sites}, off)


def parts(cfg: DictConfig) -> list[Part]:
    """The strategies of a configuration, each with its sites: that of ``dropout``, and those of ``more_dropout``.

    Where the first is none, so are the others: a baseline without dropout, at the sites of all.
    """
    make = instantiate(cfg.dropout)
    found = [Part(make, instantiate(cfg.placement))]
    for part in (cfg.get("more_dropout") or {}).values():
        own = instantiate(part.dropout)
        other = partial(none, **own.keywords) if getattr(make, "func", make) is none else own
        found.append(Part(other, instantiate(part.placement), build_schedule(part.dropout_schedule)))
    return found


def module_class(cfg: DictConfig) -> Any:
    """The class of a configuration's LightningModule, which knows things before there is a network."""
    return hydra.utils.get_class(cfg.module["_target_"])


def build_module(cfg: DictConfig, net: nn.Module, **options: Any) -> Any:
    """The LightningModule of a configuration, with its network, and with the keys of its masks."""
    return instantiate(cfg.module, net=net, seed=cfg.seed, keyed=cfg.keyed, **options)


def build_rates(cfg: DictConfig, net: nn.Module) -> ScheduledRates:
    """The rates of the dropout layers as a function of training time."""
    return ScheduledRates(net, build_schedule(cfg.dropout_schedule))


def build_schedule(node: DictConfig) -> Schedule:
    """The schedule that a node describes."""
    schedule: Schedule = instantiate(node)
    if isinstance(schedule, partial):  # Hydra's checks its target at each call, which is one a step: 0.3 ms
        schedule = partial(schedule.func, *schedule.args, **schedule.keywords)
    return schedule


def build_optimizer(cfg: DictConfig, module: Any, data: Data) -> torch.optim.Optimizer:
    """The optimizer of a module; ``optimizer.match`` also rescales the initial weights behind its network's dropout.

    Raises:
        ValueError: ``optimizer.no_decay`` for an optimizer that knows no weight decay.
    """
    options = cfg.optimizer.copy()
    with open_dict(options):
        match, spared = options.pop("match", None), options.pop("no_decay", None)
    factory, groups = instantiate(options), parameter_groups(module, spared or [])
    if match is None:
        optimizer = factory(groups)
    else:
        from dropout_lab.dropout import match_inverted

        optimizer = match_inverted(module.net, factory, torch.zeros(2, *data.shape), groups)
    if spared and "weight_decay" not in optimizer.defaults:
        raise ValueError(f"no_decay={spared}: must be [], as {type(optimizer).__name__} has no weight decay")
    return optimizer  # type: ignore[no-any-return]


def build_lr_scheduler(cfg: DictConfig, optimizer: torch.optim.Optimizer, epochs: int, steps: int) -> dict[str, Any]:
    """The learning-rate scheduler of an optimizer, as Lightning takes it: with the interval at which it is stepped.

    A value "training" is the length of the training, which is given in epochs and in steps, in the unit of interval.
    """
    options = cfg.lr_scheduler.copy()
    with open_dict(options):
        interval = options.pop("interval", "epoch")
    length = {"epoch": epochs, "step": steps}[interval]
    whole = {str(key): length for key, value in options.items() if value == WHOLE}
    return {"scheduler": instantiate(options, **whole)(optimizer), "interval": interval}


def parameter_groups(module: nn.Module, no_decay: Collection[str]) -> list[dict[str, Any]]:
    """The parameters of a module that are trained, those without weight decay in a group of their own.

    Args:
        module: with its network.
        no_decay: kinds of parameters: "bias", "norm" (all of a layer whose class is called so) and "dropout" (a
            strategy's own), which are spared in any case.
    """
    own = set(own_parameters(module).values())
    spared: dict[nn.Parameter, None] = {}  # in order, each once
    rest: dict[nn.Parameter, None] = {}
    for layer in module.modules():
        norm = "norm" in no_decay and "norm" in type(layer).__name__.lower()
        for name, parameter in layer.named_parameters(recurse=False):
            if parameter.requires_grad:
                free = parameter in own or norm or ("bias" in no_decay and name.endswith("bias"))
                (spared if free else rest)[parameter] = None
    groups: list[dict[str, Any]] = [{"params": [*rest]}]
    return [*groups, {"params": [*spared], "weight_decay": 0.0}] if spared else groups
