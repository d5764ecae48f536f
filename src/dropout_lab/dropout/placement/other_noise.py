"""Noise in a model that is not of the lab's layers: functional dropout, attention's own, stochastic depth.

No strategy replaces these, keyed masks do not reach them and Monte Carlo in eval does not switch them on. So where
strategies are compared they are switched off, or it is said that they are there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import torch.fx
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from dropout_lab.dropout.graph.calls import trace
from dropout_lab.dropout.graph.modes import in_mode
from dropout_lab.dropout.graph.nodes import caller, op_name
from dropout_lab.dropout.placement.silence import IDENTITIES, SILENCED, is_silent, silence


def other_noise(model: nn.Module) -> list[str]:
    """One line for each source of dropout noise in `model` that `install` has not put there; empty if there is none.

    Found are: dropout layers outside the placement, `nn.MultiheadAttention` and recurrent layers with `dropout > 0`,
    stochastic depth, DropPath, DropBlock and whatever module has such a name, random activations (`nn.RReLU`), and in
    the graphs of both modes `F.dropout` and its kin, and every function with a dropout probability among its arguments
    (`F.scaled_dot_product_attention`). What has p = 0 is left out.
    """
    lines = [f"{path}: {_in_words(module, rate)}" for path, module, rate in _in_modules(model)]
    try:
        return lines + [_line(path, words) for path, _, words in _in_functions(model)]
    except ValueError as error:
        return [*lines, f"calls of F.dropout, if there are any, can't be listed: {error}"]


def switch_off(model: nn.Module) -> list[str]:
    """Switch off, in place and for good, every source of noise that `other_noise` lists; returns those lines.

    Modules get the rate 0. Around the forward pass of a module that calls a function with noise, or of a model that
    can't be traced, that function is called as if it had p = 0.

    Raises:
        ValueError: a function that can't be reached so (`torchvision.ops.stochastic_depth` and `drop_block2d`).
    """
    off = []
    for path, module, rate in _in_modules(model):
        off.append(f"{path}: {_in_words(module, rate)}")
        _stop(module, rate)
    try:
        functions = _in_functions(model)
    except ValueError:  # whatever it calls
        silence(model)
        return off
    for path, name, words in functions:
        if name not in SILENCED:
            raise ValueError(f"{_line(path, words)}, and can't be switched off from outside")
    for path in dict.fromkeys(path for path, _, _ in functions):
        silence(model.get_submodule(path))
    return off + [_line(path, words) for path, _, words in functions]


def shortened(lines: Iterable[str]) -> list[str]:
    """The lines of `other_noise`, those that say the same of several modules as one: `a.drop and 11 more: ...`."""
    alike: dict[str, list[str]] = {}
    for line in lines:
        alike.setdefault(line.partition(": ")[2].partition("=")[0], []).append(line)
    return [
        first.replace(": ", f" and {len(more)} more like it: ", 1) if more else first for first, *more in alike.values()
    ]


def _in_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """Path, module and attribute with the rate of each module that makes noise by itself."""
    for path, module in model.named_modules():
        if (rate := _rate(module)) is not None:
            yield path, module, rate


def _line(path: str, words: str) -> str:
    return f"{path or 'forward of the model'}: {words}"


def _rate(module: nn.Module) -> str | None:
    """The attribute of a module with the rate of noise that it makes by itself; None if it makes none."""
    if isinstance(module, nn.RReLU):
        return "upper" if not is_silent(module) else None
    if isinstance(module, (nn.MultiheadAttention, nn.RNNBase)):
        return "dropout" if module.dropout else None
    if not (isinstance(module, _DropoutNd) or is_noise(type(module))) or getattr(module, "name", None) is not None:
        return None
    return next((rate for rate in _RATES if isinstance(p := getattr(module, rate, None), float | int) and p), None)


def is_noise(kind: type) -> bool:
    """Whether a class of modules, or one that it derives from, is called as stochastic depth and its kin are."""
    return any(_NOISE.search(each.__name__) for each in kind.__mro__[: kind.__mro__.index(nn.Module)])


def _in_words(module: nn.Module, rate: str) -> str:
    kind, value = type(module).__name__, getattr(module, rate)
    if isinstance(module, _DropoutNd):
        return f"{kind}(p={value:.4g}) is not in the placement"
    if isinstance(module, nn.RReLU):
        return f"{kind} draws its slopes, from {module.lower:.4g} to {module.upper:.4g}"
    return f"{kind} drops by itself, with {rate}={value:.4g}"


def _stop(module: nn.Module, rate: str) -> None:
    if isinstance(module, nn.RReLU):
        silence(module)
    else:
        setattr(module, rate, 0.0)


def _in_functions(model: nn.Module) -> list[tuple[str, str, str]]:
    """Path, name of the function and words for each call of a function with noise, in train or in eval mode.

    Raises:
        ValueError: the model can't be traced.
    """
    found: dict[tuple[str, str, str], None] = {}
    if is_silent(model):  # a trace starts inside of the hooks of the model itself
        return []
    for training in (True, False):
        with in_mode(model, training=training):
            for node in trace(model, deep=True).graph.nodes:
                found.update(dict.fromkeys(_in_function(node)))
    return list(found)


def _in_function(node: torch.fx.Node) -> Iterator[tuple[str, str, str]]:
    if node.op not in ("call_function", "call_method"):
        return
    arguments = _arguments(node)
    if arguments.get("training") is False or arguments.get("train") is False:
        return
    name = op_name(node)
    path, kind = caller(node)
    if kind is not None and is_noise(kind):
        return  # named as a module
    for argument, p in arguments.items():
        if (argument in _PROBABILITIES or (argument, name) in _NOISE_ARGUMENTS) and p:
            rate = p if isinstance(p, torch.fx.Node) else f"{p:.4g}"
            yield path, name, f"{name}() drops by itself, with {argument}={rate}"


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


_NOISE = re.compile(r"StochasticDepth|DropPath|DropBlock|PatchDropout|Dropout$")
_RATES = ("p", "drop_prob", "prob", "drop_rate", "rate")
_NOISE_ARGUMENTS = {("p", name) for name in (*IDENTITIES, "stochastic_depth", "drop_block2d", "drop_block3d")}
_NOISE_ARGUMENTS.add(("upper", "rrelu"))
_PROBABILITIES = {"dropout", "dropout_p", "attention_dropout", "drop_prob", "drop_rate"}
