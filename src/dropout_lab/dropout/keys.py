"""Masks as a pure function of (seed, layer, step, row, element).

Inside ``with mask_keys(seed, step, rows):`` no dropout layer touches torch's generator. Each layer has one key per
(seed, step), and row r of the global batch reads its random bits at counter r x (blocks per row). So rows can be
split over any number of processes, a run can be resumed from (seed, step) alone, and strategies compared at one seed
meet the same masks.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Protocol

import torch
from torch import Tensor

from dropout_lab.dropout.philox import random_int64

_LANES = 8  # 16-bit lanes in one 128-bit Philox block


class Keyed(Protocol):
    """What a layer needs to be keyed: a name, or None to be numbered by its first call in the context."""

    name: str | None


@contextmanager
def mask_keys(seed: int, step: int, rows: Sequence[int] | Tensor) -> Iterator[None]:
    """Make every mask drawn inside a pure function of (seed, layer, step, row, element).

    Args:
        seed: the run's seed, any int.
        step: number of micro-batches since the start of training, >= 0.
        rows: positions in the GLOBAL batch of the rows that the layers will see, 1-D int64, ``len(rows) ==
            x.shape[0]``. A tensor on the CPU costs nothing; on another device it is read once.

    A second call of a layer inside one context is another mask. Backward passes that recompute the forward
    (activation checkpointing) find the same masks again, also after the context has closed.

    Raises:
        ValueError: rows is not 1-D, or holds negative positions.
    """
    global _current, _closed
    opened, outer = _Keys.make(seed, step, rows), _current
    _current = opened
    try:
        yield
    finally:
        _current, _closed = outer, opened


def active() -> bool:
    """Whether masks are keyed here: inside the context, or in a backward pass that recomputes a keyed forward."""
    return _current is not None or (_recomputing() and _closed is not None)


def row_bits(layer: Keyed, x: Tensor, lanes: int) -> Tensor:
    """Random 16-bit lanes for each row of x, for the next call of ``layer`` in the context.

    Args:
        layer: whose bits; its name (or number) is part of the key.
        x: the layer's input; its leading dimension is the batch.
        lanes: how many 16-bit values a row needs.

    Returns:
        int16 tensor (len(x), lanes rounded up to a multiple of 8) on x's device, uniform over all 2^16 values.

    Raises:
        ValueError: the context names another number of rows.
        RuntimeError: a layer that was called more than once is recomputed in backward.
    """
    keys = _current if _current is not None else _closed
    assert keys is not None, "call only where active()"
    if x.ndim == 0 or len(x) != keys.count:
        raise ValueError(
            f"dropout layer {layer.name or type(layer).__name__!r}: mask_keys was given {keys.count} rows but the "
            f"input has shape {tuple(x.shape)}; rows= names the global position of each row of the leading dimension"
        )
    blocks = (lanes + _LANES - 1) // _LANES
    key = keys.of(layer, blocks).to(x.device, non_blocking=True)
    words = blocks * 2 * (len(x) if keys.rows is None else 1)
    return random_int64(key, words).view(torch.int16).view(len(x), blocks * _LANES)


@dataclass
class _Keys:
    """One open context. Tensors, not Python ints, carry what changes from step to step: a compiled graph then
    meets the same Python values at every step and is never rebuilt."""

    base: Tensor  # int64 (2,): hash of (seed, step), and the first row where rows are contiguous
    rows: Tensor | None  # int64 (n,), or None where rows are contiguous
    count: int
    calls: dict[int, int] = field(default_factory=dict)  # id(layer) -> calls in this context
    numbers: dict[int, int] = field(default_factory=dict)  # id(layer) -> number by first call, for unnamed layers

    @classmethod
    def make(cls, seed: int, step: int, rows: Sequence[int] | Tensor) -> "_Keys":
        rows = torch.as_tensor(rows, dtype=torch.int64).cpu()
        if rows.ndim != 1 or (len(rows) and int(rows.min()) < 0):
            raise ValueError(f"mask_keys: rows must be 1-D positions >= 0 in the global batch, got {rows.tolist()}")
        first = int(rows[0]) if len(rows) else 0
        contiguous = torch.equal(rows, torch.arange(first, first + len(rows)))
        base = torch.tensor([_hash(f"{seed}/{step}"), first])
        return cls(base, None if contiguous else rows, len(rows))

    def of(self, layer: Keyed, blocks: int) -> Tensor:
        """The key (2,) of contiguous rows, or the keys (n, 2) of single rows, for the layer's next call."""
        word = _hash(layer.name) if layer.name is not None else self._number(layer)
        word = _wrap(word + self._call(layer) * 0x9E3779B97F4A7C15)
        if self.rows is None:
            return self.base * torch.tensor([1, blocks]) + torch.tensor([word, 0])
        return torch.stack(((self.base[0] + word).expand(self.count), self.rows * blocks), dim=1)

    def _call(self, layer: Keyed) -> int:
        if _recomputing():
            if self.calls.get(id(layer), 0) > 1:
                raise RuntimeError(
                    f"dropout layer {layer.name or type(layer).__name__!r} was called more than once and is recomputed "
                    "in backward: which mask belongs to which call cannot be told. Use one layer for each call"
                )
            return 0
        call = self.calls.get(id(layer), 0)
        self.calls[id(layer)] = call + 1
        return call

    def _number(self, layer: Keyed) -> int:
        number = self.numbers.get(id(layer), len(self.numbers))
        self.numbers[id(layer)] = number
        return _wrap((number + 1) * 0xD1342543DE82EF95)


_current: _Keys | None = None
_closed: _Keys | None = None


def _recomputing() -> bool:
    # Autograd's id of the running backward pass; private, hence this one place (see the test of checkpointing).
    # A compiled forward never runs inside a backward pass: recomputation is traced into the compiled graph.
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


@torch._dynamo.assume_constant_result  # type: ignore[untyped-decorator]
def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)


def _wrap(value: int) -> int:
    """To the range of int64, as two's complement."""
    return (value + 2**63) % 2**64 - 2**63
