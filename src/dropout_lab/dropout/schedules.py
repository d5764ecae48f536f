"""The drop probability as a function of training time: t runs from 0 to 1, p is what a layer has in the configuration.

    constant    p
    linear      p * (start + (end - start) * t)         by default from 0 to p
    cosine      the same from start to end along half a cosine
    curriculum  p * (1 - exp(-gamma * t))               rises fast, then slowly (Morerio et al. 2017)
    early       p * (1 - t / cutoff), or p; then 0      for networks that underfit (Liu et al. 2023)
    late        0 until the cutoff, then p              for networks that overfit (Liu et al. 2023)

Each site's p is scaled by itself, so a ramp over depth stays a ramp.

Sources: Liu et al. 2023, "Dropout Reduces Underfitting"; Morerio et al. 2017, "Curriculum Dropout".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TypedDict

from torch import nn

from dropout_lab.dropout.axes import eval_factor
from dropout_lab.dropout.layer import Dropout

Schedule = Callable[[float, float], float]
"""(p of a layer, t) -> its p at t."""


def constant(p: float, t: float) -> float:
    """The constant schedule: p, whatever the time.

    Args:
        p: the layer's own probability to drop, in [0, 1).
        t: part of training that is over, in [0, 1].

    Raises:
        ValueError: t outside [0, 1], as in all schedules.
    """
    _part("t", t)
    return p


def linear(p: float, t: float, *, start: float = 0.0, end: float = 1.0) -> float:
    """The linear schedule: from start * p to end * p in equal steps.

    Args:
        p: the layer's own probability to drop, in [0, 1).
        t: part of training that is over, in [0, 1].
        start: share of p at t = 0, in [0, 1].
        end: share of p at t = 1, in [0, 1].

    Raises:
        ValueError: t, start or end outside [0, 1].
    """
    t = _part("t", t)
    return p * ((1 - t) * _part("start", start) + t * _part("end", end))


def cosine(p: float, t: float, *, start: float = 0.0, end: float = 1.0) -> float:
    """The cosine schedule: from start * p to end * p along half a cosine, slow, fast, slow.

    Arguments and errors as for :func:`linear`.
    """
    return linear(p, (1 - math.cos(math.pi * _part("t", t))) / 2, start=start, end=end)


def early(
    p: float,
    t: float,
    *,
    cutoff: float | None = None,
    cutoff_epoch: float | None = None,
    epochs: int | None = None,
    shape: str = "linear",
) -> float:
    """The early schedule: p * (1 - t / cutoff) until the cutoff, or p where shape is "constant"; then 0.

    Liu et al. 2023 let p fall linearly to 0 (their recipe: 0.1, by epoch 50 of 300); constant p is their alternative.

    Args:
        p: the layer's own probability to drop, in [0, 1).
        t: part of training that is over, in [0, 1].
        cutoff: the t from which on nothing is dropped, in [0, 1]; 0.5 where neither it nor cutoff_epoch is given.
        cutoff_epoch: the same in epochs, in [0, epochs].
        epochs: of the whole training; cutoff_epoch needs it.
        shape: "linear" or "constant".

    Raises:
        ValueError: t or a cutoff outside its range, two cutoffs, another shape.
    """
    _part("t", t)
    end = _cutoff(cutoff, cutoff_epoch, epochs)
    if shape not in ("linear", "constant"):
        raise ValueError(f"shape={shape}: must be linear or constant")
    if t >= end:
        return 0.0
    return p * (1 - t / end) if shape == "linear" else p


def late(
    p: float,
    t: float,
    *,
    cutoff: float | None = None,
    cutoff_epoch: float | None = None,
    epochs: int | None = None,
) -> float:
    """The late schedule: 0 until the cutoff, then p (Liu et al. 2023). Arguments and errors as for :func:`early`."""
    return p if _part("t", t) >= _cutoff(cutoff, cutoff_epoch, epochs) else 0.0


def curriculum(p: float, t: float, *, gamma: float = 10.0) -> float:
    """The curriculum schedule: p * (1 - exp(-gamma * t)), from 0 fast and then slowly to nearly p.

    Morerio et al. 2017, section 3, give the probability to keep, (1 - q) * exp(-gamma * t) + q with q = 1 - p, and
    gamma = 10 / T for t in steps, of which training has T.

    Args:
        p: the layer's own probability to drop, in [0, 1).
        t: part of training that is over, in [0, 1].
        gamma: how fast p is reached: 1 - exp(-gamma) of it at the end; > 0.

    Raises:
        ValueError: t outside [0, 1], or gamma that is not finite and > 0.
    """
    if not 0 < gamma < math.inf:
        raise ValueError(f"gamma={gamma}: must be a finite number > 0")
    return p * -math.expm1(-gamma * _part("t", t))


class ScheduledRates:
    """The rates of all dropout layers of the lab in a model, set as training goes on.

    Their p at construction is what the schedule scales. A new p costs a compiled model no new graph, p = 0 one. A layer
    that learns its p keeps it.

    Args:
        model: with its dropout layers installed.
        schedule: one of this file, `functools.partial(late, cutoff=0.3)`, or any function (p, t) -> p; a layer may have
            another of its own, as its attribute ``schedule``.

    Raises:
        ValueError: a layer whose p would change and is classic or learned, or a schedule with arguments outside their
            range.
    """

    def __init__(self, model: nn.Module, schedule: Schedule) -> None:
        self.rates: dict[Dropout, tuple[float, Schedule]] = {}
        for layer in (module for module in model.modules() if isinstance(module, Dropout)):
            p, name = layer.p, layer.name or type(layer).__name__
            own = layer.schedule or schedule
            changing = any(own(p, percent / 100) != p for percent in range(101))
            if changing and layer.scaling == "classic":
                raise ValueError(
                    f"dropout layer {name!r} is classic, and a schedule can't change its p: it multiplies by 1-p in "
                    "eval, so another p is another network in eval. Use inverted dropout, or the constant schedule"
                )
            if changing and layer.learns:
                raise ValueError(f"dropout layer {name!r} learns its p, and no schedule can: use the constant one")
            if not layer.learns:
                self.rates[layer] = p, own

    def set(self, step: int, total_steps: int) -> None:
        """Give each dropout layer its p for the step that comes.

        Args:
            step: steps done since the start of training, 0 <= step <= total_steps.
            total_steps: of the whole training, >= 1.

        Raises:
            ValueError: step or total_steps is outside its range.
        """
        if not 0 <= step <= total_steps or total_steps < 1:
            raise ValueError(f"step must be in [0, total_steps] and total_steps >= 1, got {step} and {total_steps}")
        for layer, (p, schedule) in self.rates.items():
            now = schedule(p, step / total_steps)
            if now != layer.p:  # setting a rate costs as much as a small layer
                layer.p = now


def _part(name: str, value: float) -> float:
    if not 0 <= value <= 1:  # written so that NaN fails
        raise ValueError(f"{name}={value}: must be a number with 0 <= {name} <= 1")
    return value


def _cutoff(cutoff: float | None, cutoff_epoch: float | None, epochs: int | None) -> float:
    """The cutoff as a part of training."""
    if cutoff_epoch is None:
        return _part("cutoff", 0.5 if cutoff is None else cutoff)
    if cutoff is not None:
        raise ValueError(f"cutoff_epoch={cutoff_epoch}: must be null where cutoff={cutoff} is given")
    if epochs is None or epochs < 1:
        raise ValueError(f"cutoff_epoch={cutoff_epoch}: must be null where epochs={epochs} says no length; give cutoff")
    if not 0 <= cutoff_epoch <= epochs:
        raise ValueError(f"cutoff_epoch={cutoff_epoch}: must be a number with 0 <= cutoff_epoch <= epochs={epochs}")
    return cutoff_epoch / epochs


class SavedRate(TypedDict):
    """What a checkpoint has to remember of one dropout layer: plain values, which `torch.load` takes safely."""

    p: float
    scaling: str
    learned: bool


def rates_of(model: nn.Module) -> dict[str, SavedRate]:
    """The rate and scaling of each dropout layer of the lab in `model`, by its name, or else its module path."""
    layers = ((path, module) for path, module in model.named_modules() if isinstance(module, Dropout))
    return {
        layer.name or path: {"p": layer.p, "scaling": layer.scaling, "learned": layer.learns} for path, layer in layers
    }


def require_same_rates(model: nn.Module, saved: Mapping[str, SavedRate]) -> None:
    """Refuse weights saved with rates that make them another function in `model` in eval mode.

    Args:
        model: about to load the weights.
        saved: what :func:`rates_of` gave for the model that the weights come from.

    Raises:
        ValueError: a layer multiplies by another number in eval, because it or the saved one is classic.
    """
    now = rates_of(model)
    for name in (*saved, *(name for name in now if name not in saved)):
        before, after = saved.get(name), now.get(name)
        if before and after and before.get("learned") and after["learned"] and before["scaling"] == after["scaling"]:
            continue  # its p is one of the weights
        if _factor(before) != _factor(after):
            raise ValueError(
                f"dropout layer {name!r}: the checkpoint has {_words(before)}, this model has {_words(after)}; "
                "classic dropout multiplies by 1-p in eval, so p belongs to its checkpoint. Use the checkpoint's p and "
                "scaling, or convert it to inverted dropout first, where p is free"
            )


def _factor(rate: SavedRate | None) -> float:
    return eval_factor(rate["scaling"], rate["p"]) if rate else 1.0


def _words(rate: SavedRate | None) -> str:
    return f"{rate['scaling']} p={rate['p']:.4g} (times {_factor(rate):.4g} in eval)" if rate else "no such layer"
