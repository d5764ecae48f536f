"""Philox4x64-10 on CUDA: the words of ``streams.py``, and dropout in one kernel that keeps nothing for backward.

The only file that imports Triton, and imported on CUDA only. Kernels take tensors on the CPU where Triton interprets
them (``TRITON_INTERPRET=1`` when it is imported), which is how they are tested.
"""

import struct
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from dropout_lab.dropout.philox import MULTIPLIERS, ROUNDS, WEYL, Stream, signed

_BLOCKS = 256  # Philox blocks of a program: 2048 words, 4096 elements of a long row

M0, M1 = tl.constexpr(MULTIPLIERS[0]), tl.constexpr(MULTIPLIERS[1])
W0, W1 = tl.constexpr(WEYL[0]), tl.constexpr(WEYL[1])
N = tl.constexpr(ROUNDS)


def words(stream: Stream, starts: Tensor, width: int) -> Tensor:
    """Words of runs, as :func:`philox.words_plain` gives them.

    Args:
        stream: which one is read.
        starts: int64 (runs,): number of the first word of each run.
        width: words a run.

    Returns:
        int32 tensor (runs, width) on the device of ``starts``.
    """
    out = torch.empty((len(starts), width), dtype=torch.int32, device=starts.device)
    if out.numel():
        with torch.cuda.device_of(starts):
            parts = triton.cdiv(width + 7, 8 * _BLOCKS)
            _write_words[(len(starts) * parts,)](out, starts, width, parts, *map(signed, stream), blocks=_BLOCKS)
    return out


def dropout(
    x: Tensor, stream: Stream, first: int, width: int, long: bool, thresholds: tuple[int, int, int], scale: float
) -> Tensor:
    """``x * mask * scale`` for the mask of ``noise.bernoulli``, drawn again in backward.

    Args:
        x: floating-point, contiguous; its leading dimension is the batch.
        stream: which one is read.
        first: position of the first row in the global batch; the others follow.
        width: words a row.
        long: whether an element has 16 bits, and the row 32 more, or 32.
        thresholds: ``keep``, ``edge`` and ``rest`` of ``noise.Rate``.
        scale: 1 / q, or 1.
    """
    return _Dropout.apply(x, stream, first, width, long, thresholds, scale)  # type: ignore[no-any-return, no-untyped-call]


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *arguments: Any) -> Tensor:
        ctx.arguments = arguments
        return _times_mask(x, *arguments)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        return _Dropout.apply(grad, *ctx.arguments), *(None for _ in ctx.arguments)  # type: ignore[no-untyped-call]

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: Any) -> Tensor:  # type: ignore[override]
        return _Dropout.apply(tangent, *ctx.arguments)  # type: ignore[no-any-return, no-untyped-call]


def _times_mask(
    x: Tensor, stream: Stream, first: int, width: int, long: bool, thresholds: tuple[int, int, int], scale: float
) -> Tensor:
    x = x.contiguous()
    out = torch.empty_like(x)
    if not x.numel():
        return out
    keep, edge, rest = thresholds
    rows, count = len(x), x[0].numel()
    bits = struct.unpack("q", struct.pack("d", scale))[0]  # a float would arrive in single precision
    start, key = first * width, (*map(signed, stream), bits)
    with torch.cuda.device_of(x):
        if long:
            parts = triton.cdiv(width + 7, 8 * _BLOCKS)
            _long_rows[(rows * parts,)](out, x, count, parts, edge, rest, start, width, *key, blocks=_BLOCKS)
        else:
            programs = triton.cdiv(x.numel() + 7, 8 * _BLOCKS)
            _short_rows[(programs,)](out, x, x.numel(), keep, start, *key, blocks=_BLOCKS)
    return out


