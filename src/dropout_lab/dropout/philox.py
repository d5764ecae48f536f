"""Random bits as a pure function of a key: the counter-based generator Philox4x32-10.

A key is a pair (seed, offset) of 64-bit words. Counter c of seed s gives four 32-bit words, whatever was drawn before;
a key reads the counters offset, offset + 1, ...

torch has this generator natively (private and experimental: the operator behind ``torch.func._random``), with the same
bits on every device. The plain-torch version beside it is the oracle in the tests and the fallback where torch lacks
it, or where a later torch answers the published test vector differently.

Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"; test vectors of its library, Random123.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

_LOW = 0xFFFFFFFF  # the low 32 bits of an int64


def random_int32(key: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Uniform int32 values, a pure function of the key.

    Args:
        key: uint64 tensor (2,): (seed, offset), read on through the whole shape; or (rows, 2): one key a row.
        shape: of the result; (rows, count) where there is one key a row.

    Returns:
        int32 tensor of that shape on the key's device, uniform over all 2^32 values.
    """
    if _native is None:
        return random_int32_plain(key, shape)
    out = key.new_empty(shape, dtype=torch.int32)
    return _native(out, key if key.ndim == 1 else key.unsqueeze(1), -(2**31), None)


def random_int32_plain(key: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Uniform int32 values, the bits of :func:`random_int32`, from ordinary integer arithmetic."""
    seed, offset = key.view(torch.int64).tensor_split(2, dim=-1)
    count = math.prod(shape if key.ndim == 1 else shape[1:])
    counter = offset + torch.arange((count + 3) // 4, device=key.device)
    zero = torch.zeros_like(counter)
    words = philox4x32((counter & _LOW, (counter >> 32) & _LOW, zero, zero), (seed & _LOW, (seed >> 32) & _LOW))
    return torch.stack(words, dim=-1).to(torch.int32).flatten(-2)[..., :count].reshape(shape)


def philox4x32(counter: tuple[Tensor, ...], key: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Ten rounds of Philox: four 32-bit counter words under two key words (Salmon et al. 2011, section 3.3).

    Words are int64 tensors holding values in [0, 2^32); they broadcast.
    """
    (x0, x1, x2, x3), (k0, k1) = counter, key
    for _ in range(10):
        a, b = x0 * 0xD2511F53, x2 * 0xCD9E8D57  # 32 x 32 -> 64 bits; the sign bit is just the top bit
        x0, x1, x2, x3 = ((b >> 32) & _LOW) ^ x1 ^ k0, b & _LOW, ((a >> 32) & _LOW) ^ x3 ^ k1, a & _LOW
        k0, k1 = (k0 + 0x9E3779B9) & _LOW, (k1 + 0xBB67AE85) & _LOW
    return x0, x1, x2, x3


def _find_native() -> Callable[..., Tensor] | None:
    """Torch's own generator, if it is there and gives the published bits."""
    try:
        draw: Callable[..., Tensor] = torch.Tensor._philox_randint_  # type: ignore[attr-defined]
        zero = torch.zeros(2, dtype=torch.uint64, device="cpu")
        bits = draw(torch.empty(4, dtype=torch.int32, device="cpu"), zero, -(2**31), None)
    except (AttributeError, TypeError, RuntimeError):  # torch < 2.15, or the operator has changed
        return None
    published = [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]  # Random123, counter and key zero
    return draw if [word & _LOW for word in bits.tolist()] == published else None


_native = _find_native()
