"""Random bits as a pure function of where they are asked for: the counter-based generator Philox4x64-10.

A stream is named by four 64-bit words and read in 64-bit words, in any order. Word w of a stream is

    numpy.random.Philox(key=[seed, layer], counter=[w // 4, call, step, 0]).random_raw(4)[w % 4]

so numpy's generator is the definition, and what computes the bits on the CPU: documented, stable, and faster than
torch's own. (It adds 1 to its counter before it draws: ``counter=0`` gives the block of Philox's counter 1.) On CUDA a
Triton kernel gives the same bits (``philox_triton.py``), in a compiled graph an operator of its own; arithmetic in
plain torch is the oracle of the tests and serves all other devices.

Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"; test vectors of its library, Random123.
"""

import importlib.util
import threading
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dropout_lab.dropout.rows import Rows

MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)  # what the two words of a key grow by from round to round
ROUNDS = 10

_LOW = 0xFFFFFFFF  # the low 32 bits of an int64
_RESTART = 2**11  # words that could be drawn in the time that it takes to go to another place of a stream


Words = NDArray[np.int32] | Tensor  # int32: an array where numpy has them, else a tensor


class Stream(NamedTuple):
    """What a draw is for, as words 0 <= word < 2^64: all draws of a run have different ones."""

    seed: int
    layer: int
    step: int
    call: int


class _Generator(threading.local):
    """Numpy's generator, one a thread: to set its state and then to draw is not one action."""

    def __init__(self) -> None:
        self.generator = np.random.Philox(0)
        self.place: dict[str, Any] = {"counter": None, "key": None}
        self.state = {**self.generator.state, "state": self.place, "buffer": (0, 0, 0, 0)}


_mine = _Generator()


def row_words(stream: Stream, rows: Rows, width: int, device: torch.device) -> Words:
    """Words of rows: row r of the global batch has the words r * width to (r + 1) * width - 1 of the stream.

    Args:
        stream: which one is read.
        rows: whose words.
        width: 64-bit words a row.
        device: where they are used.

    Returns:
        int32 (rows.count, 2 * width), uniform: an array for the CPU, else a tensor on the device. Of a 64-bit word the
        lower half comes first.
    """
    if device.type == "cpu":
        return _row_words(stream, rows, width).view(np.int32)
    starts = rows.on(device) * width
    if device.type == "cuda" and _has_triton:
        from dropout_lab.dropout import philox_triton

        return philox_triton.words(stream, starts, width).view(torch.int32)
    return words_plain(stream, starts, width).view(torch.int32)


def words_plain(stream: Stream, starts: Tensor, width: int) -> Tensor:
    """Words from ordinary integer arithmetic.

    Args:
        stream: which one is read.
        starts: int64 (runs,): number of the first word of each run; its device is that of the result.
        width: words a run.

    Returns:
        int64 tensor (runs, width).
    """
    blocks = (starts >> 2)[:, None] + torch.arange((width + 6) // 4, device=starts.device)
    counter = (blocks + 1, *(torch.full_like(blocks, _signed(word)) for word in (stream.call, stream.step, 0)))
    words = torch.stack(philox4x64(counter, (stream.seed, stream.layer)), dim=-1).flatten(1)
    return words.gather(1, (starts & 3)[:, None] + torch.arange(width, device=starts.device))


def philox4x64(counter: tuple[Tensor, ...], key: tuple[int, int]) -> tuple[Tensor, ...]:
    """Ten rounds of Philox: four counter words under two key words (Salmon et al. 2011, section 3.3).

    Args:
        counter: int64 tensors of one shape, their bits are the words.
        key: 0 <= word < 2^64.

    Returns:
        four int64 tensors of that shape.
    """
    x0, x1, x2, x3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        (high0, low0), (high2, low2) = _product(x0, MULTIPLIERS[0]), _product(x2, MULTIPLIERS[1])
        x0, x1, x2, x3 = high2 ^ x1 ^ _signed(k0), low2, high0 ^ x3 ^ _signed(k1), low0
        k0, k1 = (k0 + WEYL[0]) % 2**64, (k1 + WEYL[1]) % 2**64
    return x0, x1, x2, x3


@torch.library.custom_op("dropout_lab::row_words", mutates_args=())
def row_words_op(
    place: Tensor, table: Tensor | None, layer: int, call: int, count: int, width: int, device: torch.device
) -> Tensor:
    """Words of rows as :func:`row_words` gives them, as an operator: a compiled graph calls it and looks no further.

    Args:
        place: int64 (3,) on the CPU: seed, step and first row, which change while the graph stays.
        table: int64 (count,) on the CPU: the rows where they are not contiguous.
        layer: word of the stream, as int64 spells it.
        call: word of the stream.
        count: of the rows.
        width: 64-bit words a row.
        device: where to.
    """
    seed, step, first = place.tolist()
    stream = Stream(seed % 2**64, layer % 2**64, step, call)
    return torch.as_tensor(row_words(stream, Rows.of(first, count, table), width, device))


@row_words_op.register_fake
def _(
    place: Tensor, table: Tensor | None, layer: int, call: int, count: int, width: int, device: torch.device
) -> Tensor:
    return place.new_empty((count, 2 * width), dtype=torch.int32, device=device)


def _row_words(stream: Stream, rows: Rows, width: int) -> NDArray[np.uint64]:
    """Words of rows on the CPU: in one draw where they lie together, else row by row."""
    first, count, table, order = rows
    if table is None or order is None:
        return _words(stream, first * width, count * width).reshape(count, width)
    reach = int(order.max()) + 1 if count else 0  # rows from the first to the last one
    if (reach - count) * width <= count * _RESTART:
        return _words(stream, first * width, reach * width).reshape(reach, width)[order]
    return np.stack([_words(stream, row * width, width) for row in table.tolist()])


def _words(stream: Stream, first: int, count: int) -> NDArray[np.uint64]:
    """Consecutive words of a stream, from numpy's generator of this thread."""
    block, skip = divmod(first, 4)
    mine = _mine
    mine.place["counter"] = (block, stream.call, stream.step, 0)
    mine.place["key"] = (stream.seed, stream.layer)
    mine.generator.state = mine.state
    drawn = mine.generator.random_raw(skip + count)
    return drawn[skip:] if skip else drawn


def _product(x: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """Both halves of the 128-bit product of unsigned 64-bit words, from products of 32-bit ones."""
    x_high, x_low = x >> 32 & _LOW, x & _LOW
    f_high, f_low = factor >> 32, factor & _LOW
    low, cross = x_low * f_low, x_high * f_low
    middle = (low >> 32 & _LOW) + (cross & _LOW)
    other = x_low * f_high
    middle = middle + (other & _LOW)
    high = x_high * f_high + (cross >> 32 & _LOW) + (other >> 32 & _LOW) + (middle >> 32)
    return high, x * _signed(factor)


def _signed(word: int) -> int:
    """A 64-bit word as int64 spells it."""
    return (word + 2**63) % 2**64 - 2**63


_has_triton = importlib.util.find_spec("triton") is not None
