"""The generator in plain torch gives the published bits, and numpy's."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dropout_lab.dropout.philox import Stream, philox4x64, signed, words_plain

WORD = st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([0, 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1]))
STREAM = st.builds(Stream, WORD, WORD, WORD, WORD)
F = "ffffffffffffffff"

# Counter, key, result: the known answers of Random123, the library of Salmon et al. 2011 (kat_vectors, philox4x64 10).
PUBLISHED = {
    "zeros": (
        "0000000000000000 " * 4,
        "0000000000000000 " * 2,
        "16554d9eca36314c db20fe9d672d0fdc d7e772cee186176b 7e68b68aec7ba23b",
    ),
    "ones": (
        f"{F} {F} {F} {F}",
        f"{F} {F}",
        "87b092c3013fe90b 438c3c67be8d0224 9cc7d7c69cd777b6 a09caebf594f0ba0",
    ),
    "pi": (
        "243f6a8885a308d3 13198a2e03707344 a4093822299f31d0 082efa98ec4e6c89",
        "452821e638d01377 be5466cf34e90c6c",
        "a528f45403e61d95 38c72dbd566e9788 a5a1610e72fd18b5 57bd43b5e52b7fe6",
    ),
}


def integers(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


def in_integers(counter: list[int], key: list[int]) -> list[int]:
    """The algorithm in Python's integers: no sign, no overflow."""
    (x0, x1, x2, x3), (k0, k1), low = counter, key, 2**64 - 1
    for _ in range(10):
        a, b = x0 * 0xD2E7470EE14C6C93, x2 * 0xCA5A826395121157
        x0, x1, x2, x3 = (b >> 64) ^ x1 ^ k0, b & low, (a >> 64) ^ x3 ^ k1, a & low
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & low, (k1 + 0xBB67AE8584CAA73B) & low
    return [x0, x1, x2, x3]


def in_torch(counter: list[int], key: list[int]) -> list[int]:
    words = philox4x64(tuple(torch.tensor([signed(word)]) for word in counter), (key[0], key[1]))
    return [word.item() % 2**64 for word in words]


def in_numpy(counter: list[int], key: list[int]) -> list[int]:
    """Numpy adds 1 to its counter, a number of 256 bits, before it draws."""
    before = (sum(word << 64 * place for place, word in enumerate(counter)) - 1) % 2**256
    return np.random.Philox(key=key[0] + (key[1] << 64), counter=before).random_raw(4).tolist()


@pytest.mark.parametrize("way", [in_integers, in_torch, in_numpy])
@pytest.mark.parametrize("vector", PUBLISHED)
def test_published_vectors(vector: str, way) -> None:
    counter, key, result = map(integers, PUBLISHED[vector])
    assert way(counter, key) == result


@given(counter=st.lists(WORD, min_size=4, max_size=4), key=st.lists(WORD, min_size=2, max_size=2))
def test_torch_integers_and_numpy_agree(counter: list[int], key: list[int]) -> None:
    assert in_torch(counter, key) == in_integers(counter, key) == in_numpy(counter, key)


@given(
    stream=STREAM,
    starts=st.lists(st.one_of(st.integers(0, 17), st.integers(0, 2**61)), max_size=4),
    width=st.integers(0, 19),
)
def test_runs_of_words_are_those_of_the_stream(stream: Stream, starts: list[int], width: int) -> None:
    """Word w is the part w % 8, of 32 bits, of what the counter (w // 8 + 1, call, step, 0) gives."""
    seed, layer, step, call = stream

    def word(number: int) -> int:
        of_64 = in_integers([number // 8 + 1, call, step, 0], [seed, layer])[number % 8 // 2]
        return of_64 >> 32 if number % 2 else of_64 % 2**32

    drawn = words_plain(stream, torch.tensor(starts, dtype=torch.int64), width)
    assert (drawn.shape, drawn.dtype) == ((len(starts), width), torch.int32)
    unsigned = [[number % 2**32 for number in run] for run in drawn.tolist()]
    assert unsigned == [[word(start + place) for place in range(width)] for start in starts]


@given(word=WORD)
def test_a_signed_word_has_the_bits_of_the_unsigned(word: int) -> None:
    assert np.int64(signed(word)).view(np.uint64) == word
