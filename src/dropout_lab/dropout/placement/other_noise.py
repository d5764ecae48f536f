"""Noise in a model that is not of the lab's layers: functional dropout, attention's own, stochastic depth.

No strategy replaces these, keyed masks do not reach them and Monte Carlo in eval does not switch them on, so a run that
compares strategies has to say that they are there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch.fx
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from dropout_lab.dropout.graph.calls import trace
from dropout_lab.dropout.graph.modes import in_mode
from dropout_lab.dropout.graph.nodes import op_name


def other_noise(model: nn.Module) -> list[str]:
    """One line for each source of dropout noise in `model` that `install` has not put there; empty if there is none.

    Found are: dropout layers outside the placement, `nn.MultiheadAttention` and recurrent layers with `dropout > 0`,
    stochastic depth and DropBlock modules, and in the traced graph `F.dropout` and its kin, and every function with a
    dropout probability among its arguments (`F.scaled_dot_product_attention`). What has p = 0 is left out.
    """
    lines = [line for path, module in model.named_modules() for line in _in_module(path, module)]
    with in_mode(model, training=True):
        try:
            graph = trace(model, deep=True).graph
        except ValueError as error:
            return [*lines, f"calls of F.dropout, if there are any, can't be listed: {error}"]
    return lines + [line for node in graph.nodes for line in _in_function(node)]


def _in_module(path: str, module: nn.Module) -> Iterator[str]:
    kind = type(module).__name__
    if isinstance(module, _DropoutNd):
        if module.p and getattr(module, "name", None) is None:
            yield f"{path}: {kind}(p={module.p:.4g}) is not in the placement"
    elif isinstance(module, (nn.MultiheadAttention, nn.RNNBase)):
        if module.dropout:
            yield f"{path}: {kind} drops by itself, with dropout={module.dropout:.4g}"
    elif rate := _rate_name(type(module)):
        p = getattr(module, rate, None)
        if p:
            yield f"{path}: {kind} drops by itself, with {rate}={p:.4g}"


def _rate_name(kind: type) -> str | None:
    """The attribute with the rate of a class of noise, or of a subclass of one; None if it is none."""
    return next((_NOISE_MODULES[each.__name__] for each in kind.__mro__ if each.__name__ in _NOISE_MODULES), None)


def _in_function(node: torch.fx.Node) -> Iterator[str]:
    if node.op not in ("call_function", "call_method"):
        return
    arguments = _arguments(node)
    if arguments.get("training") is False or arguments.get("train") is False:
        return
    name = op_name(node)
    path, kind = next(reversed(node.meta.get("nn_module_stack", {}).values()), ("", None))
    if isinstance(kind, type) and _rate_name(kind):
        return  # named as a module
    for argument, p in arguments.items():
        if (argument in _PROBABILITIES or (argument == "p" and name in _NOISE_FUNCTIONS)) and p:
            rate = p if isinstance(p, torch.fx.Node) else f"{p:.4g}"
            yield f"{path or 'forward of the model'}: {name}() drops by itself, with {argument}={rate}"


def _arguments(node: torch.fx.Node) -> dict[str, Any]:
    """The arguments of a traced call by name, with defaults; where its signature is unknown, those given by name."""
    owner = node.graph.owning_module
    if node.op == "call_function" and owner is not None:
        try:
            normalized = node.normalized_arguments(owner, normalize_to_only_use_kwargs=True)
        except RuntimeError:  # torch before 2.14: several signatures fit
            normalized = None
        if normalized is not None:
            return dict(normalized.kwargs)
    return dict(node.kwargs)


_NOISE_MODULES = {"StochasticDepth": "p", "DropPath": "drop_prob", "DropBlock2d": "p", "DropBlock3d": "p"}
_NOISE_FUNCTIONS = {
    "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_dropout", "feature_alpha_dropout",
    "stochastic_depth", "drop_block2d", "drop_block3d",
}  # fmt: skip
_PROBABILITIES = {"dropout", "dropout_p", "attention_dropout", "drop_prob", "drop_rate"}
