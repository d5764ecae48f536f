"""Streams of random words: numpy's, whatever computes them, and no two with a word in common."""

import importlib.util
import threading

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from word_sources import row_words_of

from dropout_lab.dropout import streams
from dropout_lab.dropout.philox import Stream, signed
from dropout_lab.dropout.rows import Rows
from dropout_lab.dropout.streams import compiled_row_words

CPU = torch.device("cpu")
WORD = st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([0, 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1]))
STREAM = st.builds(Stream, WORD, WORD, WORD, WORD)
ROWS = st.one_of(
    st.builds(lambda first, size: range(first, first + size), st.integers(0, 2**45), st.integers(0, 5)),
    st.permutations(range(3, 8)),
    st.lists(st.integers(0, 3), max_size=6),  # repeated
    st.lists(st.integers(0, 2000), max_size=4),  # scattered: some near, so that they are one draw
    st.lists(st.integers(0, 2**45), max_size=4),  # and some far
)
WIDTH = st.integers(0, 19)
SOURCES = ["numpy", "plain"]
with_fixture = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


def draw(stream: Stream, rows: Rows, width: int, source: str = "numpy") -> NDArray[np.int32]:
    """Words of rows, int32 (rows, width)."""
    drawn = row_words_of(source)(stream, rows, width, CPU)
    assert isinstance(drawn, np.ndarray if source == "numpy" else torch.Tensor)
    words = np.asarray(drawn)
    assert (words.shape, words.dtype) == ((rows.size, width), np.int32)
    return words


