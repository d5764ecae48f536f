"""Modes of a model's modules: all in train or in eval mode, and the switch "dropout on, all else in eval mode"."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd


@contextmanager
def switched(modes: Mapping[nn.Module, bool]) -> Iterator[None]:
    """Each of these modules in train (True) or eval mode within the context, and in its own former mode after it."""
    before = [(module, module.training) for module in modes]
    try:
        _set(modes.items())
        yield
    finally:
        _set(before)


@contextmanager
def in_mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Every module in train (or eval) mode within the context, and in its own former mode after it."""
    with switched(dict.fromkeys(model.modules(), training)):
        yield


@contextmanager
def dropout_only(model: nn.Module, on: bool) -> Iterator[None]:
    """Without gradients and in eval mode, except that dropout layers use their training formula if ``on``.

    The switch is the train mode of the layers (any ``_DropoutNd``), which torch's own have, too; a layer's
    ``monte_carlo``, which would leave it on in eval, is off within the context and as before after it.
    """
    modes = {module: on and isinstance(module, _DropoutNd) for module in model.modules()}
    switches = [(module, module.monte_carlo) for module in modes if hasattr(module, "monte_carlo")]
    with switched(modes), torch.no_grad():
        try:
            for module, _ in switches:
                module.monte_carlo = False  # type: ignore[assignment]
            yield
        finally:
            for module, before in switches:
                module.monte_carlo = before


def _set(modes: Iterable[tuple[nn.Module, bool]]) -> None:
    for module, training in modes:
        if module.training is not training:  # assigning to a module costs more than looking at it
            module.training = training
