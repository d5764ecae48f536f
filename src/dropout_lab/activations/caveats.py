"""Caveats about statistics: where a number is missing or can't be trusted, and why."""

from collections.abc import Iterator, Sequence

from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from dropout_lab.activations.meter import Meter
from dropout_lab.activations.readings import Readings
from dropout_lab.activations.taps import Tap


def caveats(meter: Meter, readings: Readings, model: nn.Module) -> Iterator[str]:
    """A line for each reason to doubt what a meter has read in a model, none where all is well."""
    compiled = _compiled(model)
    for mode, batches in readings.batches.items():
        stats = readings.stats(mode)
        unseen = [tap for tap in meter.taps if not stats[tap.name].count]
        silent = [tap.name for tap in unseen if tap.module in compiled or len(unseen) == len(stats)]
        if batches and silent:
            yield (
                f"{mode} batches passed and no hook ran at {', '.join(silent)}: the model was compiled and called "
                "before this callback saw it; call torch.compiler.reset() before the trainer starts"
            )
        if vague := [name for name, one in stats.items() if not one.reliable]:
            yield f"the std of {', '.join(vague)} is not reliable: the mean is over 100 times larger"
    if meter.skipped:
        yield f"{', '.join(sorted(meter.skipped))}: not a floating-point tensor, not counted"


def switched_off(taps: Sequence[Tap]) -> list[str]:
    """Names of the dropout layers that would drop something and are in eval mode."""
    return [tap.name for tap in taps if tap.where == "output" and _is_off(tap.module)]


def _is_off(layer: nn.Module) -> bool:
    """Whether a dropout layer with p > 0 drops nothing."""
    on = layer.training or getattr(layer, "monte_carlo", False) or getattr(layer, "p", 0) == 0
    return isinstance(layer, _DropoutNd) and not on


def _compiled(model: nn.Module) -> set[nn.Module]:
    """The modules that run as part of a compiled one."""
    whole = [module for module in model.modules() if module._compiled_call_impl or hasattr(module, "_orig_mod")]
    return {part for module in whole for part in module.modules()}
