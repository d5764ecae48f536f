"""Modes of a model's modules, and the switch \"dropout on, all else in eval mode\"."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.fx
from torch import nn
from torch.nn.modules.dropout import _DropoutNd


@contextmanager
def dropout_on(model: nn.Module) -> Iterator[None]:
    """Only the dropout layers in train mode: through their own switch where they have one."""
    layers = [module for module in model.modules() if isinstance(module, _DropoutNd)]
    switches = [(layer, "monte_carlo" if hasattr(layer, "monte_carlo") else "training") for layer in layers]
    before = [getattr(layer, switch) for layer, switch in switches]
    try:
        for layer, switch in switches:
            setattr(layer, switch, True)
        yield
    finally:
        for (layer, switch), value in zip(switches, before, strict=True):
            setattr(layer, switch, value)


@contextmanager
def dropout_only(model: nn.Module, on: bool) -> Iterator[None]:
    """Without gradients and in eval mode, except that dropout layers use their training formula if ``on``."""
    modes = [(module, module.training, getattr(module, "monte_carlo", None)) for module in model.modules()]
    try:
        for module, _, monte_carlo in modes:
            module.training = on and isinstance(module, _DropoutNd)
            if monte_carlo is not None:
                module.monte_carlo = False  # type: ignore[assignment]
        with torch.no_grad():
            yield
    finally:
        for module, training, monte_carlo in modes:
            module.training = training
            if monte_carlo is not None:
                module.monte_carlo = monte_carlo


@contextmanager
def in_mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Every module in train (or eval) mode within the context, and in its own former mode after it."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in modes:
            module.training = training
        yield
    finally:
        for module, mode in modes:
            module.training = mode
