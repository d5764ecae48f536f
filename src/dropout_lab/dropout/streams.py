"""Streams of random words, from whatever is fastest on a device; the same bits on all.

A stream is named by four 64-bit words and read in words of 32 bits, in any order. Word w of a stream is

    numpy.random.Philox(key=layer << 64 | seed, counter=step << 128 | call << 64 | w // 8)
    .random_raw(4).view("<i4")[w % 8]

Numpy's generator is the definition, and what computes the words on the CPU: documented, stable, and faster than torch's
own. On CUDA a Triton kernel gives the same (``philox_triton.py``); all other devices have arithmetic in plain torch
(``philox.py``), the oracle of the tests. A compiled graph calls all this as an operator of its own.
"""

import importlib.util
import threading
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dropout_lab.dropout.philox import Stream, words_plain
from dropout_lab.dropout.rows import Rows

has_triton = importlib.util.find_spec("triton") is not None

_RESTART = 2**10  # words that could be drawn in the time that it takes to go to another place of a stream

Words = NDArray[np.int32] | Tensor  # int32: an array where numpy has them, else a tensor


class _Generator(threading.local):
    """Numpy's generator, one a thread: to set its state and then to draw is not one action."""

    def __init__(self) -> None:
        self.counter, self.key = [0, 0, 0, 0], [0, 0]
        self.generator = np.random.Philox(0)
        place = {"counter": self.counter, "key": self.key}
        self.state: Any = {**self.generator.state, "state": place, "buffer": (0, 0, 0, 0)}

    def run(self, stream: Stream, start: int, width: int) -> NDArray[np.int32]:
        """So many words of a stream from a start on."""
        skip = start & 7
        self.key[:] = stream.seed, stream.layer
        self.counter[:] = start >> 3, stream.call, stream.step, 0
        self.generator.state = self.state
        return self.generator.random_raw((skip + width + 1) >> 1).view(np.int32)[skip : skip + width]

    def runs(self, stream: Stream, starts: Iterable[int], width: int) -> list[NDArray[np.int32]]:
        """So many words of a stream from each start on: :meth:`run` for each, in two thirds of the time."""
        self.key[:] = stream.seed, stream.layer
        counter, generator, state = self.counter, self.generator, self.state
        counter[1:] = stream.call, stream.step, 0
        drawn = []
        for start in starts:
            skip = start & 7
            counter[0] = start >> 3
            generator.state = state
            drawn.append(generator.random_raw((skip + width + 1) >> 1).view(np.int32)[skip : skip + width])
        return drawn


_numpy = _Generator()


def row_words(stream: Stream, rows: Rows, width: int, device: torch.device) -> Words:
    """Words of rows: row r of the global batch has the words r * width to (r + 1) * width - 1 of the stream.

    Args:
        stream: which one is read.
        rows: whose words.
        width: words a row.
        device: where they are used.

    Returns:
        int32 (rows.size, width), uniform: an array for the CPU, else a tensor on the device.
    """
    if device.type == "cpu":
        return _row_words(stream, rows, width)
    if rows.table is None:  # a single run
        starts, run = torch.full((1,), rows.first * width, device=device), rows.size * width
    else:
        starts, run = rows.table.to(device, non_blocking=True) * width, width
    draw = words_plain
    if device.type == "cuda" and has_triton:
        from dropout_lab.dropout.philox_triton import words as draw
    return draw(stream, starts, run).view(rows.size, width)


def _row_words_of_graph(
    place: Tensor, table: Tensor | None, layer: int, call: int, count: int, width: int, device: torch.device
) -> Tensor:
    seed, step, first = place.tolist()
    stream = Stream(seed % 2**64, layer % 2**64, step, call)
    return torch.as_tensor(row_words(stream, Rows(first, count, table), width, device))


def _shape_in_graph(
    place: Tensor, table: Tensor | None, layer: int, call: int, count: int, width: int, device: torch.device
) -> Tensor:
    return place.new_empty((count, width), dtype=torch.int32, device=device)


def _row_words(stream: Stream, rows: Rows, width: int) -> NDArray[np.int32]:
    """Words of rows on the CPU: in one draw where they lie together, else row by row."""
    first, size, table = rows
    order = rows.order
    if table is None or order is None:
        return _numpy.run(stream, first * width, size * width).reshape(size, width)
    reach = int(order.max(initial=-1)) + 1  # rows from the first to the last one
    if (reach - size) * width <= size * _RESTART:
        return _numpy.run(stream, first * width, reach * width).reshape(reach, width)[order]
    return np.stack(_numpy.runs(stream, [row * width for row in table.tolist()], width))


# Words of rows as an operator: a compiled graph calls it and looks no further.
#   place   int64 (3,) on the CPU: seed, step and first row, which change while the graph stays
#   table   int64 (count,) on the CPU: the rows where they are not contiguous
#   layer   word of the stream, as int64 spells it
# `torch.library.custom_op` would say this in fewer lines and take 20 microseconds more for a call.
if not hasattr(torch.ops.dropout_lab, "row_words"):  # as it is where this file is imported once more
    _library = torch.library.Library("dropout_lab", "FRAGMENT")  # type: ignore[no-untyped-call]
    _library.define(  # type: ignore[no-untyped-call]
        "row_words(Tensor place, Tensor? table, int layer, int call, int count, int width, Device device) -> Tensor"
    )
    _library.impl("row_words", _row_words_of_graph, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
    torch.library.register_fake("dropout_lab::row_words", _shape_in_graph, lib=_library)
compiled_row_words = torch.ops.dropout_lab.row_words.default