def line_of_numpy(stream: Stream, w: int) -> int:
    """Word w as the docstring of `streams` says."""
    seed, layer, step, call = stream
    generator = np.random.Philox(key=layer << 64 | seed, counter=step << 128 | call << 64 | w // 8)
    return int(generator.random_raw(4).view("<i4")[w % 8])


@pytest.mark.parametrize("source", SOURCES)
@settings(max_examples=60)
@given(stream=STREAM, rows=ROWS, width=WIDTH)
def test_words_are_those_of_numpy(source: str, stream: Stream, rows: list[int], width: int) -> None:
    expected = [[line_of_numpy(stream, row * width + place) for place in range(width)] for row in rows]
    assert draw(stream, Rows.read(rows), width, source).tolist() == expected


@pytest.mark.parametrize("restart", [0, 2**40], ids=["row by row", "in one draw"])
@with_fixture
@given(stream=STREAM, rows=st.lists(st.integers(0, 40), max_size=6), width=WIDTH)
def test_rows_drawn_together_are_those_drawn_alone(
    restart: int, monkeypatch: pytest.MonkeyPatch, stream: Stream, rows: list[int], width: int
) -> None:
    monkeypatch.setattr(streams, "_RESTART", restart)
    alone = [draw(stream, Rows(row, 1), width)[0].tolist() for row in rows]
    assert draw(stream, Rows.read(rows), width).tolist() == alone


@pytest.mark.parametrize(("beyond", "together"), [(0, True), (1, False), (10**6, False)])
@pytest.mark.parametrize("width", [1, 64, streams._RESTART])
def test_words_are_skipped_only_where_to_go_on_elsewhere_costs_more(
    width: int, beyond: int, together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    between = 2 * streams._RESTART // width + beyond
    drawn: list[int] = []

    def run(stream: Stream, start: int, width: int) -> NDArray[np.int32]:
        drawn.append(width)
        return np.zeros(width, np.int32)

    monkeypatch.setattr(streams._numpy, "run", run)
    monkeypatch.setattr(streams._numpy, "runs", lambda stream, starts, width: [run(stream, n, width) for n in starts])
    draw(Stream(1, 2, 3, 4), Rows.read([5, 6 + between]), width)
    assert drawn == ([(2 + between) * width] if together else [width, width])


@pytest.mark.parametrize("row", [2**45, 2**47, 2**48 - 1])
def test_the_last_rows_of_a_wide_layer_are_not_the_first_of_it(row: int) -> None:
    """Numbers of words beyond 2^63."""
    width, stream = 2**18, Stream(1, 2, 3, 4)
    alone = [draw(stream, Rows(one, 1), width)[0, :8].tolist() for one in (row, 0)]
    assert draw(stream, Rows.read([row, 0]), width)[:, :8].tolist() == alone
    assert alone[0] == [line_of_numpy(stream, row * width + place) for place in range(8)]


@settings(max_examples=40)
@given(stream=STREAM, rows=ROWS, width=WIDTH)
def test_the_operator_of_compiled_graphs_gives_the_same(stream: Stream, rows: list[int], width: int) -> None:
    stream, read = Stream(stream.seed, stream.layer, stream.step % 2**63, stream.call % 2**63), Rows.read(rows)
    place = torch.tensor([signed(stream.seed), stream.step, read.first])
    drawn = compiled_row_words(place, read.table, signed(stream.layer), stream.call, read.size, width, CPU)
    assert np.array_equal(drawn.numpy(), draw(stream, read, width))


@pytest.mark.parametrize("table", [None, torch.tensor([9, 4])], ids=["range", "table"])
def test_the_operator_is_what_torch_asks_of_one(table: torch.Tensor | None) -> None:
    torch.library.opcheck(compiled_row_words, (torch.tensor([1, 2, 4]), table, -3, 0, 2, 5, CPU))


def test_words_do_not_change_between_versions() -> None:
    """Written down once: they are the same with every torch and every numpy."""
    words = draw(Stream(2**64 - 1, 2**63 + 1, 10**12, 1), Rows.read([2**40, 3]), 3)
    assert words.tolist() == [[80208456, -2097501601, -1107559160], [-1510645604, -738037315, -899548880]]


# Threads


def test_threads_that_draw_at_once_have_the_words_of_one(switching: None) -> None:
    rounds = 300
    expected = [[draw(Stream(1, layer, step, 0), Rows(7, 3), 5) for step in range(rounds)] for layer in (0, 1)]
    drawn: list[list[NDArray[np.int32]]] = [[], []]
    start = threading.Barrier(2)

    def work(layer: int) -> None:
        start.wait(10)
        for step in range(rounds):
            drawn[layer].append(streams.row_words(Stream(1, layer, step, 0), Rows(7, 3), 5, CPU))

    threads = [threading.Thread(target=work, args=(layer,)) for layer in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert np.array_equal(drawn, expected)


# What words are like


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("rows", [range(64), range(0, 128, 2)], ids=["range", "table"])
def test_words_are_uniform(rows: range, source: str) -> None:
    """Chi-square of each of the eight bytes against 256 equal cells: 255 degrees of freedom, 4.5 deviations."""
    lanes = draw(Stream(5, 6, 7, 0), Rows.read(rows), 2048, source).view(np.uint8).reshape(-1, 8)
    expected = len(lanes) / 256
    for lane in lanes.T:
        chi_square = ((np.bincount(lane, minlength=256) - expected) ** 2 / expected).sum()
        assert abs(chi_square - 255) < 4.5 * (2 * 255) ** 0.5


NEIGHBOURS = [
    Stream(5, 6, 7, 8)._replace(**{word: value})
    for word, value in (
        *(("seed", value) for value in (4, 6, 7, 8, 5 + 2**32, 5 + 2**63)),
        *(("layer", value) for value in (5, 7, 8, 6 + 2**32, 6 + 2**63)),
        *(("step", value) for value in (5, 6, 8, 7 + 2**32, 7 + 2**62)),
        *(("call", value) for value in (0, 1, 5, 6, 7, 9, 8 + 2**32)),
    )
]


@pytest.mark.parametrize("source", SOURCES)
def test_streams_have_no_word_in_common(source: str) -> None:
    """Of 2^18 pairs of words, 64 bits, no two are equal, which chance would break once in 10^8."""
    rows, width = Rows(0, 16), 1024
    together = [draw(stream, rows, width, source) for stream in (Stream(5, 6, 7, 8), *NEIGHBOURS)]
    together += [draw(Stream(5, 6, 7, 8), Rows(first, 16), width, source) for first in (16, 32, 2**20, 2**40, 2**47)]
    pairs = np.concatenate(together).ravel().view(np.uint64)
    assert len(np.unique(pairs)) == len(pairs)


def test_the_operator_survives_a_second_import() -> None:
    """As after an import that failed half-way, or in a notebook that reads changed files anew."""
    found = importlib.util.find_spec("dropout_lab.dropout.streams")
    assert found is not None
    assert found.loader is not None
    again = importlib.util.module_from_spec(found)
    found.loader.exec_module(again)
    assert again.compiled_row_words is compiled_row_words
