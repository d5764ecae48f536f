"""Dropout taken out of a trained model, or scaled in another way, without a change of what the model computes in eval.

    fold(model, x)                a copy without dropout that computes the same in eval and loads into the plain model
    convert(model, "inverted", x) the model itself with another scaling: same eval outputs, training can go on
    transfer(source, model, x)    the weights of one model for another that differs in dropout: same eval outputs

Inverted and unscaled layers are the identity in eval, so folding just removes them. The eval factor q = 1 - p of a
classic layer moves into the next affine weight (never its bias: q V (m h) + b); where that is not possible, in a
residual branch for instance, into the weight and bias before; or into the statistics of a BatchNorm.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.optim import Optimizer

from dropout_lab.dropout.axes import SCALINGS, eval_factor, require_one_of
from dropout_lab.dropout.folding import operations
from dropout_lab.dropout.folding.copies import copied
from dropout_lab.dropout.folding.match import require_known_optimizer, rescale_group
from dropout_lab.dropout.folding.solve import Change, apply, outputs, require_same_outputs, solve
from dropout_lab.dropout.graph.hooks import detach
from dropout_lab.dropout.layer import Dropout
from dropout_lab.dropout.learned import own_parameters
from dropout_lab.dropout.placement.attention import take_out
from dropout_lab.dropout.placement.attn_drop import forget_rows
from dropout_lab.dropout.schedules import rates_of


def fold(model: nn.Module, example_input: Tensor) -> nn.Module:
    """A copy of ``model`` without dropout that computes in eval mode what ``model`` computes in eval mode.

    Args:
        model: in any mode; stays as it is.
        example_input: a batch as the model takes it; the result is compared with the model on it.

    Returns:
        a deep copy in eval mode. ``nn.Identity`` stands where dropout layers stood, attached ones are gone with their
        hooks, and the ``state_dict`` loads into the plain architecture with ``strict=True``. A dropout layer that the
        forward pass doesn't call in eval mode (in an auxiliary head) is just removed.

    Raises:
        ValueError: no exact answer exists, or the strategy is not known here, or a layer is in Monte Carlo mode; the
            layer and the op in the way are named. Or the model can't be copied.
        RuntimeError: the copy computes something else on ``example_input``.

    Source: Srivastava et al. 2014, section 4 ("the outgoing weights of that unit are multiplied by p", their p our q).
    """
    _require_known_layers(model)
    folded = copied(model)
    changes = solve(folded, lambda layer: 1 / _in_eval(layer, layer.scaling), training=False)
    before = outputs(folded, example_input)
    apply(folded, changes)
    for module in list(folded.modules()):
        detach(module)
        take_out(module)
        forget_rows(module)
        for name, child in module.named_children():
            if isinstance(child, _DropoutNd):
                setattr(module, name, nn.Identity())
    require_same_outputs(before, outputs(folded, example_input))
    return folded.eval()


def convert(model: nn.Module, scaling: str, example_input: Tensor, optimizer: Optimizer | None = None) -> nn.Module:
    """Change the scaling of all dropout layers of ``model`` IN PLACE and rescale its weights: same eval outputs.

    With an optimizer, training goes on exactly as it would have without the conversion, given the same masks: its
    buffers and the gradients are rescaled, and its parameter groups split by factor (table in ``match.py``). Learning
    rate schedulers know the old groups: make them anew; each group's ``initial_lr`` is right.

    Args:
        model: in any mode.
        scaling: "inverted", "classic" or "unscaled".
        example_input: a batch as the model takes it; the result is compared with the model on it.
        optimizer: the SGD, Adam or AdamW that trains the model, changed in place.

    Returns:
        ``model``.

    Raises:
        ValueError: as :func:`fold`; an unknown scaling; torch's own dropout layers, which are always inverted; with an
            optimizer also for another optimizer, and between unscaled and anything else, which no rescaling makes
            equal in training and in eval. Model and optimizer are then unchanged.

    Source: Srivastava et al. 2014, section 10; the optimizer's part follows from V = W / q.
    """
    require_one_of("scaling", scaling, SCALINGS)
    _require_known_layers(model)
    _require_scaling(model, scaling)
    if optimizer is not None:
        require_known_optimizer(optimizer)
        _require_equal_training(model, scaling)
    tried = copied(model)
    changes = _changes(tried, scaling, training_only=optimizer is not None)
    before = outputs(tried, example_input)
    _convert(tried, scaling, changes)
    require_same_outputs(before, outputs(tried, example_input))
    _convert(model, scaling, changes)
    if optimizer is not None:
        factors = {parameter: changes[name].factor for name, parameter in model.named_parameters() if name in changes}
        _split_groups(optimizer, factors)
        _rescale_state(optimizer, factors)
    return model


def transfer(source: nn.Module, model: nn.Module, example_input: Tensor) -> nn.Module:
    """Give ``model`` the weights of ``source``, whose dropout layers may be others elsewhere: same eval outputs.

    Args:
        source: in any mode; stays as it is.
        model: the same architecture, in any mode; its weights and buffers are overwritten IN PLACE.
        example_input: a batch as both take it; their outputs on it are compared.

    Returns:
        ``model``.

    Raises:
        ValueError: as :func:`fold`, or the two models are not the same function of their weights. ``model`` is then
            unchanged.
        RuntimeError: weights that do not fit, as ``load_state_dict`` says it.
    """
    plain, tried = source, copied(model)
    converting = _eval_factors(source) != _eval_factors(model)
    if converting:
        _require_known_layers(model)
        plain = convert(copied(source), "inverted", example_input)
    state, own = plain.state_dict(), own_parameters(tried)
    for name in own_parameters(plain).keys() - own:
        del state[name]
    tried.load_state_dict({**own, **state})  # a p that this model alone learns begins as it was made
    if converting:
        apply(tried, _solve_either(tried, lambda layer: _in_eval(layer, layer.scaling)))
    try:
        require_same_outputs(outputs(source, example_input), outputs(tried, example_input))
    except RuntimeError as error:
        raise ValueError("with the same weights, dropout aside, the two models compute something else") from error
    model.load_state_dict(tried.state_dict())
    return model


def _eval_factors(model: nn.Module) -> dict[str, float]:
    """What the dropout layers that do something in eval mode multiply their inputs by, by their names."""
    factors = {name: eval_factor(rate["scaling"], rate["p"]) for name, rate in rates_of(model).items()}
    return {name: factor for name, factor in factors.items() if factor != 1}


def _require_known_layers(model: nn.Module) -> None:
    for path, layer in model.named_modules():
        if not isinstance(layer, _DropoutNd):
            continue
        name = f"dropout layer {getattr(layer, 'name', None) or path!r}"
        kind: Any = type(layer)
        if isinstance(layer, Dropout):
            known = kind.forward is Dropout.forward and "forward" not in vars(layer)
        else:
            known = operations.kind_of(layer) is not nn.Module
        if not known:
            raise ValueError(f"{name} is a {kind.__name__}, whose eval output is not known here; allowed: Dropout")
        if getattr(layer, "monte_carlo", False):
            raise ValueError(f"{name} is in Monte Carlo mode, its eval output is random; set monte_carlo = False first")


def _require_scaling(model: nn.Module, scaling: str) -> None:
    for path, layer in model.named_modules():
        if isinstance(layer, _DropoutNd) and not isinstance(layer, Dropout) and layer.p > 0 and scaling != "inverted":
            raise ValueError(
                f"dropout layer {path!r} is torch's {type(layer).__name__}, which is always inverted; "
                "install() puts a layer there whose scaling can be chosen"
            )


def _require_equal_training(model: nn.Module, scaling: str) -> None:
    for path, layer in model.named_modules():
        if isinstance(layer, Dropout) and layer.learns and layer.scaling != scaling:
            raise ValueError(f"dropout layer {layer.name or path!r} learns its p: no factor stays the same in training")
        if isinstance(layer, Dropout) and layer.p > 0 and (layer.scaling == "unscaled") != (scaling == "unscaled"):
            raise ValueError(
                f"dropout layer {layer.name or path!r} can't go from {layer.scaling} to {scaling} with the optimizer: "
                "equal eval outputs mean unequal training outputs; leave out optimizer= and start a new one"
            )


def _in_eval(layer: Dropout, scaling: str) -> Fraction:
    """The factor of a layer in eval mode if it had this scaling, exactly."""
    return Fraction(eval_factor(scaling, layer.p))


def _changes(model: nn.Module, scaling: str, training_only: bool) -> dict[str, Change]:
    def factor(layer: Dropout) -> Fraction:
        return _in_eval(layer, scaling) / _in_eval(layer, layer.scaling)

    return solve(model, factor, training=True) if training_only else _solve_either(model, factor)


def _solve_either(model: nn.Module, factor: Callable[[Dropout], Fraction]) -> dict[str, Change]:
    """Changes of weights that hold in training, too, or else in eval alone, where BatchNorm's statistics can help."""
    try:
        return solve(model, factor, training=True)
    except ValueError:
        return solve(model, factor, training=False)


