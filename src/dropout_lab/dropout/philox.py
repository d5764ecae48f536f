"""Random bits as a pure function of a key: the counter-based generator Philox4x32-10.

A key is a pair (seed, offset) of 64-bit words. Counter c of seed s gives 128 random bits, whatever was drawn before;
a key reads the counters offset, offset + 1, ... Two consecutive int64 values come from one counter.

torch has this generator natively (private and experimental, ``torch.func._random``), with the same bits on every
device. The plain-torch version beside it is the oracle in the tests and the fallback where torch lacks it, or where a
later torch answers the published test vector differently.

Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"; test vectors of its library, Random123.
"""

from collections.abc import Callable

import torch
from torch import Tensor

_LOW = 0xFFFFFFFF  # the low 32 bits of an int64


def random_int64(key: Tensor, count: int) -> Tensor:
    """Uniform int64 values, a pure function of the key.

    Args:
        key: int64 tensor (2,) or (n, 2), each (seed, offset).
        count: how many values per key, even.

    Returns:
        int64 tensor (count,) or (n, count) on the key's device, uniform over all 2^64 values.
    """
    if _native is None:
        return random_int64_plain(key, count)
    out = torch.empty((*key.shape[:-1], count), dtype=torch.int64, device=key.device)
    words = key.view(torch.uint64)
    return _native(words if key.ndim == 1 else words.unsqueeze(-2), out, low=None, high=None)


def random_int64_plain(key: Tensor, count: int) -> Tensor:
    """The same bits as :func:`random_int64` from ordinary integer arithmetic."""
    seed, offset = key[..., :1], key[..., 1:]
    counter = offset + torch.arange(count // 2, device=key.device)
    zero = torch.zeros_like(counter)
    x = philox4x32((counter & _LOW, (counter >> 32) & _LOW, zero, zero), (seed & _LOW, (seed >> 32) & _LOW))
    return torch.stack(((x[0] << 32) | x[1], (x[2] << 32) | x[3]), dim=-1).flatten(-2)


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
        from torch.func._random import randint_

        zero = torch.zeros(2, dtype=torch.uint64, device="cpu")
        bits = randint_(zero, torch.empty(1, dtype=torch.int64, device="cpu"), low=None, high=None)
    except (ImportError, AttributeError, TypeError, RuntimeError):  # torch < 2.15, or the API has changed
        return None
    return randint_ if bits.item() == 0x6627E8D5E169C58D else None


_native = _find_native()
