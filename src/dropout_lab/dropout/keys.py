"""Masks as a pure function of (seed, layer, step, row, element).

Inside ``with mask_keys(seed, step, rows):`` no dropout layer touches torch's generator. Each layer has one stream of
random words per (seed, step), and row r of the global batch reads the words that follow those of row r - 1. So rows can
be split over any number of processes, a run can be resumed from (seed, step) alone, and strategies compared at one seed
meet the same masks.

A context belongs to the thread that opened it: threads that train side by side have the masks of processes.
"""

import operator
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor

from dropout_lab.dropout.contexts import Context, Keyed, current
from dropout_lab.dropout.philox import Stream, signed
from dropout_lab.dropout.rows import Rows
from dropout_lab.dropout.streams import Words, compiled_row_words, row_words

MASKS_VERSION = 2  # other masks for the same keys raise it: checkpoints carry it, a run is not gone on with across it


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
    return Context(_seed_word(seed), step, Rows.read(rows))


def active() -> bool:
    """Whether masks are keyed here: inside the context, or in a backward pass that recomputes a keyed forward."""
    return current() is not None


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
    context = current()
    if context is None:
        return _unkeyed(x.shape[0] if x.ndim else 1, width, x.device)
    word, call = context.next_call(layer, x)
    if torch.compiler.is_compiling():
        rows, place = context.rows, context.place
        drawn: Tensor = compiled_row_words(place, rows.table, signed(word), call, rows.size, width, x.device)
        return drawn
    return row_words(Stream(context.seed, word, context.step, call), context.rows, width, x.device)


def contiguous(layer: Keyed, x: Tensor) -> tuple[Stream, int] | None:
    """The stream of this call of ``layer`` and the first of the rows that x holds; None where they are not contiguous.

    Only where :func:`active`, and outside of a compiled graph. Arguments and errors as for :func:`words`.
    """
    context = current()
    if context is None or context.rows.table is not None:
        return None
    word, call = context.next_call(layer, x)
    return Stream(context.seed, word, context.step, call), context.rows.first


def name_word(name: str | None) -> int | None:
    """A layer's name as the part of its key that does not change, to be computed once."""
    return None if name is None else _hash(name)


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


@lru_cache
def _seed_word(seed: int) -> int:
    return _hash(str(seed))


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")
