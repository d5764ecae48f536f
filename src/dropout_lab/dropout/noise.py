"""Fast multiplicative noise: random bits against a threshold, and the product that keeps one byte for backward.

The formulas of the strategies are in ``layer.py``; this file is only about speed and exactness. Torch's own Bernoulli
sampler spends 12 ns an element on the CPU; comparing 16 random bits with a threshold spends 1 to draw them and, in
numpy, 0.06 to compare. Masks are multiplied as uint8: arithmetic on bool tensors is five times slower. The byte an
element that is kept for backward is cheap: to draw the mask again would take half as long again as both passes.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dropout_lab.dropout import keys, streams
from dropout_lab.dropout.contexts import Keyed

_SHORT_ROW = 64  # elements; up to there, 32 bits for each cost less than the bookkeeping that 16 need
_LARGE = 2**16  # elements; above, memory traffic costs more than the Python of an autograd function


class Rate(NamedTuple):
    """A probability as tensors: for the formulas, and as thresholds on random bits.

    Tensors, so that a compiled graph reads a new rate without being rebuilt; and what numpy compares with.
    """

    q: Tensor  # float64: 1 - p
    scale: Tensor  # float64: 1 / q
    scale32: Tensor  # float32: the same
    whole: Tensor | None  # uint8: the same, where it is a whole number, as at p = 0.5
    keep: Tensor  # int32: of 2^32 values, q * 2^32 lie below it
    edge: Tensor  # int32: of 2^16 values, q * 2^16, rounded down, lie below it
    rest: Tensor  # int32: what was rounded off, as a threshold of 32 more bits
    numpy: "_Thresholds"

    @classmethod
    def of(cls, p: float) -> "Rate":
        """The rate that drops with probability p, 0 <= p < 1."""
        q = 1 - p
        keep = min(round(q * 2**32), 2**32 - 1) - 2**31
        edge = math.floor(q * 2**16) - 2**15
        rest = min(round(q * 2**16 % 1 * 2**32), 2**32 - 1) - 2**31
        most = q >= 0.5  # then the edge, and one more, can be 2^15: it fits in 16 bits as "at most the value below"
        with torch.inference_mode(False):  # an inference tensor could not take part in training later
            return cls(
                _scalar(q, torch.float64),
                _scalar(1 / q, torch.float64),
                _scalar(1 / q, torch.float32),
                _scalar(1 / q, torch.uint8) if (1 / q).is_integer() and 1 / q < 2**8 else None,
                _scalar(keep, torch.int32),
                _scalar(edge, torch.int32),
                _scalar(rest, torch.int32),
                _Thresholds(np.int32(keep), np.int16(edge - most), np.int32(rest), most),
            )


class _Thresholds(NamedTuple):
    """Thresholds of a rate for numpy, whose comparisons take a fifth of torch's time."""

    keep: np.int32
    edge: np.int16
    rest: np.int32
    most: bool  # whether values equal to the edge are kept, too


def bernoulli(layer: Keyed, x: Tensor, shape: tuple[int, ...], rate: Rate) -> Tensor:
    """Keep-mask, True with probability q to 2^-32.

    Args:
        layer: the layer that asks; part of the key.
        x: its input; gives the device and the rows.
        shape: shape of the mask; ``shape[0] == x.shape[0]``, as each row has its own bits.
        rate: q as thresholds.

    Returns:
        bool tensor of the given shape: keyed where ``keys.active()``, else from torch's generator.
    """
    count = math.prod(shape[1:])
    # Vmap can't view bits as another type before torch 2.14.
    long = count > _SHORT_ROW and not (keys.transformed() and not keys.active())
    words = keys.words(layer, x, _width(count, long))
    if isinstance(words, np.ndarray):
        kept = _kept(words, count, long, rate.numpy)
        return torch.from_numpy(kept if len(shape) == 2 else kept.reshape(shape))
    if not long:
        return (words < rate.keep).view(shape)
    return (words.view(torch.int16)[:, :count] < rate.edge + (words[:, -1:] < rate.rest)).view(shape)


def _width(count: int, long: bool) -> int:
    """Words of a row of so many elements.

    Sixteen bits an element give a multiple of 2^-16; in a long row one more draw, of 32 bits, settles the rest.
    """
    return (count + 1) // 2 + 1 if long else count


def _kept(words: NDArray[np.int32], count: int, long: bool, rate: _Thresholds) -> NDArray[np.bool_]:
    """The keep-mask (rows, count) of random words, in numpy."""
    if not long:
        return words < rate.keep
    edge = rate.edge + (words[:, -1:] < rate.rest)
    lanes = words.view(np.int16)[:, :count]
    return lanes <= edge if rate.most else lanes < edge


