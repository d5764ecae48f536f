"""Modes of a model's modules: all in train or in eval mode, and the switch "dropout on, all else in eval mode"."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd


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


@contextmanager
def dropout_only(model: nn.Module, on: bool) -> Iterator[None]:
    """Without gradients and in eval mode, except that dropout layers use their training formula if ``on``.

    The switch is the train mode of the layers (any ``_DropoutNd``), which torch's own have, too; a layer's
    ``monte_carlo``, which would leave it on in eval, is off within the context and as before after it.
    """
    switches = [(module, module.monte_carlo) for module in model.modules() if hasattr(module, "monte_carlo")]
    with in_mode(model, training=False), torch.no_grad():
        try:
            for module, _ in switches:
                module.monte_carlo = False  # type: ignore[assignment]
            for module in model.modules():
                if isinstance(module, _DropoutNd):
                    module.training = on
            yield
        finally:
            for module, before in switches:
                module.monte_carlo = before
