"""Which of many watched tensors go to the loggers, where each costs seven keys or more."""

from collections.abc import Sequence
from typing import TypeVar

from torch.nn.modules.dropout import _DropoutNd

from dropout_lab.activations.meter import Tap

T = TypeVar("T")


def shown(taps: Sequence[Tap], most: int | None) -> set[str]:
    """Names of at most ``most`` tensors: dropout layers, each with its input, then evenly spaced others.

    Where not even the dropout layers fit they are evenly spaced, too. The last of each kind is always among them.

    Args:
        taps: what is watched, in order of depth.
        most: at least 2; None: all.
    """
    if most is None or len(taps) <= most:
        return {tap.name for tap in taps}
    layers: dict[tuple[int, int], list[str]] = {}  # (layer, call): its input and its output
    others = []
    for tap in taps:
        if isinstance(tap.module, _DropoutNd):
            layers.setdefault((id(tap.module), tap.call), []).append(tap.name)
        else:
            others.append(tap.name)
    kept = {name for names in _spaced(list(layers.values()), most // 2) for name in names}
    return kept | set(_spaced(others, most - len(kept)))


def _spaced(items: Sequence[T], most: int) -> list[T]:
    """At most so many, evenly spaced, the last and (of two or more) the first among them."""
    count, last = min(most, len(items)), len(items) - 1
    return [items[last - number * last // max(count - 1, 1)] for number in range(count)]
