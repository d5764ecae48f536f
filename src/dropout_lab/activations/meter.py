"""Exact statistics of the tensors that pass through a model, in train and in eval, at nearly no cost.

A :class:`Meter` watches tensors (:class:`Tap`) with hooks. Each adds its count, sum, sum of squares, number of zeros
and what standard errors need to one row of one fp64 tensor. Such sums add up over batches and over processes, so
batches of unequal size and ranks with unequal shards give the statistics of all data together, and one all-reduce and
one transfer to the host per flush are enough. Pure PyTorch, usable without the rest of this package.
"""

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dropout_lab.activations.module_hooks import ModuleHooks
from dropout_lab.activations.readings import COLUMNS, Readings
from dropout_lab.activations.sums import Partial, columns_of, first_tensor, reduced, with_fp64
from dropout_lab.activations.taps import Tap

MODES = ("train", "eval")


class Meter:
    """Counts, means, spreads and zero fractions of taps; the gain of modules tapped on both sides.

    ``attach`` before the model's first call (a compiled model ignores hooks that come later), then, for every batch
    that shall count, ``start(mode)`` before and ``stop()`` after its forward and backward pass. ``flush()`` reads
    everything since the last flush, over all processes, and must be called by all of them.

    Args:
        taps: what to watch; names must differ.
        device: where the sums live: the model's device. Sums of devices without fp64 (MPS) live on the CPU.
    """

    def __init__(self, taps: Sequence[Tap], device: torch.device | str = "cpu") -> None:
        tensors = {(tap.module, tap.where, tap.call) for tap in taps}
        if not len(taps) == len(tensors) == len({tap.name for tap in taps}):
            raise ValueError(f"each tap needs a name and a tensor of its own, got {[tap.name for tap in taps]}")
        self.taps = list(taps)
        self.active = False
        self.skipped: set[str] = set()  # taps that met no floating-point tensor
        self.batches = dict.fromkeys(MODES, 0)
        # A plain tensor, not a buffer: DistributedDataParallel would overwrite it, checkpoints would hold it.
        self._sums = torch.zeros(len(MODES), len(taps), len(COLUMNS), dtype=torch.float64, device=with_fp64(device))
        self._mode = 0
        self._index: dict[tuple[int, ...], Tensor] = {}
        self._pending: list[Partial] = []
        self._record: list[Partial] | None = None
        self._last: tuple[weakref.ref[Tensor], tuple[Any, ...], Partial] | None = None
        self._hooks = [ModuleHooks(self, module) for module in dict.fromkeys(tap.module for tap in taps)]
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._end: torch.utils.hooks.RemovableHandle | None = None

    def attach(self) -> None:
        """Register the hooks; idle, they cost about a microsecond a call."""
        if not self._handles:
            self._handles = [handle for hooks in self._hooks for handle in hooks.register()]

    def detach(self) -> None:
        """Remove the hooks; what was counted stays."""
        self._deactivate()
        while self._handles:
            self._handles.pop().remove()

    def start(self, mode: str, until: nn.Module | None = None) -> None:
        """Count what passes from here on, as "train" or "eval"; with ``until``, to the end of that module's call."""
        self._mode = MODES.index(mode)
        self._reset_calls()
        self.active = True
        if until is not None:
            self._end = until.register_forward_hook(lambda *_: self.stop())

    def stop(self) -> None:
        """Stop counting, and add up what was seen since ``start``."""
        if self.active:
            self._deactivate()
            self.batches[MODES[self._mode]] += 1
            self._add_up()

    @contextmanager
    def record(self) -> Iterator[list[Partial]]:
        """Hand out what passes inside the context instead of counting it (eager mode only)."""
        was, self.active = self.active, True
        self._record = []
        self._reset_calls()
        try:
            yield self._record
        finally:
            self.active, self._record = was, None

    @torch.no_grad()
    def flush(self, extra: Tensor | None = None) -> Readings:
        """Read everything counted since the last flush, over all processes; a collective call.

        ``extra``: any other sums (fp64) that shall be added up over processes in the same message.
        """
        packed = self._sums.flatten()
        if extra is not None:
            packed = torch.cat([packed, extra.flatten().to(packed.device)])
        host = _over_processes(packed)
        self._sums.zero_()
        batches, self.batches = self.batches, dict.fromkeys(MODES, 0)
        sums, rest = host[: self._sums.numel()].view(self._sums.shape), host[self._sums.numel() :]
        return Readings(
            names=[tap.name for tap in self.taps],
            sums=dict(zip(MODES, sums, strict=True)),
            pairs={self.taps[out].name: (into, out) for into, out in self._pairs()},
            batches=batches,
            extra=None if extra is None else rest.view(extra.shape),
        )

    def state(self) -> dict[str, Any]:
        """The sums since the last flush, those of each process, to be saved; a collective call."""
        return {"sums": _of_each_process(self._sums), "batches": dict(self.batches)}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on counting from a saved state; of more or fewer processes the first takes the sums of all."""
        every, (rank, count) = state["sums"].reshape(-1, *self._sums.shape), _place()
        if len(every) == count:
            self._sums.copy_(every[rank])
        elif rank == 0:
            self._sums.copy_(every.sum(0))
        self.batches = dict(state["batches"])

    def observe(self, row: int, value: Any, source: Tensor | None = None) -> Tensor | None:
        """Add the tensor of ``value`` to a row; returns its sums per unit. Called by the hooks."""
        x = first_tensor(value)
        if x is None:
            self.skipped.add(self.taps[row].name)
            return None
        with torch.no_grad():
            if torch.compiler.is_compiling():
                partial = self._reduced(row, x.detach(), source)
                self._sums[self._mode, row] += columns_of([partial])[0].to(self._sums.device)
            else:
                partial = self._reduce_once(row, x, source)
                (self._pending if self._record is None else self._record).append(partial)
        return partial.sum

    def _reduce_once(self, row: int, x: Tensor, source: Tensor | None) -> Partial:
        """The sums of a tensor, taken once for two taps: what an activation puts out a dropout layer takes in."""
        if x.is_inference():  # counts no changes in place
            return self._reduced(row, x, source)
        state = x._version, self.taps[row].units, self._record is None
        if self._last is not None and self._last[0]() is x and self._last[1] == state:
            return self._last[2]._replace(row=row, source=source)
        partial = self._reduced(row, x.detach(), source)
        self._last = weakref.ref(x), state, partial
        return partial

    def _reduced(self, row: int, x: Tensor, source: Tensor | None) -> Partial:
        """The sums of a tensor that a tap sees."""
        return reduced(x, row, self.taps[row].units, source, least=self._record is not None)

    @torch.no_grad()
    def _add_up(self) -> None:
        """Add what is pending to the sums, all that is alike at once."""
        shapes: dict[tuple[Any, ...], list[Partial]] = {}
        for partial in self._pending:
            alike = partial.sum.shape, partial.elements, partial.source is None
            shapes.setdefault(alike, []).append(partial)
        self._pending = []
        for group in shapes.values():
            rows = tuple(partial.row for partial in group)
            if rows not in self._index:  # the same groups come back at every step: no transfer for them
                self._index[rows] = torch.tensor(rows, device=self._sums.device)
            self._sums[self._mode].index_add_(0, self._index[rows], columns_of(group).to(self._sums.device))

    def _deactivate(self) -> None:
        self.active = False
        if self._end is not None:
            self._end.remove()

    def _reset_calls(self) -> None:
        """Begin anew with the first call of each module."""
        for hooks in self._hooks:
            hooks.call, hooks.source = 0, None

    def _pairs(self) -> list[tuple[int, int]]:
        """The rows of input and output of each call that is watched on both sides."""
        at = {(tap.module, tap.call, tap.where): row for row, tap in enumerate(self.taps)}
        return [
            (at[module, call, "input"], row)
            for (module, call, where), row in at.items()
            if where == "output" and (module, call, "input") in at
        ]


def _over_processes(sums: Tensor) -> Tensor:
    """Sums of all processes, as a copy on the host."""
    if _place()[1] > 1:
        sums = sums.clone()
        torch.distributed.all_reduce(sums)
    return sums.cpu().clone()


def _of_each_process(sums: Tensor) -> Tensor:
    """Sums of each process, one after another, as a copy on the host."""
    every = [torch.empty_like(sums) for _ in range(_place()[1])]
    if len(every) > 1:
        torch.distributed.all_gather(every, sums)
    return torch.stack(every if len(every) > 1 else [sums]).cpu()


def _place() -> tuple[int, int]:
    """The number of this process, and how many there are."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1
