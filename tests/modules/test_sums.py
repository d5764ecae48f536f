"""Laws of sums: rows add up as torch's losses do, and a mean is that of all that was counted."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from dropout_lab.modules.sums import Mean, total


@given(st.integers(1, 700), st.integers(0, 2**31), st.sampled_from([torch.float32, torch.float64]))
def test_rows_of_a_loss_add_up_to_its_own_sum_to_the_last_bit(rows, seed, dtype):
    generator = torch.Generator().manual_seed(seed)
    log_p = torch.randn(rows, 5, generator=generator, dtype=dtype).log_softmax(1)
    classes = torch.randint(5, (rows,), generator=generator)
    whole = F.nll_loss(log_p, classes, reduction="sum")
    assert torch.equal(total(F.nll_loss(log_p, classes, reduction="none")), whole)


def test_several_numbers_a_row_have_a_sum_each_and_truths_are_counted():
    assert total(torch.tensor([[1.0, 2.0], [3.0, 5.0]])).tolist() == [4.0, 7.0]
    assert total(torch.tensor([True, False, True])).item() == 2


def test_a_mean_goes_on_from_what_was_kept():
    mean, values = Mean(), torch.tensor([1.0, 4.0, 7.0])
    for value in values[:2]:
        mean.add(value)
    kept = Mean(mean.sum, mean.count)
    kept.add(values[2])
    assert kept.sum / kept.count == pytest.approx(4.0)
