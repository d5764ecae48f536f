"""The order of layers in a network, first to last, and that of numbers in names."""

import re
from collections.abc import Iterable


def natural(name: str) -> list[tuple[int, str]]:
    """A sorting key that puts "run2" before "run10"."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name) if part]


def in_depth_order(layers: Iterable[str]) -> list[str]:
    """Layer names in call order; the network's input and a dropout layer's input come before what they feed."""
    return sorted(layers, key=lambda name: (name.removesuffix("_in") not in _INPUT, *_by_index(name)))


_INPUT = ("00_input",)  # shares its index with the first module


def _by_index(name: str) -> tuple[object, ...]:
    index, _, rest = name.partition("_")
    number = int(index) if index.isdigit() else 10**9
    return number, rest.removesuffix("_in"), not name.endswith("_in")
