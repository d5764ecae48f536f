"""Theory of a dropout layer at depth l: its gain, and the ratio of train to eval at its output.

Gain (mean out / mean in at one layer) is exact for any input. The end-to-end ratio (mean in train / mean in eval for
the same network input) is derived for a bias-free ReLU net at He initialisation with dropout after every layer: dropout
with q = 1 - p inflates the second moment of the next pre-activation by 1/q, and E[ReLU] grows with its square root.
"""

import math
from collections.abc import Sequence

SCALINGS = ("inverted", "classic", "unscaled", "none")  # those with a law


def expected_gain(scaling: str, q: float, mode: str) -> float:
    """The gain, mean out / mean in, of one dropout layer in mode "train" or "eval"; ``scaling`` is one of SCALINGS."""
    return q if scaling == "classic" or (scaling == "unscaled" and mode == "train") else 1.0


def expected_ratio(scaling: str, qs: Sequence[float]) -> float:
    """The end-to-end train/eval ratio at a dropout layer, ``qs`` being the q of the dropout layers up to it.

    With one q for all and l layers: q^(-(l-1)/2), and q^((l+1)/2) for unscaled.
    """
    if scaling == "none":
        return 1.0
    root = math.prod(qs[:-1]) ** 0.5
    return root * qs[-1] if scaling == "unscaled" else 1 / root
