"""Activation statistics: exact at any world size, nearly free, in train and in eval."""

from typing import TYPE_CHECKING, Any

from dropout_lab.activations.meter import Meter
from dropout_lab.activations.probe import Comparison, compare
from dropout_lab.activations.readings import Gain, Readings, Stats
from dropout_lab.activations.taps import Tap, taps_of

if TYPE_CHECKING:
    from dropout_lab.activations.callback import ActivationStats

__all__ = [
    "ActivationStats",
    "Comparison",
    "Gain",
    "Meter",
    "Readings",
    "Stats",
    "Tap",
    "compare",
    "taps_of",
]


def __getattr__(name: str) -> Any:
    # On demand: the statistics work without Lightning, and importing it takes seconds.
    if name == "ActivationStats":
        from dropout_lab.activations.callback import ActivationStats

        return ActivationStats
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
