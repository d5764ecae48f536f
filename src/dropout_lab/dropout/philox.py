"""The counter-based generator Philox4x64-10 in plain torch, and what its counter and key are made of.

Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"; test vectors of its library, Random123.
"""

from typing import NamedTuple

import torch
from torch import Tensor

MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)  # what the two words of a key grow by from round to round
ROUNDS = 10

_LOW = 0xFFFFFFFF  # the low 32 bits of an int64


class Stream(NamedTuple):
    """What a draw is for, as words 0 <= word < 2^64: all draws of a run have different ones."""

    seed: int
    layer: int
    step: int
    call: int


def words_plain(stream: Stream, starts: Tensor, width: int) -> Tensor:
    """Words of a stream from ordinary integer arithmetic.

    Word w comes from the Philox counter (w // 8 + 1, call, step, 0) under the key (seed, layer): numpy's generator adds
    1 to its counter before it draws, so these are the words of its ``Philox(counter=[w // 8, call, step, 0])``.

    Args:
        stream: which one is read.
        starts: int64 (runs,): number of the first word of each run; its device is that of the result.
        width: words a run.

    Returns:
        int32 tensor (runs, width).
    """
    blocks = (starts >> 3)[:, None] + torch.arange((width + 14) // 8, device=starts.device)
    counter = (blocks + 1, *(torch.full_like(blocks, signed(word)) for word in (stream.call, stream.step, 0)))
    words = torch.stack(philox4x64(counter, (stream.seed, stream.layer)), dim=-1).view(torch.int32)
    return words.flatten(1).gather(1, (starts & 7)[:, None] + torch.arange(width, device=starts.device))


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
        x0, x1, x2, x3 = high2 ^ x1 ^ signed(k0), low2, high0 ^ x3 ^ signed(k1), low0
        k0, k1 = (k0 + WEYL[0]) % 2**64, (k1 + WEYL[1]) % 2**64
    return x0, x1, x2, x3


def _product(x: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """Both halves of the 128-bit product of unsigned 64-bit words, from products of 32-bit ones."""
    x_high, x_low = x >> 32 & _LOW, x & _LOW
    f_high, f_low = factor >> 32, factor & _LOW
    low, cross = x_low * f_low, x_high * f_low
    middle = (low >> 32 & _LOW) + (cross & _LOW)
    other = x_low * f_high
    middle = middle + (other & _LOW)
    high = x_high * f_high + (cross >> 32 & _LOW) + (other >> 32 & _LOW) + (middle >> 32)
    return high, x * signed(factor)


def signed(word: int) -> int:
    """A 64-bit word as int64 spells it."""
    return (word + 2**63) % 2**64 - 2**63
