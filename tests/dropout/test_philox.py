"""The generator gives the published bits, whichever way it is computed."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dropout_lab.dropout import philox
from dropout_lab.dropout.philox import philox4x32, random_int32, random_int32_plain

WORD = st.integers(0, 2**64 - 1)
needs_native = pytest.mark.skipif(philox._native is None, reason="this torch has no Philox of its own (2.15 does)")

# Counter, key, result: the known answers of Random123, the library of Salmon et al. 2011.
PUBLISHED = {
    "zeros": ("00000000" * 4, "00000000" * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    "ones": ("ffffffff" * 4, "ffffffff" * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    "pi": ("243f6a8885a308d313198a2e03707344", "a4093822299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
}


def words(text: str) -> tuple[Tensor, ...]:
    text = text.replace(" ", "")
    return tuple(torch.tensor(int(text[i : i + 8], 16)) for i in range(0, len(text), 8))


def philox_in_integers(seed: int, counter: int) -> list[int]:
    """The algorithm in Python's integers: no sign, no overflow. Four int32 values."""
    low = 2**32 - 1
    x, k = [counter & low, counter >> 32, 0, 0], [seed & low, seed >> 32]
    for _ in range(10):
        a, b = x[0] * 0xD2511F53, x[2] * 0xCD9E8D57
        x = [(b >> 32) ^ x[1] ^ k[0], b & low, (a >> 32) ^ x[3] ^ k[1], a & low]
        k = [(k[0] + 0x9E3779B9) & low, (k[1] + 0xBB67AE85) & low]
    return [word - 2**32 if word >> 31 else word for word in x]


def key(*pairs: tuple[int, int]) -> Tensor:
    return torch.tensor(pairs if len(pairs) > 1 else pairs[0], dtype=torch.uint64)


@pytest.mark.parametrize("vector", PUBLISHED)
def test_published_vectors(vector: str) -> None:
    counter, of, result = map(words, PUBLISHED[vector])
    assert philox4x32(counter, of) == result


@given(seed=WORD, offset=WORD, shape=st.lists(st.integers(0, 4), max_size=3))
def test_one_key_reads_on_through_the_whole_shape(seed: int, offset: int, shape: list[int]) -> None:
    count = math.prod(shape)
    blocks = [philox_in_integers(seed, (offset + i) % 2**64) for i in range((count + 3) // 4)]
    bits = random_int32_plain(key((seed, offset)), tuple(shape))
    assert bits.shape == tuple(shape)
    assert bits.flatten().tolist() == list(itertools.chain(*blocks))[:count]


@given(pairs=st.lists(st.tuples(WORD, WORD), min_size=2, max_size=4), count=st.integers(0, 9))
def test_a_key_a_row_gives_each_row_alone(pairs: list[tuple[int, int]], count: int) -> None:
    together = random_int32_plain(key(*pairs), (len(pairs), count))
    alone = [random_int32_plain(key(pair), (1, count)) for pair in pairs]
    assert torch.equal(together, torch.cat(alone))


@needs_native
@settings(max_examples=200)
@given(
    pairs=st.lists(st.tuples(WORD, WORD), min_size=1, max_size=5), count=st.integers(0, 160), rows=st.integers(0, 40)
)
def test_native_gives_the_plain_bits(pairs: list[tuple[int, int]], count: int, rows: int) -> None:
    shape = (len(pairs) if len(pairs) > 1 else rows, count)
    assert torch.equal(random_int32(key(*pairs), shape), random_int32_plain(key(*pairs), shape))


def test_bits_are_uniform() -> None:
    """Chi-square of all bytes against 256 equal cells: 255 degrees of freedom, 4.5 standard deviations."""
    bits = random_int32(key((5, 6)), (64, 4096)).view(torch.uint8).flatten()
    counts, expected = torch.bincount(bits.int(), minlength=256).double(), bits.numel() / 256
    chi_square = ((counts - expected).square() / expected).sum().item()
    assert abs(chi_square - 255) < 4.5 * (2 * 255) ** 0.5


@pytest.mark.parametrize(("first", "trusted"), [(0x6627E8D5, True), (0x6627E8D6, False)])
def test_native_is_used_only_if_it_gives_the_published_bits(
    first: int, trusted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw(out: Tensor, of: Tensor, low: int, high: None) -> Tensor:
        return out.copy_(torch.tensor([first, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]))

    monkeypatch.setattr(Tensor, "_philox_randint_", draw, raising=False)
    assert philox._find_native() is (draw if trusted else None)


def test_a_changed_operator_means_no_native(monkeypatch: pytest.MonkeyPatch) -> None:
    def draw(out: Tensor) -> Tensor:
        return out

    monkeypatch.setattr(Tensor, "_philox_randint_", draw, raising=False)
    assert philox._find_native() is None
