"""Rows of the global batch: which of them the leading dimension of a layer's input holds."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_LAST = 2**48  # so that the number of a row's word fits in 64 bits, for rows of up to 2^16 words


class Rows(NamedTuple):
    """Positions of rows in the global batch.

    Attributes:
        first: the smallest of them.
        size: how many rows.
        table: int64 (size,) on the CPU: all of them; None where they are contiguous from ``first``.
    """

    first: int
    size: int
    table: Tensor | None = None

    @classmethod
    def read(cls, rows: Sequence[int] | Tensor) -> "Rows":
        """Rows as a user gives them.

        Args:
            rows: 1-D integers, 0 <= row < 2^48. A range costs least; a tensor on another device than the CPU is read
                once.

        Raises:
            TypeError: not integers.
            ValueError: not 1-D, or outside of that range.
        """
        if isinstance(rows, range) and rows.step == 1 and rows.start >= 0 and rows.stop <= _LAST:
            return cls(rows.start, len(rows))
        given = rows.detach().cpu().numpy() if isinstance(rows, Tensor) else np.asarray(rows)
        if given.size == 0:
            given = given.astype(np.int64)  # an empty list has no dtype of its own
        if given.dtype.kind not in "iu":
            raise TypeError(f"mask_keys: rows must be integers, got {given.dtype}")
        table = given.astype(np.int64)  # a copy: what was given may change
        first = int(table.min(initial=_LAST))
        if table.ndim != 1 or first < 0 or table.max(initial=0) >= _LAST:
            raise ValueError(
                f"mask_keys: rows must be 1-D positions >= 0 in the global batch, below 2^48, got {given.tolist()}"
            )
        if np.array_equal(table - first, np.arange(len(table))):
            return cls(first if len(table) else 0, len(table))
        return cls(first, len(table), torch.from_numpy(table))

    @property
    def order(self) -> NDArray[np.int64] | None:
        """The table as an array, counted from ``first``; None where there is none."""
        return None if self.table is None else self.table.numpy() - self.first
