"""Rules on the arguments of data sets: a broken one is told as ``data.KEY=VALUE: must be WHAT IS ALLOWED``."""

from math import isfinite
from numbers import Integral, Real
from pathlib import Path
from typing import Any


def require(key: str, value: object, fits: bool, allowed: str) -> None:
    """Refuse the value of an argument where it does not fit.

    Raises:
        ValueError: the key, its value, and what is allowed.
    """
    if not fits:
        raise ValueError(f"data.{key}={value}: must be {allowed}")


def require_integer(key: str, value: Any, least: int, null: bool = False) -> None:
    """Refuse what is no integer, or less than the least one; ``null``: None will do, too.

    Raises:
        ValueError: as ``require``.
    """
    fits = (null and value is None) or (is_integer(value) and value >= least)
    require(key, value, fits, f"an integer >= {least}" + ", or null" * null)


def require_share(key: str, value: Any, ends: bool = True) -> None:
    """Refuse what is no number from 0 to 1; ``ends``: whether 0 and 1 will do.

    Raises:
        ValueError: as ``require``.
    """
    fits = is_number(value) and (0 <= value <= 1 if ends else 0 < value < 1)
    require(key, value, fits, f"a number with 0 <= {key} <= 1" if ends else f"a number with 0 < {key} < 1")


def stamp_of(path: Path) -> tuple[int, int]:
    """Size and time of the file that ``data.file`` names, by which it is known whether it has to be read again.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"data.file={path}: there is no such file")
    return path.stat().st_size, path.stat().st_mtime_ns


def is_integer(value: object) -> bool:
    """Whether a value is an integer, and no switch."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Whether a value is a finite number, and no switch."""
    return isinstance(value, Real) and not isinstance(value, bool) and isfinite(value)
