"""Each way to compute random words, on the CPU."""

from collections.abc import Callable

import torch

from dropout_lab.dropout import streams
from dropout_lab.dropout.philox import Stream
from dropout_lab.dropout.rows import Rows
from dropout_lab.dropout.streams import Words


class CalledOtherwise(str):
    """The CPU, under the type of another device: what `streams` chooses by that type runs here."""

    type: str


TYPES = {"numpy": "cpu", "plain": "xpu", "triton": "cuda"}  # the sources and a type of device that each serves


def row_words_of(source: str) -> Callable[[Stream, Rows, int, torch.device], Words]:
    """`streams.row_words` as it computes words for the devices of a source, with tensors on the CPU.

    Args:
        source: "numpy", "plain" or "triton", which needs TRITON_INTERPRET=1 before Triton is imported.
    """
    device = CalledOtherwise("cpu")
    device.type = TYPES[source]
    original = streams.row_words
    return lambda stream, rows, width, _: original(stream, rows, width, device)  # type: ignore[arg-type]