def _convert(model: nn.Module, scaling: str, changes: dict[str, Change]) -> None:
    apply(model, changes)
    for layer in model.modules():
        if isinstance(layer, Dropout):
            layer.scaling = scaling


def _split_groups(optimizer: Optimizer, factors: dict[nn.Parameter, Fraction]) -> None:
    pieces = []
    for group in optimizer.param_groups:
        members: dict[Fraction, list[int]] = {}
        for index, parameter in enumerate(group["params"]):
            members.setdefault(factors.get(parameter, Fraction(1)), []).append(index)
        for factor, indices in members.items():
            lists = {key: [group[key][i] for i in indices] for key in ("params", "param_names") if key in group}
            pieces.append(group | lists)
            rescale_group(optimizer, pieces[-1], float(factor))
    optimizer.param_groups[:] = pieces


_POWERS = {"momentum_buffer": 1, "exp_avg": 1, "exp_avg_sq": 2, "max_exp_avg_sq": 2}  # of 1 / factor


def _rescale_state(optimizer: Optimizer, factors: dict[nn.Parameter, Fraction]) -> None:
    with torch.no_grad():
        for parameter, factor in factors.items():
            if parameter.grad is not None:
                parameter.grad.div_(float(factor))
            for key, power in _POWERS.items():
                buffer = optimizer.state.get(parameter, {}).get(key)
                if buffer is not None:
                    buffer.div_(float(factor**power))
