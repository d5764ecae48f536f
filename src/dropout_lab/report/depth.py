"""The order of layers in a network, and what theory expects of a dropout layer at depth l.

Gain (mean out / mean in at one layer) is exact for any input. The end-to-end ratio (mean in train / mean in eval for
the same network input) is derived for a bias-free ReLU net at He initialisation with dropout after every layer: dropout
with q = 1 - p inflates the second moment of the next pre-activation by 1/q, and E[ReLU] grows with its square root.
"""

import math
import re
from collections.abc import Iterable, Sequence

SCALINGS = ("inverted", "classic", "unscaled", "none")  # those with a law


def natural(name: str) -> list[tuple[int, str]]:
    """A sorting key that puts "run2" before "run10"."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name) if part]


def in_depth_order(layers: Iterable[str]) -> list[str]:
    """Layer names in call order; the network's input and a dropout layer's input come before what they feed."""
    return sorted(layers, key=lambda name: (name.removesuffix("_in") not in _INPUT, *_by_index(name)))


def keeps(p: float, rate: object, count: int) -> list[float] | None:
    """q = 1 - p of each of ``count`` dropout layers, by the placement's rate rule; None for a rule unknown here."""
    if rate == "constant":
        return [1 - p] * count
    if rate == "linear":
        return [1 - p * depth / count for depth in range(1, count + 1)]
    if rate == "geometric":
        return [float((1 - p) ** (depth / count)) for depth in range(1, count + 1)]
    return [1 - float(each) for each in rate] if isinstance(rate, list) and len(rate) == count else None


def expected_gain(scaling: str, q: float, mode: str) -> float:
    """Mean out / mean in of one dropout layer, mode "train" or "eval"; ``scaling`` is one of SCALINGS."""
    return q if scaling == "classic" or (scaling == "unscaled" and mode == "train") else 1.0


def expected_ratio(scaling: str, qs: Sequence[float]) -> float:
    """End-to-end train/eval ratio at a dropout layer, ``qs`` being the q of the dropout layers up to it.

    With one q for all and l layers: q^(-(l-1)/2), and q^((l+1)/2) for unscaled.
    """
    if scaling == "none":
        return 1.0
    root = math.prod(qs[:-1]) ** 0.5
    return root * qs[-1] if scaling == "unscaled" else 1 / root


_INPUT = ("00_input",)  # shares its index with the first module


def _by_index(name: str) -> tuple[object, ...]:
    index, _, rest = name.partition("_")
    number = int(index) if index.isdigit() else 10**9
    return number, rest.removesuffix("_in"), not name.endswith("_in")
