"""Building what a configuration describes: the data, the network with dropout installed, the optimizer."""

import pkgutil
from functools import partial
from typing import Any, Protocol

import hydra
import torch
from omegaconf import DictConfig, open_dict
from torch import nn

from dropout_lab.dropout import ScheduledRates, install
from dropout_lab.dropout.graph.calls import calls
from dropout_lab.jobs.build_errors import unlocatable


class Data(Protocol):
    """A data module, of this package or of a fork, as far as a network depends on it."""

    num_classes: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of what the model sees of a sample."""

    def suit(self, channels: int, image_size: int) -> None:
        """Take what a model wants for what was left open."""


def instantiate(node: DictConfig, **arguments: Any) -> Any:
    """The object that a node with a ``_target_`` describes, its lists and dictionaries plain Python."""
    return hydra.utils.instantiate(node, _convert_="all", **arguments)


def build_data(cfg: DictConfig) -> Any:
    """The data module of a configuration, its images as the model wants them where that is left open.

    A model says so with an attribute ``wants(**its configuration) -> (channels, pixels)`` of its ``_target_``.
    """
    data: Data = instantiate(cfg.data)
    try:
        wants = getattr(pkgutil.resolve_name(cfg.model["_target_"]), "wants", None)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"model.{unlocatable(cfg.model['_target_'])}") from error
    if wants is not None:
        data.suit(*wants(**{key: value for key, value in cfg.model.items() if key != "_target_"}))
    return data


def build_network(cfg: DictConfig, data: Data) -> tuple[nn.Module, dict[str, str]]:
    """The network of a configuration with dropout installed, its initial weights drawn from torch's generator.

    Returns:
        the network, and layer name -> module path for every layer whose numbers can be logged.
    """
    outputs = module_class(cfg).outputs(data)
    net: nn.Module = instantiate(cfg.model, input_shape=data.shape, num_classes=outputs)
    sites = install(net, instantiate(cfg.dropout), instantiate(cfg.placement))
    if cfg.channels_last:
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return net, {call.name: call.path for call in calls(net)} | {site.name: site.site for site in sites}


def module_class(cfg: DictConfig) -> Any:
    """The class of a configuration's LightningModule, which knows things before there is a network."""
    return hydra.utils.get_class(cfg.module["_target_"])


def build_module(cfg: DictConfig, net: nn.Module, **options: Any) -> Any:
    """The LightningModule of a configuration, with its network, and with the keys of its masks."""
    return instantiate(cfg.module, net=net, seed=cfg.seed, keyed=cfg.keyed, **options)


def build_rates(cfg: DictConfig, net: nn.Module) -> ScheduledRates:
    """The rates of the dropout layers as a function of training time."""
    schedule = instantiate(cfg.dropout_schedule)
    if isinstance(schedule, partial):  # Hydra's checks its target at each call, which is one a step: 0.3 ms
        schedule = partial(schedule.func, *schedule.args, **schedule.keywords)
    return ScheduledRates(net, schedule)


def build_optimizer(cfg: DictConfig, module: Any, data: Data) -> torch.optim.Optimizer:
    """The optimizer of a module; ``optimizer.match`` also rescales the initial weights behind its network's dropout."""
    net: nn.Module = module.net
    others = [value for key, value in module.named_parameters() if value.requires_grad and not key.startswith("net.")]
    options = cfg.optimizer.copy()
    with open_dict(options):
        match = options.pop("match", None)
    factory = instantiate(options)
    if match is None:
        return factory([*net.parameters(), *others])  # type: ignore[no-any-return]
    from dropout_lab.dropout import match_inverted

    optimizer = match_inverted(net, factory, torch.zeros(2, *data.shape))
    if others:
        optimizer.add_param_group({"params": others})
    return optimizer
