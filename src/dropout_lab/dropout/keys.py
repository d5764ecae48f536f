"""Masks as a pure function of (seed, layer, step, row, element).

Inside ``with mask_keys(seed, step, rows):`` no dropout layer touches torch's generator. Each layer has one stream of
random words per (seed, step), and row r of the global batch reads the words that follow those of row r - 1. So rows can
be split over any number of processes, a run can be resumed from (seed, step) alone, and strategies compared at one seed
meet the same masks.

A context belongs to the thread that opened it: threads that train side by side have the masks of processes.
"""

import itertools
import operator
import sys
import threading
from array import array
from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from hashlib import blake2b
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from dropout_lab.dropout.philox import Stream, signed
from dropout_lab.dropout.rows import Rows
from dropout_lab.dropout.streams import Words, compiled_row_words, row_words

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
        step: number of micro-batches since the start of training, 0 <= step < 2^63.
        rows: positions in the GLOBAL batch of the rows that the layers will see, 1-D integers, 0 <= row < 2^48,
            ``len(rows) == x.shape[0]``. A range costs least, a permutation of one hardly more; a tensor on another
            device than the CPU is read once.

    A second call of a layer inside one context is another mask. Backward passes that recompute the forward
    (activation checkpointing) find the same masks again, also after the context has closed and others were opened.

    Raises:
        TypeError: seed, step or rows are not integers.
        ValueError: step or rows are out of range, or rows is not 1-D.
    """
    if type(seed) is not int or type(step) is not int:
        try:
            seed, step = operator.index(seed), operator.index(step)
        except TypeError:
            raise TypeError(f"mask_keys: seed and step must be ints, got {seed!r} and {step!r}") from None
    if not 0 <= step < 2**63:
        raise ValueError(
            f"mask_keys: step counts micro-batches since the start of training, 0 <= step < 2^63, got {step}"
        )
    return _Keys(_seed_word(seed), step, Rows.read(rows))


def active() -> bool:
    """Whether masks are keyed here: inside the context, or in a backward pass that recomputes a keyed forward."""
    return _here() is not None


def transformed() -> bool:
    """Whether a transform of ``torch.func`` (vmap, grad, jvp, ...) runs."""
    return bool(torch._C._are_functorch_transforms_active())


def words(layer: Keyed, x: Tensor, width: int) -> Words:
    """Random 32-bit words for each row of x, for this call of ``layer``.

    Args:
        layer: whose words; its name (or number) is part of the key.
        x: the layer's input; its leading dimension is the batch. One without dimensions is a row.
        width: words a row.

    Returns:
        int32 (rows, width), uniform; keyed where :func:`active`, else from torch's generator. An array for an eager
        x on the CPU, else a tensor on x's device.

    Raises:
        ValueError: the context names another number of rows.
        RuntimeError: a layer that was called more than once is recomputed in backward.
    """
    keys = _here()
    if keys is None:
        return _unkeyed(x.shape[0] if x.ndim else 1, width, x.device)
    word, call = keys.next_call(layer, x)
    if torch.compiler.is_compiling():
        rows, place = keys.rows, keys.place
        drawn: Tensor = compiled_row_words(place, rows.table, signed(word), call, rows.size, width, x.device)
        return drawn
    return row_words(Stream(keys.seed, word, keys.step, call), keys.rows, width, x.device)


def contiguous(layer: Keyed, x: Tensor) -> tuple[Stream, int] | None:
    """The stream of this call of ``layer`` and the first of the rows that x holds; None where they are not contiguous.

    Only where :func:`active`, and outside of a compiled graph. Arguments and errors as for :func:`words`.
    """
    keys = _here()
    if keys is None or keys.rows.table is not None:
        return None
    word, call = keys.next_call(layer, x)
    return Stream(keys.seed, word, keys.step, call), keys.rows.first


def name_word(name: str | None) -> int | None:
    """A layer's name as the part of its key that does not change, to be computed once."""
    return None if name is None else _hash(name)


