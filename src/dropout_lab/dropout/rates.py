"""p belongs to a classic checkpoint: say what rates a model was trained with, and refuse others where they matter.

Classic dropout multiplies by 1 - p in eval, so weights trained with one p are another function with another p. Nothing
of that is in the `state_dict`: save :func:`rates_of` beside it, and call :func:`check_rates` before loading.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

from torch import nn

from dropout_lab.dropout.layer import Dropout


class SavedRate(TypedDict):
    """What a checkpoint has to remember of one dropout layer: plain values, which `torch.load` takes safely."""

    p: float
    scaling: str


def rates_of(model: nn.Module) -> dict[str, SavedRate]:
    """The rate and scaling of each dropout layer of the lab in `model`, by its name, or else its module path."""
    layers = ((path, module) for path, module in model.named_modules() if isinstance(module, Dropout))
    return {layer.name or path: {"p": layer.p, "scaling": layer.scaling} for path, layer in layers}


def check_rates(model: nn.Module, saved: Mapping[str, SavedRate]) -> None:
    """Make sure that weights saved with these rates are the same function in `model` in eval mode.

    Args:
        model: about to load the weights.
        saved: what :func:`rates_of` gave for the model that the weights come from.

    Raises:
        ValueError: a layer multiplies by another number in eval, because it or the saved one is classic.
    """
    now = rates_of(model)
    for name in (*saved, *(name for name in now if name not in saved)):
        before, after = saved.get(name), now.get(name)
        if _eval_factor(before) != _eval_factor(after):
            raise ValueError(
                f"dropout layer {name!r}: the checkpoint has {_shown(before)}, this model has {_shown(after)}; "
                "classic dropout multiplies by 1-p in eval, so p belongs to its checkpoint. Use the checkpoint's p and "
                "scaling, or convert it to inverted dropout first, where p is free"
            )


def _eval_factor(rate: SavedRate | None) -> float:
    return 1 - rate["p"] if rate and rate["scaling"] == "classic" else 1.0


def _shown(rate: SavedRate | None) -> str:
    return f"{rate['scaling']} p={rate['p']:.4g} (times {_eval_factor(rate):.4g} in eval)" if rate else "no such layer"