@triton.jit
def _block_words(first, seed, layer, step, call, blocks: tl.constexpr):
    """The words of consecutive blocks, in pairs: uint64 (4 * blocks,)."""
    x0 = (first + 1 + tl.arange(0, blocks)).to(tl.uint64)
    x1 = tl.zeros_like(x0) + call.to(tl.uint64)
    x2 = tl.zeros_like(x0) + step.to(tl.uint64)
    x3 = tl.zeros_like(x0)
    k0 = tl.zeros_like(x0) + seed.to(tl.uint64)
    k1 = tl.zeros_like(x0) + layer.to(tl.uint64)
    m0 = tl.full((blocks,), M0, tl.uint64)
    m1 = tl.full((blocks,), M1, tl.uint64)
    w0 = tl.full((blocks,), W0, tl.uint64)
    w1 = tl.full((blocks,), W1, tl.uint64)
    for _ in tl.static_range(N):
        high0, low0 = tl.umulhi(x0, m0), x0 * m0
        high2, low2 = tl.umulhi(x2, m1), x2 * m1
        x0, x1, x2, x3 = high2 ^ x1 ^ k0, low2, high0 ^ x3 ^ k1, low0
        k0, k1 = k0 + w0, k1 + w1
    return tl.reshape(tl.join(tl.join(x0, x2), tl.join(x1, x3)), (4 * blocks,))


@triton.jit
def _parts(pairs, bits: tl.constexpr, blocks: tl.constexpr):
    """Words of 64 bits cut into numbers of so many, the lowest first: their upper bits are to be cut off."""
    shifts = bits * tl.arange(0, 64 // bits)
    return tl.reshape(pairs[:, None] >> shifts[None, :].to(tl.uint64), (256 // bits * blocks,))


@triton.jit(do_not_specialize=["seed", "layer", "step", "call"])
def _write_words(out, starts, width, parts, seed, layer, step, call, blocks: tl.constexpr):
    run, part = tl.program_id(0).to(tl.int64) // parts, tl.program_id(0) % parts
    start = tl.load(starts + run)
    first = (start >> 3) + part * blocks
    words = _parts(_block_words(first, seed, layer, step, call, blocks), 32, blocks)
    place = first * 8 - start + tl.arange(0, 8 * blocks)
    tl.store(out + run * width + place, words.to(tl.int32), mask=(place >= 0) & (place < width))


@triton.jit(do_not_specialize=["edge", "rest", "start", "seed", "layer", "step", "call", "scale"])
def _long_rows(out, x, count, parts, edge, rest, start, width, seed, layer, step, call, scale, blocks: tl.constexpr):
    """A program has a part of one row: 16 bits an element, and the row's last word settles what those leave open."""
    row, part = tl.program_id(0).to(tl.int64) // parts, tl.program_id(0) % parts
    start = start.to(tl.int64) + row * width
    if rest > -2147483648:
        last = start + width - 1
        words = _parts(_block_words(last >> 3, seed, layer, step, call, 1), 32, 1).to(tl.int32)
        settle = tl.sum(tl.where(tl.arange(0, 8) == last & 7, words, 0))
        edge += (settle < rest).to(tl.int32)
    first = (start >> 3) + part * blocks
    lanes = _parts(_block_words(first, seed, layer, step, call, blocks), 16, blocks)
    keep = lanes.to(tl.int16).to(tl.int32) < edge
    column = (first * 8 - start) * 2 + tl.arange(0, 16 * blocks)
    inside = (column >= 0) & (column < count)
    _store_product(out, x, row * count + column, inside, keep, scale)


@triton.jit(do_not_specialize=["keep", "start", "seed", "layer", "step", "call", "scale"])
def _short_rows(out, x, count, keep, start, seed, layer, step, call, scale, blocks: tl.constexpr):
    """A program has a part of all rows together: a word an element."""
    start = start.to(tl.int64)
    first = (start >> 3) + tl.program_id(0).to(tl.int64) * blocks
    words = _parts(_block_words(first, seed, layer, step, call, blocks), 32, blocks)
    place = first * 8 - start + tl.arange(0, 8 * blocks)
    _store_product(out, x, place, (place >= 0) & (place < count), words.to(tl.int32) < keep, scale)


@triton.jit
def _store_product(out, x, place, inside, keep, scale):
    value = tl.load(x + place, mask=inside, other=0.0)
    wide = tl.float64 if value.dtype == tl.float64 else tl.float32
    product = value.to(wide) * keep.to(wide) * scale.to(tl.float64, bitcast=True).to(wide)  # a dropped NaN stays one
    tl.store(out + place, product.to(value.dtype), mask=inside)