class _Keys:
    """One context of :func:`mask_keys`: seed, step and rows, and the layers that were called so far.

    Many closed ones wait for their backward passes, so they are small.
    """

    __slots__ = ("begin", "calls", "end", "layers", "outer", "place", "rows", "seed", "step", "task", "thread")

    def __init__(self, seed: int, step: int, rows: Rows) -> None:
        self.seed, self.step, self.rows = seed, step, rows
        self.calls: dict[int, int] = {}  # id(layer) -> calls in this context, in the order of the first ones
        self.layers: list[Keyed] = []  # kept alive while the context is open, so that ids stay unique
        self.begin = -1

    def __enter__(self) -> None:
        if self.begin >= 0:
            raise RuntimeError("mask_keys: a context is entered once; call mask_keys again for the next forward")
        mine = _mine
        self.thread = mine.token
        self.place, words = next(mine.places)
        words[0], words[1], words[2] = self.seed, self.step, self.rows.first
        self.outer, mine.current = mine.current, self
        self.task = torch._C._current_graph_task_id()  # the backward pass that opens this context, if one does
        # Sequence numbers of autograd nodes made here lie in [begin, end).
        self.begin, self.end = torch.autograd._get_sequence_nr(), sys.maxsize  # type: ignore[attr-defined]
        _history.append(self)

    def __exit__(self, *_: object) -> None:
        _mine.current, self.outer = self.outer, None
        self.end = torch.autograd._get_sequence_nr()  # type: ignore[attr-defined]
        self.layers.clear()

    def next_call(self, layer: Keyed, x: Tensor) -> tuple[int, int]:
        """The word of a layer that is called with x, and the number of the call.

        Raises:
            ValueError: x has another number of rows.
            RuntimeError: the layer was called more than once and is recomputed in backward.
        """
        if x.ndim == 0 or x.shape[0] != self.rows.size:
            raise ValueError(
                f"dropout layer {_called(layer)}: mask_keys was given {self.rows.size} rows but the input has shape "
                f"{tuple(x.shape)}; rows= names the global position of each row of the leading dimension"
            )
        call = self.calls.get(id(layer), 0)
        if call:
            call = self._next(layer, call)
        else:
            self.calls[id(layer)] = 1
            self.layers.append(layer)
        word = layer.word
        return list(self.calls).index(id(layer)) if word is None else word, call

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


# Contexts whose forward may still be recomputed. A backward pass that waits for longer than this is none we know of.
_WAITING = 256


def _place() -> "tuple[Tensor, array[int]]":
    """A tensor of three words, and the array that it shows, whose words have no sign."""
    words = array("Q", (0, 0, 0))
    return torch.frombuffer(words, dtype=torch.int64), words


class _Thread(threading.local):
    """What belongs to one thread."""

    def __init__(self) -> None:
        self.token = object()  # the thread's name: the system's number goes to another thread when this one ends
        self.current: _Keys | None = None  # the open context
        # Seed, step and first row of a context: what changes from step to step must be a tensor in a compiled graph. To
        # make one for each context would cost 5 % of a small layer's time, forward and backward.
        self.places = itertools.cycle([_place() for _ in range(_WAITING)])
        self.unkeyed = False  # whether a layer was called here outside of all contexts
        # Backward passes under way here -> context of their last recomputed draw.
        self.recomputing: dict[int, _Keys | None] = {}


_mine = _Thread()
_history: deque[_Keys] = deque(maxlen=_WAITING)


def _here() -> _Keys | None:
    """The context a draw belongs to: the open one; in a backward pass that recomputes a forward, that forward's."""
    current = _mine.current
    if torch.compiler.is_compiling():  # recomputation is traced into the compiled graph
        return current
    task = torch._C._current_graph_task_id()
    recomputing = _mine.recomputing
    if task == -1:
        if recomputing:
            recomputing.clear()  # a backward pass that raised has left its entry
        if current is None:
            _mine.unkeyed = True
        return current
    if current is not None and current.task == task:
        return current
    if recomputing and task not in recomputing:  # a checkpoint inside a checkpoint: its nodes were made in backward
        return next(reversed(recomputing.values()))
    found = _of_node(torch._C._current_autograd_node()._sequence_nr())  # type: ignore[attr-defined]
    if task not in recomputing:
        torch.autograd.Variable._execution_engine.queue_callback(lambda: recomputing.pop(task, None))  # type: ignore
    recomputing[task] = found
    return found


def _of_node(number: int) -> _Keys | None:
    """The context in which an autograd node was made: nodes are numbered as they are made, in each thread anew."""
    found = [keys for keys in reversed(list(_history)) if keys.begin <= number < keys.end]
    own = [keys for keys in found if keys.thread is _mine.token]
    if found and not own and (_mine.unkeyed or len({keys.thread for keys in found}) > 1):
        raise RuntimeError(
            "activation checkpointing recomputes a mask here that more than one thread may have drawn: whose it is "
            "cannot be told. Run backward in the thread of its forward, or train in one process each"
        )
    return next(iter(own or found), None)


def _unkeyed(count: int, width: int, device: torch.device) -> Words:
    """Words of torch's generator."""
    # The upper bound is exclusive and no int64 lies above it: one of 2^64 values never occurs.
    drawn = torch.randint(-(2**63), 2**63 - 1, ((count * width + 1) // 2,), device=device)
    if transformed():  # vmap before torch 2.14 can't view bits as another type
        narrow = torch.stack((drawn.to(torch.int32), (drawn >> 32).to(torch.int32)), dim=-1).flatten(-2)
    elif type(drawn) is Tensor and drawn.is_cpu and not torch.compiler.is_compiling():
        return drawn.numpy().view(np.int32)[: count * width].reshape(count, width)
    else:
        narrow = drawn.view(torch.int32)
    return (narrow[:-1] if count * width % 2 else narrow).view(count, width)


def _called(layer: Keyed) -> str:
    return repr(layer.name or type(layer).__name__)


@lru_cache
def _seed_word(seed: int) -> int:
    return _hash(str(seed))


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")
