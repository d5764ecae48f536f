"""The axes on which a strategy is a point, and what a rate has to be."""

from collections.abc import Sequence
from numbers import Real
from typing import Any

MASKS = ("element", "channel", "sample")
NOISES = ("bernoulli", "gaussian")
SCALINGS = ("inverted", "classic", "unscaled")


def require_rate(p: Any, whose: str = "") -> None:
    """Refuse what is no probability to drop.

    Args:
        p: to be 0 <= p < 1.
        whose: what has it, to be told in front.

    Raises:
        ValueError: p outside [0, 1).
        TypeError: p is not a real number.
    """
    number = isinstance(p, Real) and not isinstance(p, bool)
    if not (number and 0 <= p < 1):  # written so that NaN fails
        error = ValueError if number else TypeError
        raise error(f"{whose}p={p!r}: must be the probability to DROP a unit, a number with 0 <= p < 1")


def require_one_of(axis: str, value: str | None, allowed: Sequence[str], null: bool = False) -> None:
    """Refuse what is no kind of dropout.

    Args:
        axis: name of the argument.
        value: to be one of those allowed.
        allowed: two or more.
        null: None will do, too.

    Raises:
        ValueError: the value is none of those.
    """
    if not (null and value is None) and value not in allowed:
        kinds = f"{', '.join(allowed[:-1])} or {allowed[-1]}"
        raise ValueError(f"{axis}={value}: must be {kinds}" + ", or null" * null)


def eval_factor(scaling: str, p: float) -> float:
    """What a layer multiplies its input by in eval mode: 1 - p if it is classic, else 1.

    Args:
        scaling: "inverted", "classic" or "unscaled".
        p: its probability to drop.
    """
    return 1 - p if scaling == "classic" else 1.0
