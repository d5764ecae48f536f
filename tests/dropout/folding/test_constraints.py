"""Laws of the equations: which weights take a factor, and where no weight can."""

import pytest
import torch
from foldable import Classic, Residual, linear
from torch import nn

from dropout_lab.dropout.folding.fold import fold


def test_only_the_next_weight_changes_where_that_is_possible() -> None:
    model = nn.Sequential(linear(), nn.BatchNorm1d(8), nn.ReLU(), Classic(0.75), linear())
    folded, before = fold(model, torch.randn(3, 8)).state_dict(), model.state_dict()
    assert torch.equal(folded["4.weight"], before["4.weight"] / 4)
    assert all(torch.equal(folded[key], before[key]) for key in before if key != "4.weight")


def test_a_residual_branch_takes_the_factor_into_its_last_weight_and_bias() -> None:
    model = nn.Sequential(linear(), Residual(linear(), nn.ReLU(), linear(), Classic(0.75)), linear())
    folded, before = fold(model, torch.randn(3, 8)).state_dict(), model.state_dict()
    changed = {"1.body.2.weight", "1.body.2.bias"}
    assert all(torch.equal(folded[key], before[key] / (4 if key in changed else 1)) for key in before)


def test_tied_weights_that_need_two_factors_are_refused() -> None:
    tied = linear()
    model = nn.Sequential(tied, nn.ReLU(), Classic(0.5), tied)
    with pytest.raises(
        ValueError, match=r"'2' \(p=0.5\): 0.weight is shared by Linear 0, .* by 1, and Linear 0, by 0.5"
    ):
        fold(model, torch.randn(3, 8))
