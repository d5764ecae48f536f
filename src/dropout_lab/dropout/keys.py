"""Masks as a pure function of (seed, layer, step, row, element).

Inside ``with mask_keys(seed, step, rows):`` no dropout layer touches torch's generator. Each layer has one key per
(seed, step), and row r of the global batch reads its random bits at counter r x (blocks per row). So rows can be
split over any number of processes, a run can be resumed from (seed, step) alone, and strategies compared at one seed
meet the same masks.
"""

import operator
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, NoReturn, Protocol

import torch
from torch import Tensor

from dropout_lab.dropout.philox import random_int64


class Keyed(Protocol):
    """What a layer needs to be keyed: a name and its :func:`name_word`; or None and None, to be numbered by the order
    of the first calls in a context."""

    name: str | None
    word: Tensor | None


@contextmanager
def mask_keys(seed: int, step: int, rows: Sequence[int] | Tensor) -> Iterator[None]:
    """Make every mask drawn inside a pure function of (seed, layer, step, row, element).

    Args:
        seed: the run's seed, any int.
        step: number of micro-batches since the start of training, >= 0.
        rows: positions in the GLOBAL batch of the rows that the layers will see, 1-D integers >= 0, ``len(rows) ==
            x.shape[0]``. A range costs least; a tensor on another device than the CPU is read once.

    A second call of a layer inside one context is another mask. Backward passes that recompute the forward
    (activation checkpointing) find the same masks again, also after the context has closed and others were opened.

    Raises:
        TypeError: seed, step or rows are not integers.
        ValueError: step is negative, or rows is not 1-D or holds negative positions.
    """
    global _current
    outer, _current = _current, _Keys.make(seed, step, rows)
    opened = _current
    _history.append(opened)
    try:
        yield
    finally:
        _current = outer
        opened.close()


def active() -> bool:
    """Whether masks are keyed here: inside the context, or in a backward pass that recomputes a keyed forward."""
    return _here() is not None


def row_words(layer: Keyed, x: Tensor, blocks: int) -> Tensor:
    """Random 64-bit words for each row of x, for this call of ``layer``.

    Args:
        layer: whose words; its name (or number) is part of the key.
        x: the layer's input; its leading dimension is the batch.
        blocks: how many 128-bit blocks a row needs.

    Returns:
        int64 tensor (len(x), 2 * blocks) on x's device, uniform; keyed where :func:`active`, else from torch's
        generator. A 0-d x has one row.

    Raises:
        ValueError: the context names another number of rows.
        RuntimeError: a layer that was called more than once is recomputed in backward.
    """
    keys = _here()
    if keys is None:
        rows = x.shape[0] if x.ndim else 1
        # The upper bound is exclusive and no int64 lies above it: one of 2^64 values never occurs.
        return torch.randint(-(2**63), 2**63 - 1, (rows, 2 * blocks), device=x.device)
    if x.ndim == 0 or x.shape[0] != keys.count:
        raise ValueError(
            f"dropout layer {_called(layer)}: mask_keys was given {keys.count} rows but the input has shape "
            f"{tuple(x.shape)}; rows= names the global position of each row of the leading dimension"
        )
    key = keys.of(layer, blocks).to(x.device, non_blocking=True)
    return random_int64(key, 2 * blocks * (keys.count if key.ndim == 1 else 1)).view(keys.count, 2 * blocks)


def name_word(name: str | None) -> Tensor | None:
    """A layer's name as the part of its key that does not change: int64 (2,), to be computed once.

    A tensor, not an int: then one compiled graph serves layers of any name.
    """
    if name is None:
        return None
    with torch.inference_mode(False):
        return torch.tensor([_hash(name), 0], device="cpu")


