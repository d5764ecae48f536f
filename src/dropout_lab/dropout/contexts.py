"""Contexts of keyed masks: which one a layer's call belongs to, in each thread, and where a forward is recomputed."""

import itertools
import sys
import threading
from array import array
from collections import deque
from typing import Protocol

import torch
from torch import Tensor

from dropout_lab.dropout.rows import Rows

# Contexts whose forward may still be recomputed. A backward pass that waits for longer than this is none we know of.
_WAITING = 256


class Keyed(Protocol):
    """A layer that can be keyed: by its name and the ``keys.name_word`` of that.

    Both None: it is numbered by the order of the first calls in a context.
    """

    name: str | None
    word: int | None


class Context:
    """A context of ``mask_keys``: seed, step and rows, and the layers that were called so far.

    Many closed ones wait for their backward passes, so they are small.
    """

    __slots__ = ("begin", "calls", "end", "layers", "outer", "place", "rows", "seed", "step", "task", "thread", "words")

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
        self.place, self.words = next(mine.places)
        self._show()
        self.outer, mine.current = mine.current, self
        self.task = torch._C._current_graph_task_id()  # the backward pass that opens this context, if one does
        # Sequence numbers of autograd nodes made here lie in [begin, end).
        self.begin, self.end = torch.autograd._get_sequence_nr(), sys.maxsize  # type: ignore[attr-defined]
        _history.append(self)

    def __exit__(self, *_: object) -> None:
        outer, self.outer = self.outer, None
        _mine.current = outer
        if outer is not None:
            outer._show()  # after so many inner ones another may have its place
        self.end = torch.autograd._get_sequence_nr()  # type: ignore[attr-defined]
        self.layers.clear()

    def _show(self) -> None:
        words = self.words
        words[0], words[1], words[2] = self.seed, self.step, self.rows.first

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
                    "mask belongs to which call cannot be told. Use one layer for each call, and for several passes in "
                    "a step (as of module=r_drop) a model without activation checkpointing"
                )
            return 0
        self.calls[id(layer)] = calls + 1
        return calls


def current() -> Context | None:
    """The context a draw belongs to: the open one; in a backward pass that recomputes a forward, that forward's."""
    opened = _mine.current
    if torch.compiler.is_compiling():  # recomputation is traced into the compiled graph
        return opened
    task = torch._C._current_graph_task_id()
    recomputing = _mine.recomputing
    if task == -1:
        if recomputing:
            recomputing.clear()  # a backward pass that raised has left its entry
        if opened is None:
            _mine.unkeyed = True
        return opened
    if opened is not None and opened.task == task:
        return opened
    if recomputing and task not in recomputing:  # a checkpoint inside a checkpoint: its nodes were made in backward
        return next(reversed(recomputing.values()))
    found = _of_node(torch._C._current_autograd_node()._sequence_nr())  # type: ignore[attr-defined]
    if task not in recomputing:
        torch.autograd.Variable._execution_engine.queue_callback(lambda: recomputing.pop(task, None))  # type: ignore
    recomputing[task] = found
    return found


class _Thread(threading.local):
    """What belongs to one thread."""

    def __init__(self) -> None:
        self.token = object()  # the thread's name: the system's number goes to another thread when this one ends
        self.current: Context | None = None  # the open context
        # Seed, step and first row of a context: what changes from step to step must be a tensor in a compiled graph. To
        # make one for each context would cost 5 % of a small layer's time, forward and backward.
        self.places = itertools.cycle([_place() for _ in range(_WAITING)])
        self.unkeyed = False  # whether a layer was called here outside of all contexts
        # Backward passes under way here -> context of their last recomputed draw.
        self.recomputing: dict[int, Context | None] = {}


def _place() -> "tuple[Tensor, array[int]]":
    """A tensor of three words, and the array that it shows, whose words have no sign."""
    words = array("Q", (0, 0, 0))
    return torch.frombuffer(words, dtype=torch.int64), words


def _of_node(number: int) -> Context | None:
    """The context in which an autograd node was made: nodes are numbered as they are made, in each thread anew."""
    found = [context for context in reversed(list(_history)) if context.begin <= number < context.end]
    own = [context for context in found if context.thread is _mine.token]
    if found and not own and (_mine.unkeyed or len({context.thread for context in found}) > 1):
        raise RuntimeError(
            "activation checkpointing recomputes a mask here that more than one thread may have drawn: whose it is "
            "cannot be told. Run backward in the thread of its forward, or train in one process each"
        )
    return next(iter(own or found), None)


def _called(layer: Keyed) -> str:
    return repr(layer.name or type(layer).__name__)


_mine = _Thread()
_history: deque[Context] = deque(maxlen=_WAITING)
