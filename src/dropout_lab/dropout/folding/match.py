"""The matched parametrisation: train a classic model exactly as its inverted twin would train.

Srivastava et al. 2014, section 10: the two scalings "are equivalent with appropriate scaling of the learning rate and
weight initializations at each layer". In numbers: the inverted model computes W (x m / q) + b, the classic one
V (x m) + b, so V = W / q. With c = V / W the factor of a parameter, its gradient is 1 / c times the twin's, and its
updates must be c times the twin's:

    optimizer        lr          weight_decay    eps
    SGD              lr * c^2    wd / c^2                  with or without momentum, Nesterov, dampening
    Adam             lr * c      wd / c^2        eps / c
    AdamW            lr * c      wd / c          eps / c   decay decoupled from the gradient

Momentum buffers and first moments are 1 / c times the twin's, second moments 1 / c^2. Clipping by the global norm of
the gradients has no equivalent, as that norm mixes parameters with different c.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from dropout_lab.dropout.folding.copies import copied
from dropout_lab.dropout.folding.solve import Change, apply, outputs, require_same_outputs, solve
from dropout_lab.dropout.layer import Dropout

OPTIMIZERS = (SGD, Adam, AdamW)


def factors_of_matching(model: nn.Module, example_input: Tensor) -> dict[str, float]:
    """The factor c of every parameter that makes ``model`` train like its inverted twin.

    Args:
        model: with its dropout layers installed. Classic and unscaled layers count (their training formula is the
            same); inverted ones need nothing.
        example_input: a batch as the model takes it; not changed.

    Returns:
        parameter name -> factor, 1 / q for a weight that is fed by dropout; only those that change.

    Raises:
        ValueError: no exact equivalent exists; the dropout layer and the op in the way are named.
    """
    return {name: float(change.factor) for name, change in _changes(model, example_input).items()}


def match_inverted(
    model: nn.Module,
    optimizer_factory: Callable[[Any], Optimizer],
    example_input: Tensor,
    groups: Sequence[Mapping[str, Any]] | None = None,
) -> Optimizer:
    """Rescale the initial weights of ``model`` in place and make the optimizer that trains it like its inverted twin.

    Call it once, on freshly initialised weights. Learning rate schedules that multiply the initial rates of the groups
    (StepLR, LambdaLR, cosine down to 0, ...) keep the ratios; those with absolute rates (``eta_min`` > 0, OneCycleLR)
    don't.

    Args:
        model: as for :func:`factors_of_matching`.
        optimizer_factory: makes an SGD, Adam or AdamW from parameter groups, e.g. ``partial(torch.optim.SGD, lr=0.1)``.
        example_input: a batch as the model takes it.
        groups: of parameters, with options of their own; others than the model's may be among them. None: one of all.

    Returns:
        the optimizer, one parameter group for each factor in each of the groups.

    Raises:
        ValueError: as :func:`factors_of_matching`, or another optimizer than SGD, Adam and AdamW.

    Source: Srivastava et al. 2014, section 10; the table at the top of this file.
    """
    changes = _changes(model, example_input)
    factors = {each: changes[name].factor for name, each in model.named_parameters() if name in changes}
    split: list[tuple[Fraction, dict[str, Any]]] = []
    for group in groups or [{"params": [*model.parameters()]}]:
        parts: dict[Fraction, list[nn.Parameter]] = {}
        for parameter in group["params"]:
            parts.setdefault(factors.get(parameter, Fraction(1)), []).append(parameter)
        split += [(factor, {**group, "params": parameters}) for factor, parameters in parts.items()]
    optimizer = optimizer_factory([group for _, group in split])
    require_known_optimizer(optimizer)
    for (factor, _), group in zip(split, optimizer.param_groups, strict=True):
        rescale_group(optimizer, group, float(factor))
    apply(model, changes)
    return optimizer


def require_known_optimizer(optimizer: Optimizer) -> None:
    """Refuse an optimizer that the table at the top of this file says nothing about.

    Raises:
        ValueError: the optimizer is not SGD, Adam or AdamW.
    """
    step = inspect.unwrap(type(optimizer).step)  # which a subclass may inherit
    if not any(isinstance(optimizer, kind) and step is inspect.unwrap(kind.step) for kind in OPTIMIZERS):
        raise ValueError(
            f"no exact equivalent is known for {type(optimizer).__name__}; "
            f"allowed: {', '.join(kind.__name__ for kind in OPTIMIZERS)}"
        )


def rescale_group(optimizer: Optimizer, group: dict[str, Any], factor: float) -> None:
    """Adjust the options of a parameter group, in place, for parameters that are multiplied by ``factor``.

    ``scale`` keeps the product of the factors for whoever bounds the weights themselves, as max-norm does.
    """
    adaptive = isinstance(optimizer, Adam)
    decoupled = group.get("decoupled_weight_decay", False)
    for rate in ("lr", "initial_lr"):
        if rate in group:
            group[rate] = group[rate] * (factor if adaptive else factor**2)
    group["scale"] = group.get("scale", 1.0) * factor
    group["weight_decay"] = group["weight_decay"] / (factor if decoupled else factor**2)
    if adaptive:
        group["eps"] = group["eps"] / factor


def _changes(model: nn.Module, example_input: Tensor) -> dict[str, Change]:
    changes = solve(model, _kept, training=True)
    twin = copied(model)
    layers = [layer for layer in twin.modules() if isinstance(layer, Dropout) and layer.scaling != "inverted"]
    for layer in layers:
        layer.scaling = "inverted"
    before = outputs(twin, example_input)
    for layer in layers:
        layer.scaling = "classic"
    apply(twin, changes)
    require_same_outputs(before, outputs(twin, example_input))
    return changes


def _kept(layer: Dropout) -> Fraction:
    """The training output of a layer / that of an inverted one."""
    if layer.scaling == "inverted":
        return Fraction(1)
    if layer.learns:
        raise ValueError(f"dropout layer {layer.name!r} learns its p: no factor stays the same in training")
    return Fraction(1 - layer.p)