@dataclass(eq=False)
class _Keys:
    """One context. Tensors, not Python ints, carry what changes from step to step: a compiled graph then meets the
    same Python values at every step and is never rebuilt."""

    base: Tensor  # int64 (2,): hash of (seed, step), and the first row
    count: int
    starts_at_0: bool
    rows: Tensor | None  # int64 (count,), or None where rows are contiguous
    begin: int  # autograd nodes made in this context have sequence numbers in [begin, end)
    task: int  # the backward pass that opened this context, -1 if none did
    end: int = sys.maxsize
    calls: dict[int, int] = field(default_factory=dict)  # id(layer) -> calls in this context
    numbers: dict[int, int] = field(default_factory=dict)  # id(layer) -> number by first call, for unnamed layers
    layers: list[Any] = field(default_factory=list)  # kept alive while the context is open, so that ids stay unique

    @classmethod
    def make(cls, seed: int, step: int, rows: Sequence[int] | Tensor) -> "_Keys":
        seed, step = _integer("seed", seed), _integer("step", step)
        if step < 0:
            raise ValueError(f"mask_keys: step counts micro-batches since the start of training, got {step}")
        first, count, scattered = _read_rows(rows)
        base = torch.tensor([_hash(f"{seed}/{step}"), first], device="cpu")
        begin, task = torch.autograd._get_sequence_nr(), torch._C._current_graph_task_id()  # type: ignore[attr-defined]
        return cls(base, count, first == 0, scattered, begin, task)

    def close(self) -> None:
        self.end = torch.autograd._get_sequence_nr()  # type: ignore[attr-defined]
        self.layers.clear()

    def of(self, layer: Keyed, blocks: int) -> Tensor:
        """The key (2,) of contiguous rows, or the keys (count, 2) of single rows, for the layer's next call."""
        call = self._call(layer)
        word = layer.word
        if word is None:
            word = torch.tensor([_wrap((self._number(layer) + 1) * 0xD1342543DE82EF95), 0], device="cpu")
        if call:
            word = word + torch.tensor([_wrap(call * 0x9E3779B97F4A7C15), 0], device="cpu")
        if self.rows is not None:
            return torch.stack(((self.base[0] + word[0]).expand(self.count), self.rows * blocks), dim=1)
        if self.starts_at_0:
            return self.base + word
        return torch.addcmul(word, self.base, torch.tensor([1, blocks], device="cpu"))

    def _call(self, layer: Keyed) -> int:
        calls = self.calls.get(id(layer), 0)
        if calls and not torch.compiler.is_compiling() and _recomputes(self):
            if calls > 1:
                _refuse_recomputation(layer)
            return 0
        if not calls:
            self.layers.append(layer)
        self.calls[id(layer)] = calls + 1
        return calls

    def _number(self, layer: Keyed) -> int:
        return self.numbers.setdefault(id(layer), len(self.numbers))


_current: _Keys | None = None
# Contexts whose forward may still be recomputed. A backward pass that waits for longer than this is none we know of.
_history: deque[_Keys] = deque(maxlen=1024)
_recomputing: dict[int, _Keys | None] = {}  # backward passes under way -> context of their last recomputed draw


def _here() -> _Keys | None:
    """The context a draw belongs to: the open one; in a backward pass that recomputes a forward, that forward's.

    Autograd numbers its nodes as they are made, so the number of the node that runs says in which context it was made.
    """
    if torch.compiler.is_compiling():  # recomputation is traced into the compiled graph
        return _current
    task = torch._C._current_graph_task_id()
    if task == -1:
        _recomputing.clear()  # a backward pass that raised has left its entry
        return _current
    if _current is not None and _current.task == task:
        return _current
    if _recomputing and task not in _recomputing:  # a checkpoint inside a checkpoint: its nodes were made in backward
        return next(reversed(_recomputing.values()))
    number = torch._C._current_autograd_node()._sequence_nr()  # type: ignore[attr-defined]
    found = next((keys for keys in reversed(_history) if keys.begin <= number < keys.end), None)
    if task not in _recomputing:
        torch.autograd.Variable._execution_engine.queue_callback(lambda: _recomputing.pop(task, None))  # type: ignore
    _recomputing[task] = found
    return found


def _recomputes(keys: _Keys) -> bool:
    return torch._C._current_graph_task_id() not in (-1, keys.task)


def _refuse_recomputation(layer: Keyed) -> NoReturn:
    raise RuntimeError(
        f"dropout layer {_called(layer)} was called more than once and is recomputed in backward: which mask belongs "
        "to which call cannot be told. Use one layer for each call"
    )


def _called(layer: Keyed) -> str:
    return repr(layer.name or type(layer).__name__)


def _read_rows(rows: Sequence[int] | Tensor) -> tuple[int, int, Tensor | None]:
    """(first row, number of rows, the rows unless they are contiguous)."""
    if isinstance(rows, range) and rows.step == 1 and rows.start >= 0:
        return rows.start, len(rows), None
    table = torch.as_tensor(rows).to("cpu", copy=True)
    if table.numel() == 0:
        table = table.to(torch.int64)  # an empty list has no dtype of its own
    if table.dtype == torch.bool or table.is_floating_point() or table.is_complex():
        raise TypeError(f"mask_keys: rows must be integers, got {table.dtype}")
    if table.ndim != 1 or (table < 0).any():
        raise ValueError(f"mask_keys: rows must be 1-D positions >= 0 in the global batch, got {table.tolist()}")
    table = table.to(torch.int64)
    first, count = int(table[0]) if len(table) else 0, len(table)
    return first, count, None if torch.equal(table, torch.arange(first, first + count, device="cpu")) else table


def _integer(name: str, value: int) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"mask_keys: {name} must be an int, got {value!r}") from None


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)


def _wrap(value: int) -> int:
    """To the range of int64, as two's complement."""
    return (value + 2**63) % 2**64 - 2**63
