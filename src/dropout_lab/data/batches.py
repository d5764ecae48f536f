"""Which samples make up which batch: a pure function of (seed, epoch, step), whatever the number of processes."""

from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler


class GlobalBatches(Sampler[Tensor]):
    """Indices of this process's rows of each training batch.

    Every epoch is a fresh permutation. Global batch s holds its entries [sB, (s+1)B), and process r of W takes the
    contiguous rows [rB/W, (r+1)B/W) of it. The short last batch of an epoch is dropped: split unevenly over
    processes it would weight its samples differently.

    Args:
        size: number of samples.
        batch_size: B, over all processes.
        seed: of the permutations.
        rank: this process, 0 <= rank < world_size.
        world_size: number of processes; must divide B.

    Raises:
        ValueError: B is larger than the data, or not divisible by world_size.
    """

    def __init__(self, size: int, batch_size: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        if batch_size > size:
            raise ValueError(f"data.batch_size={batch_size} is larger than the training set of {size} samples")
        if batch_size % world_size:
            raise ValueError(
                f"data.batch_size={batch_size} is the batch over all devices and must be divisible by their number, "
                f"{world_size}"
            )
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.epoch = 0
        self.start = 0  # batches of the epoch to leave out, the next time

    def set_epoch(self, epoch: int) -> None:
        """Choose the permutation of an epoch; Lightning calls this at its start."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Tensor]:
        digest = blake2b(f"{self.seed}/{self.epoch}".encode(), digest_size=7).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "little"))
        order = torch.randperm(self.size, generator=generator)
        rows = self.batch_size // self.world_size
        for step in range(self.start, len(self)):
            start = step * self.batch_size + self.rank * rows
            yield order[start : start + rows]

    def __len__(self) -> int:
        return self.size // self.batch_size


class ResumableLoader(DataLoader[Any]):
    """A loader that goes on within an epoch: Lightning keeps its state in checkpoints.

    Its ``sampler`` is a :class:`GlobalBatches`, first read at the first batch, as Lightning sets the epoch late.
    """

    _given = 0  # batches of this epoch so far
    _skip = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        batches: Any = self.sampler
        batches.start = self._given = self._skip
        self._skip = 0
        for batch in super().__iter__():
            self._given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """How many batches of its epoch the loader has given; 0 at the end, where the next one begins."""
        return {"batches": self._given % len(self)}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Leave out as many batches of the next epoch as the state says were given."""
        self._skip = state_dict["batches"]
