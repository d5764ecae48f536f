"""Tables of numbers in files, a sample a line: CSV with any usual separator, or NumPy's npz."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dropout_lab.cli import nearest
from dropout_lab.data.rules import stamp_of

NPZ = ("x", "y")  # the arrays that an npz file has


class Table(NamedTuple):
    """Features (N, F) and targets (N, k), float64."""

    features: np.ndarray[Any, Any]
    targets: np.ndarray[Any, Any]


def read_table(path: Path, target: str | Sequence[str] | None, features: Sequence[str] | None) -> Table:
    """The table in a file.

    A text file has one sample a line, its columns separated by commas, semicolons, tabs or blanks; names of columns
    may stand in its first line, else they are called 0, 1, 2. An npz file has arrays x (N, F) and y (N,) or (N, k).

    Args:
        path: a file whose name ends in .npz, or a text file.
        target: columns to be predicted; None: the last one. Of text files alone, as is
        features: columns that are given; None: all others.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no table of finite numbers, or has no such column.
    """
    stamp = stamp_of(path)
    targets = (target,) if isinstance(target, str | int) else target
    return _read(path, _names(targets), _names(features), stamp)


def read_index(path: Path, size: int) -> np.ndarray[Any, Any]:
    """Numbers of samples, counted from 0, in a text file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: what it holds are no numbers of so many samples, or one comes twice.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file of numbers of samples")
    try:
        numbers = np.array([float(word) for word in path.read_text(encoding="utf-8").split()])
        index = numbers.astype(np.int64)
    except ValueError as error:
        raise ValueError(f"{path}: must hold numbers of samples: {error}") from error
    if not len(index) or (index != numbers).any() or index.min() < 0 or index.max() >= size:
        raise ValueError(f"{path}: must hold numbers of samples, 0 to {size - 1}, and holds {_range(numbers)}")
    if len(np.unique(index)) < len(index):
        raise ValueError(f"{path}: holds the number of a sample twice")
    return index


@functools.lru_cache(maxsize=4)
def _read(
    path: Path, targets: tuple[str, ...] | None, features: tuple[str, ...] | None, stamp: tuple[int, int]
) -> Table:
    """As ``read_table``; once for all jobs of a sweep, while the file stays."""
    if path.suffix == ".npz":
        if targets is not None or features is not None:
            raise ValueError(f"data.target, data.features: are for columns with names; {path} has arrays x and y")
        return _npz(path)
    frame = _frame(path)
    names = [*map(str, frame.columns)]
    targets = targets or (names[-1],)
    given = features or tuple(name for name in names if name not in targets)
    for key, chosen in (("target", targets), ("features", given)):
        for name in chosen:
            if name not in names:
                raise ValueError(
                    f"data.{key}={name}: {path} has no such column; {nearest(name, names)}it has {', '.join(names)}"
                )
    if twice := set(targets) & set(given):
        raise ValueError(f"data.target={min(twice)}: is one of data.features, too")
    if not given:
        raise ValueError(f"{path}: has one column, and needs features besides the target")
    frame.columns = names
    return Table(*(_numbers(path, frame[[*chosen]]) for chosen in (given, targets)))


def _names(columns: Sequence[str | int] | None) -> tuple[str, ...] | None:
    """Names of columns, which may have been given as their numbers."""
    return tuple(map(str, columns)) if columns else None


def _npz(path: Path) -> Table:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: np.asarray(arrays[name], dtype=np.float64) for name in NPZ if name in arrays}
            there = [*arrays]
    except Exception as error:
        raise ValueError(f"{path}: cannot be read as npz with arrays of numbers ({error})") from error
    if missing := [name for name in NPZ if name not in found]:
        raise ValueError(f"{path}: needs an array {missing[0]}; it has {', '.join(there) or 'none'}")
    x, y = found["x"], found["y"]
    y = y[:, None] if y.ndim == 1 else y
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
        raise ValueError(
            f"{path}: must hold x (N, F) and y (N,) or (N, k), and holds x {x.shape}, y {found['y'].shape}"
        )
    for name, array in (("x", x), ("y", y)):
        if not np.isfinite(array).all():
            row, column = map(int, np.argwhere(~np.isfinite(array))[0])
            raise ValueError(f"{path}: {name}[{row}, {column}] is {array[row, column]}; all must be finite numbers")
    return Table(x, y)


def _frame(path: Path) -> Any:
    """A text file as pandas reads it."""
    import pandas as pd

    try:
        with path.open(encoding="utf-8-sig") as file:
            first = next((line for line in file if line.strip()), "")
        separator = next((each for each in ",;\t" if each in first), r"\s+")
        words = first.replace(separator, " ").split() if len(separator) == 1 else first.split()
        header = None if all(map(_is_number, words)) else 0
        return pd.read_csv(path, sep=separator, header=header, encoding="utf-8-sig", skipinitialspace=True)
    except (ValueError, OSError) as error:  # of pandas' parser, too
        raise ValueError(f"{path}: cannot be read as a table ({' '.join(str(error).split())})") from error


def _numbers(path: Path, frame: Any) -> np.ndarray[Any, Any]:
    """The columns of a frame as numbers; refused where a value is none."""
    import pandas as pd

    numbers: np.ndarray[Any, Any] = frame.apply(pd.to_numeric, errors="coerce").to_numpy(dtype=np.float64)
    if not np.isfinite(numbers).all():
        row, column = map(int, np.argwhere(~np.isfinite(numbers))[0])
        name, value = frame.columns[column], frame.iloc[row, column]
        empty = bool(pd.isna(value))
        raise ValueError(
            f"{path}: column {name}, sample {row}: {'nothing is there' if empty else f'{value} is no finite number'}; "
            "fill in or remove such samples, give categories numbers or columns of their own, or choose data.features"
        )
    return numbers


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _range(numbers: np.ndarray[Any, Any]) -> str:
    """What numbers there are, for a message."""
    return f"{numbers.min():g} to {numbers.max():g}" if len(numbers) else "none"