def fused(layer: Keyed, x: Tensor, rate: Rate, scaled: bool) -> Tensor | None:
    """``x * mask * scale`` in one kernel that keeps nothing for backward: the mask of :func:`bernoulli`, keyed.

    Args:
        layer, x, rate: as for :func:`bernoulli`; x is on a CUDA device.
        scaled: whether the scale is 1 / q, else 1.

    Returns:
        None where there is no such kernel: without Triton, where rows or memory are not contiguous, or inside a
        transform of ``torch.func``.
    """
    if not streams.has_triton or not x.is_contiguous() or keys.transformed():
        return None
    place = keys.contiguous(layer, x)
    if place is None:
        return None
    from dropout_lab.dropout import philox_triton

    count = math.prod(x.shape[1:])
    long = count > _SHORT_ROW
    thresholds = int(rate.keep), int(rate.edge), int(rate.rest)
    scale = float(rate.scale) if scaled else 1.0
    return philox_triton.dropout(x, *place, _width(count, long), long, thresholds, scale)


def normal(layer: Keyed, x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Standard normal noise in float32 (float64 for float64 inputs); arguments as for :func:`bernoulli`.

    Source: Box and Muller 1958; 31 bits for the radius, so values reach 6.6 standard deviations.
    """
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    count = math.prod(shape[1:])
    words = torch.as_tensor(keys.words(layer, x, (count + 1) // 2 * 2))
    radius, angle = words.tensor_split(2, dim=-1)
    # + 0.5 keeps the uniform above 0; small ones stay exact in float32, so that the tail is not cut at 2^-24.
    uniform = ((radius & 0x7FFFFFFF).to(dtype) + 0.5) * 2**-31
    radius, angle = uniform.log().mul(-2).sqrt(), angle.to(dtype) * (math.pi * 2**-31)
    return torch.cat((radius * angle.cos(), radius * angle.sin()), dim=-1)[..., :count].reshape(shape)


def uniform(layer: Keyed, x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Uniform noise between 0 and 1, in float32 (float64 for float64 inputs); arguments as for :func:`bernoulli`.

    One of 2^23 values, (k + 1/2) / 2^23, all of which float32 holds: neither end is reached by rounding.
    """
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    words = torch.as_tensor(keys.words(layer, x, math.prod(shape[1:])))
    return (((words & 0x7FFFFF).to(dtype) + 0.5) * 2**-23).reshape(shape)


def multiply(x: Tensor, noise: Tensor, rate: Rate | None) -> Tensor:
    """``x * noise / q`` in x's dtype; of a boolean noise one byte an element is kept for backward.

    Args:
        x: floating-point tensor.
        noise: bool or floating-point, broadcasts to x.
        rate: q; None leaves it out.
    """
    scale = None if rate is None else rate.scale32 if x.dtype == torch.float32 else rate.scale
    if noise.dtype != torch.bool:
        return x * (noise if scale is None else noise * scale).to(x.dtype)
    if noise.shape != x.shape or keys.transformed():
        if scale is None or scale.dtype != x.dtype:
            noise = noise.to(x.dtype)
        # One value for a whole map or sample: scale the small tensor, not the big one.
        return x * (noise if scale is None else noise * scale)
    if torch.compiler.is_compiling():
        return x * noise if scale is None else x * noise * scale
    mask = noise.view(torch.uint8)
    if rate is not None and rate.whole is not None:  # the byte holds the scale: one product less each way
        return _product(x, mask * rate.whole, None)
    return _product(x, mask, scale)


def _product(x: Tensor, mask: Tensor, scale: Tensor | None) -> Tensor:
    """The product with a mask of bytes."""
    if mask.numel() > _LARGE and not keys.transformed():
        return _Product.apply(x, mask, scale)  # type: ignore[no-any-return, no-untyped-call]
    return x * mask if scale is None else x * mask * scale


class _Product(torch.autograd.Function):
    """The product with a large mask in one buffer each way, where plain torch would fill three."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor, scale: Tensor | None) -> Tensor:
        ctx.save_for_backward(mask)
        ctx.save_for_forward(mask)
        ctx.scale = scale
        out = torch.empty_like(x).copy_(mask).mul_(x)
        return out if scale is None else out.mul_(scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        return _product(grad, ctx.saved_tensors[0], ctx.scale), None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:  # type: ignore[override]
        return _product(tangent, ctx.saved_tensors[0], ctx.scale)


def _scalar(value: float, dtype: torch.dtype) -> Tensor:
    return torch.tensor(value, dtype=dtype, device="cpu")
