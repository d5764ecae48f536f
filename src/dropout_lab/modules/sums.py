"""Sums over the rows of a batch, and means over steps, that stay on the device until they are asked for."""

from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def total(rows: Tensor) -> Tensor:
    """The sum of rows (N,) or (N, k), added up in the order of torch's losses, to the last bit."""
    if rows.ndim == 1 and rows.is_floating_point():
        return -F.nll_loss(rows[:, None], torch.zeros_like(rows, dtype=torch.int64), reduction="sum")
    return rows.sum(0)


def at_least_float32(out: Tensor) -> Tensor:
    """A network's output in float32 or more: sums in half precision would have two or three digits."""
    return out.to(torch.promote_types(out.dtype, torch.float32))


def of_each_process(x: Tensor) -> Tensor:
    """A tensor (...) of each process, (processes, ...) on the host; all of them call it, with the same shape."""
    every = [x]
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        every = [torch.empty_like(x) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(every, x)
    return torch.stack(every).cpu()


def own_of(every: Tensor, rank: int, world_size: int) -> Tensor:
    """The number of one process among those of all of them; their mean, if they were more or fewer then."""
    every = every.reshape(-1)
    return every[rank] if len(every) == world_size else every.mean()


class Mean:
    """A mean of numbers, one a step.

    Args:
        sum: of the numbers so far; None: there are none.
        count: how many they are.
    """

    def __init__(self, sum: Tensor | None = None, count: int = 0) -> None:
        self.sum: Any = sum
        self.count = count

    def add(self, value: Tensor) -> None:
        """Count a number."""
        self.sum = value if self.sum is None else self.sum.to(value.device) + value
        self.count += 1


class RowMeans:
    """Means of scores over all rows of a part of the data, whatever batches of whatever processes they are in."""

    def __init__(self) -> None:
        self._sums: dict[str, Any] = {}
        self._rows = 0

    def add(self, scores: Mapping[str, Tensor]) -> None:
        """Count the rows of a batch: name -> (N,) or (N, k)."""
        self._sums = {name: self._sums.get(name, 0) + total(rows) for name, rows in scores.items()}
        self._rows += len(next(iter(scores.values())))

    def take(self, reduce: Callable[..., Any]) -> dict[str, Any]:
        """The mean of each score, a list where a row has several; ``reduce`` adds a tensor up over all processes."""
        flat = torch.cat([each.reshape(-1) for each in self._sums.values()])
        *totals, count = reduce(torch.cat([flat, flat.new_tensor([self._rows])]), reduce_op="sum").tolist()
        left = iter(total / count for total in totals)
        return {name: [*islice(left, len(each))] if each.ndim else next(left) for name, each in self._sums.items()}
