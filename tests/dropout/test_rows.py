"""Rows of the global batch are read from any form, copied, and refused in one line."""

from typing import Any

import numpy as np
import pytest
import torch

from dropout_lab.dropout.rows import Rows

FORMS = [
    list,
    tuple,
    np.array,
    torch.tensor,
    lambda rows: torch.tensor(rows, dtype=torch.int32),
    lambda rows: torch.tensor(rows, dtype=torch.int16),
    lambda rows: torch.tensor(rows, dtype=torch.uint8),
]


@pytest.mark.parametrize("form", [*FORMS, lambda rows: range(rows[0], rows[-1] + 1)])
@pytest.mark.parametrize("rows", [[3, 4, 5, 6], [0, 1], [7]])
def test_contiguous_rows_are_their_first_and_their_number(rows: list[int], form: Any) -> None:
    assert Rows.read(form(rows)) == Rows(rows[0], len(rows))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rows", [[4, 3, 5, 6], [3, 5], [2, 2], [6, 5, 4]])
def test_other_rows_are_a_table(rows: list[int], form: Any) -> None:
    read = Rows.read(form(rows))
    assert (read.first, read.size) == (min(rows), len(rows))
    assert read.table is not None
    assert read.order is not None
    assert (read.table.dtype, read.table.tolist()) == (torch.int64, rows)
    assert (read.order + read.first).tolist() == rows


def test_a_range_with_steps_is_a_table() -> None:
    read = Rows.read(range(8, 0, -3))
    assert read.table is not None
    assert read.table.tolist() == [8, 5, 2]


@pytest.mark.parametrize("rows", [range(0), range(5, 5), [], (), torch.arange(0)])
def test_no_rows_are_contiguous(rows: Any) -> None:
    read = Rows.read(rows)
    assert (read.size, read.table) == (0, None)


@pytest.mark.parametrize("rows", [[5, 1, 2], [1, 2, 3]])
def test_rows_given_as_a_tensor_may_change_later(rows: list[int]) -> None:
    given = torch.tensor(rows)
    read = Rows.read(given)
    given.zero_()
    expected = Rows.read(rows)
    assert read[:2] == expected[:2]
    if expected.table is not None:
        assert torch.equal(read.table, expected.table)


def test_a_table_is_read_again_as_the_rows_it_came_from() -> None:
    """What a compiled graph is handed: the first row and the table."""
    read = Rows.read([9, 4, 7])
    again = Rows(read.first, read.size, read.table)
    assert again[:3] == read[:3]
    assert again.order.tolist() == [5, 0, 3]
    assert Rows(3, 2, None) == Rows.read([3, 4])


LAST = 2**48 - 1


@pytest.mark.parametrize("rows", [range(LAST, LAST + 1), [LAST], [LAST, 0]])
def test_the_last_row_is_below_2_to_the_48(rows: Any) -> None:
    assert Rows.read(rows).size == len(rows)
    beyond = range(rows.start, rows.stop + 1) if isinstance(rows, range) else [row + 1 for row in rows]
    with pytest.raises(ValueError, match=r"must be 1-D positions >= 0 in the global batch, below 2\^48, got"):
        Rows.read(beyond)


BAD: dict[str, tuple[Any, type[Exception], str]] = {
    "negative": ([0, -2], ValueError, r"1-D positions >= 0 in the global batch, below 2\^48, got \[0, -2\]$"),
    "negative range": (range(-2, 2), ValueError, "1-D positions >= 0 in the global batch"),
    "2-D": (torch.zeros(2, 2, dtype=torch.int64), ValueError, r"must be 1-D .* got \[\[0, 0\], \[0, 0\]\]$"),
    "0-D": (torch.tensor(3), ValueError, r"must be 1-D .* got 3$"),
    "floats": (torch.zeros(2), TypeError, "rows must be integers, got float32$"),
    "bools": ([True, False], TypeError, "rows must be integers, got bool$"),
    "complex": (torch.zeros(2, dtype=torch.complex64), TypeError, "rows must be integers, got complex64$"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_rows_are_refused(case: str) -> None:
    rows, error, message = BAD[case]
    with pytest.raises(error, match="^mask_keys: .*" + message):
        Rows.read(rows)
