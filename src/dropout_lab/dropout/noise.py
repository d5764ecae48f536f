"""Fast multiplicative noise: 16 random bits decide a unit, one more draw a row makes the rate exact.

The formulas of the strategies are in ``layer.py``; this file is only about speed and exactness. Torch's own Bernoulli
sampler spends 12 ns an element on the CPU; comparing a 16-bit lane with a threshold spends 2.
"""

import math
from typing import Any

import torch
from torch import Tensor

from dropout_lab.dropout import keys


class Rate:
    """A probability as numbers for the layer's formulas and as thresholds on random bits.

    Plain tensors, changed in place: a compiled graph reads the new rate without being rebuilt. Whichever of "keep" and
    "drop" is rarer is compared, so that the threshold always fits in 16 bits.
    """

    def __init__(self) -> None:
        self.q = torch.empty((), dtype=torch.float64)
        self.whole = torch.empty((), dtype=torch.int16)  # threshold of a lane, shifted to int16's range
        self.fraction = torch.empty((), dtype=torch.int32)  # its part below 1/65536, as a threshold of 32 more bits
        self.rare_is_drop = torch.empty((), dtype=torch.bool)

    def set(self, p: float) -> None:
        """Take the drop probability p, 0 <= p < 1."""
        rare = min(p, 1 - p) * 2**16
        self.q.fill_(1 - p)
        self.whole.fill_(math.floor(rare) - 2**15)
        self.fraction.fill_(math.floor(rare % 1 * 2**32) - 2**31)
        self.rare_is_drop.fill_(p < 0.5)


def bernoulli(layer: keys.Keyed, x: Tensor, shape: torch.Size, rate: Rate, q: float | Tensor) -> Tensor:
    """Keep-mask, True with probability q to 2^-32.

    Args:
        layer: the layer that asks; part of the key.
        x: its input; gives the device and the rows.
        shape: shape of the mask, ``shape[0] == x.shape[0]``.
        rate: q as thresholds.
        q: retention probability.

    Returns:
        bool tensor of the given shape: keyed where ``keys.active()``, else from torch's generator.
    """
    if keys.active():
        lanes = math.prod(shape[1:])
        bits = keys.row_bits(layer, x, lanes + 2)  # the last two lanes of a row belong to no element
        one_more = bits[:, -2:].contiguous().view(torch.int32) < rate.fraction
        rare = bits[:, :lanes] < rate.whole + one_more
        return rare.logical_xor_(rate.rare_is_drop).view(shape)
    if isinstance(q, Tensor):
        return torch.rand(shape, device=x.device) < q
    return torch.bernoulli(torch.empty(shape, dtype=torch.bool, device=x.device), q)


def normal(layer: keys.Keyed, x: Tensor, shape: torch.Size) -> Tensor:
    """Standard normal noise in float32 (float64 for float64 inputs), keyed like :func:`bernoulli`.

    Source: Box and Muller 1958; 32 bits for the radius, so values reach 6.6 standard deviations.
    """
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    if not keys.active():
        return torch.randn(shape, dtype=dtype, device=x.device)
    count = math.prod(shape[1:])
    pairs = (count + 1) // 2
    words = keys.row_bits(layer, x, pairs * 4).view(torch.int32)[:, : pairs * 2].to(dtype)
    radius, angle = (words * 2**-32 + (0.5 + 2**-33)).tensor_split(2, dim=1)  # both in (0, 1]
    radius, angle = radius.log().mul(-2).sqrt(), angle * (2 * math.pi)
    return torch.cat((radius * angle.cos(), radius * angle.sin()), dim=1)[:, :count].reshape(shape)


def multiply(x: Tensor, mask: Tensor, scale: float | Tensor) -> Tensor:
    """``x * mask * scale``; a boolean mask of x's size is kept for backward as it is, one byte an element."""
    if mask.dtype != torch.bool or mask.shape != x.shape or isinstance(scale, Tensor):
        return x * (mask * scale).to(x.dtype)
    return _Multiply.apply(x, mask, scale)  # type: ignore[no-any-return, no-untyped-call]


class _Multiply(torch.autograd.Function):
    """The product with a large boolean mask: two passes over one buffer each way."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, mask: Tensor, scale: float) -> Tensor:
        return x.mul(mask).mul_(scale)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, float], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])
        ctx.scale = inputs[2]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (mask,) = ctx.saved_tensors
        return grad.mul(mask).mul_(ctx.scale), None, None
