"""Masks as a pure function of (seed, layer, step, row, element).

Inside ``with mask_keys(seed, step, rows):`` no dropout layer touches torch's generator. Each layer has one key per
(seed, step), and row r of the global batch reads the words that follow those of row r - 1. So rows can be
split over any number of processes, a run can be resumed from (seed, step) alone, and strategies compared at one seed
meet the same masks.
"""

import math
import operator
import sys
from array import array
from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from hashlib import blake2b
from typing import Protocol

import torch
from torch import Tensor

from dropout_lab.dropout.philox import random_int32

MASKS_VERSION = 2  # other masks for the same keys raise it: checkpoints carry it, a run is not gone on with across it


class Keyed(Protocol):
    """A layer that can be keyed: by its name and the :func:`name_word` of that.

    Both None: it is numbered by the order of the first calls in a context.
    """

    name: str | None
    word: int | None


def mask_keys(seed: int, step: int, rows: Sequence[int] | Tensor) -> AbstractContextManager[None]:
    """``with mask_keys(seed, step, rows):`` makes every mask a pure function of (seed, layer, step, row, element).

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
    try:
        seed, step = operator.index(seed), operator.index(step)
    except TypeError:
        raise TypeError(f"mask_keys: seed and step must be ints, got {seed!r} and {step!r}") from None
    if step < 0:
        raise ValueError(f"mask_keys: step counts micro-batches since the start of training, got {step}")
    return _Keys((_hash(str(seed)) + step * 0xBF58476D1CE4E5B9) % 2**64, *_read_rows(rows))


def active() -> bool:
    """Whether masks are keyed here: inside the context, or in a backward pass that recomputes a keyed forward."""
    return _here() is not None


def transformed() -> bool:
    """Whether a transform of ``torch.func`` (vmap, grad, jvp, ...) runs."""
    return bool(torch._C._are_functorch_transforms_active())


def row_words(layer: Keyed, x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Random 32-bit words for each row of x, for this call of ``layer``.

    Args:
        layer: whose words; its name (or number) is part of the key.
        x: the layer's input; its leading dimension is the batch.
        shape: of the words; ``shape[0] == len(x)``, or () for a 0-d x. Rows of a multiple of 4 words cost least.

    Returns:
        int32 tensor of that shape on x's device, uniform; keyed where :func:`active`, else from torch's generator.

    Raises:
        ValueError: the context names another number of rows.
        RuntimeError: a layer that was called more than once is recomputed in backward.
    """
    keys = _here()
    if keys is None:
        count = math.prod(shape)
        # The upper bound is exclusive and no int64 lies above it: one of 2^64 values never occurs.
        bits = torch.randint(-(2**63), 2**63 - 1, ((count + 1) // 2,), device=x.device)
        if transformed():  # vmap before torch 2.14 can't view bits as another type
            words = torch.stack((bits.to(torch.int32), (bits >> 32).to(torch.int32)), dim=-1).flatten(-2)
        else:
            words = bits.view(torch.int32)
        return (words[:count] if count % 2 else words).view(shape)
    if x.ndim == 0 or x.shape[0] != keys.count:
        raise ValueError(
            f"dropout layer {_called(layer)}: mask_keys was given {keys.count} rows but the input has shape "
            f"{tuple(x.shape)}; rows= names the global position of each row of the leading dimension"
        )
    return keys.words(layer, x, shape)


def name_word(name: str | None) -> int | None:
    """A layer's name as the part of its key that does not change, to be computed once."""
    return None if name is None else _hash(name)


class _Keys:
    """One context of :func:`mask_keys`: the hash of (seed, step), the rows, and the layers that were called so far.

    Many closed ones wait for their backward passes, so they are small.
    """

    __slots__ = ("begin", "calls", "count", "end", "first", "layers", "outer", "rows", "task", "word")

    def __init__(self, word: int, first: int, count: int, rows: Tensor | None) -> None:
        self.word, self.first, self.count = word, first, count
        self.rows = rows  # int64 (count,), or None where rows are contiguous from ``first``
        self.calls: dict[int, int] = {}  # id(layer) -> calls in this context, in the order of the first ones
        self.layers: list[Keyed] = []  # kept alive while the context is open, so that ids stay unique
        self.outer: _Keys | None = None
        self.task = -1  # the backward pass that opened this context, if one did
        self.begin, self.end = -1, sys.maxsize  # sequence numbers of autograd nodes made here lie in [begin, end)

    def __enter__(self) -> None:
        global _current
        if self.begin >= 0:
            raise RuntimeError("mask_keys: a context is entered once; call mask_keys again for the next forward")
        self.outer, _current = _current, self
        _base[0], _base[1] = self.word, self.first
        self.task, self.begin = torch._C._current_graph_task_id(), torch.autograd._get_sequence_nr()  # type: ignore
        _history.append(self)

    def __exit__(self, *_: object) -> None:
        global _current
        _current, self.outer = self.outer, None
        if _current is not None:
            _base[0], _base[1] = _current.word, _current.first
        self.end = torch.autograd._get_sequence_nr()  # type: ignore[attr-defined]
        self.layers.clear()

    def words(self, layer: Keyed, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The words of the layer's next call: row r of the global batch has number r * count to (r + 1) * count - 1."""
        call = self.calls.get(id(layer), 0)
        if call:
            call = self._next(layer, call)
        else:
            self.calls[id(layer)] = 1
            self.layers.append(layer)
        word = layer.word
        if word is None:
            word = (list(self.calls).index(id(layer)) + 1) * 0xD1342543DE82EF95
        word += call * 0x9E3779B97F4A7C15
        count = math.prod(shape[1:])
        compiling = torch.compiler.is_compiling()
        if self.rows is None and not compiling and self.first * count % 4 == 0:
            pair = (self.word + word) % 2**64, self.first * count // 4
            if x.is_cpu:
                _key[0], _key[1] = pair
                return random_int32(_KEY, shape)
            return random_int32(_tensor(*pair, torch.uint64).to(x.device, non_blocking=True), shape)
        # Runs of consecutive words: a single one where rows are contiguous.
        base = _BASE if compiling else _tensor(self.word, self.first, torch.int64)
        starts, run = (base[1:], count * self.count) if self.rows is None else (self.rows, count)
        starts = starts * count
        keys = torch.stack(((base[:1] + _signed(word)).expand_as(starts), starts // 4), dim=1)
        keys = keys.to(x.device, non_blocking=True).view(torch.uint64)
        if count % 4 == 0:
            return random_int32(keys, (len(starts), run)).view(shape)
        words = random_int32(keys, (len(starts), run + 3))  # whichever word of a block is the first
        numbers = (starts % 4).unsqueeze(1) + torch.arange(run, device="cpu")
        return words.gather(1, numbers.to(x.device)).view(shape)

    def _next(self, layer: Keyed, calls: int) -> int:
        """The number of a call of a layer that was called before: the next one, or one that is recomputed."""
        if not torch.compiler.is_compiling() and torch._C._current_graph_task_id() not in (-1, self.task):
            if calls > 1:
                raise RuntimeError(
                    f"dropout layer {_called(layer)} was called more than once and is recomputed in backward: which "
                    "mask belongs to which call cannot be told. Use one layer for each call"
                )
            return 0
        self.calls[id(layer)] = calls + 1
        return calls


_current: _Keys | None = None
# (word, first) of the open context: what changes from step to step must be a tensor in a compiled graph.
_base = array("Q", (0, 0))
_BASE = torch.frombuffer(_base, dtype=torch.int64)
# The key of a draw on the CPU, which is over before the next one is written: a tensor made for each would take 5 % of a
# small layer's time, forward and backward.
_key = array("Q", (0, 0))
_KEY = torch.frombuffer(_key, dtype=torch.uint64)
# Contexts whose forward may still be recomputed. A backward pass that waits for longer than this is none we know of.
_history: deque[_Keys] = deque(maxlen=256)
_recomputing: dict[int, _Keys | None] = {}  # backward passes under way -> context of their last recomputed draw


def _here() -> _Keys | None:
    """The context a draw belongs to: the open one; in a backward pass that recomputes a forward, that forward's.

    Autograd numbers its nodes as they are made, so the number of the node that runs says in which context it was made.
    """
    if torch.compiler.is_compiling():  # recomputation is traced into the compiled graph
        return _current
    task = torch._C._current_graph_task_id()
    if task == -1:
        if _recomputing:
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


def _tensor(first: int, second: int, dtype: torch.dtype) -> Tensor:
    """A tensor of two 64-bit words, in a third of the time that torch.tensor takes."""
    return torch.frombuffer(array("Q", (first, second)), dtype=dtype)


def _called(layer: Keyed) -> str:
    return repr(layer.name or type(layer).__name__)


def _read_rows(rows: Sequence[int] | Tensor) -> tuple[int, int, Tensor | None]:
    """Rows as (first row, number of rows, the rows unless they are contiguous)."""
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


@lru_cache
def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


def _signed(value: int) -> int:
    """A 64-bit word as int64 spells it."""
    return (value + 2**63) % 2**64 - 2**63
