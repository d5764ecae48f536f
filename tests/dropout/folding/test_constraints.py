"""Laws of the equations: which weights take a factor, and where no weight can."""

import copy
from functools import partial

import pytest
import torch
from foldable import Classic, Residual, distance, eval_output, linear
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization
from torch.optim import SGD

from dropout_lab.dropout.folding.fold import convert, fold
from dropout_lab.dropout.folding.match import factors_of_matching, match_inverted


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


def test_tensors_tied_by_their_data_that_need_two_factors_are_refused() -> None:
    model = nn.Sequential(linear(), nn.GELU(), Classic(0.5), linear())
    model[3].weight.data = model[0].weight.data
    before = copy.deepcopy(model.state_dict())
    for change in (fold, lambda model, x: convert(model, "inverted", x)):
        with pytest.raises(ValueError, match=r"0.weight is shared by Linear 0, .* by 1, and Linear 3, by 0.5"):
            change(model, torch.randn(3, 8))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


class Tied(nn.Module):
    """Two layers with one weight, the one that is called last defined first."""

    def __init__(self, by_data: bool) -> None:
        super().__init__()
        self.last, self.first = linear(), linear()
        if by_data:
            self.first.weight.data = self.last.weight.data
        else:
            self.first.weight = self.last.weight
        self.drop = Classic(0.75)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.drop(torch.tanh(self.first(self.drop(torch.sigmoid(x))))))


@pytest.mark.parametrize("by_data", [False, True])
def test_tied_weights_that_need_one_factor_take_it_once_and_stay_tied(by_data: bool) -> None:
    model, x = Tied(by_data), torch.randn(3, 8)
    before, weight = eval_output(model, x), model.last.weight.clone()
    for changed in (fold(model, x), convert(model, "inverted", x)):
        assert torch.equal(changed.last.weight, weight / 4)
        assert changed.last.weight.data_ptr() == changed.first.weight.data_ptr()
        assert distance(before, eval_output(changed, x)) < 1e-6


def test_a_tied_weight_has_its_factor_under_each_of_its_names() -> None:
    assert factors_of_matching(Tied(False), torch.randn(3, 8)) == {"first.weight": 4, "last.weight": 4}
    groups = match_inverted(Tied(False), partial(SGD, lr=1.0), torch.randn(3, 8)).param_groups
    assert [group["lr"] for group in groups] == [16, 1]


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.drop = Classic(0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.sigmoid(x.unsqueeze(1))
        return self.drop(self.attention(x, x, x)[0])


def computed(layer: nn.Module, name: str) -> nn.Module:
    return register_parametrization(layer, name, nn.Softplus())


def computed_in_attention() -> nn.Module:
    model = Attending()
    computed(model.attention.out_proj, "weight")
    return model


@pytest.mark.parametrize(
    ("model", "remedy"),
    [
        (nn.Sequential(nn.GELU(), Classic(0.5), computed(linear(), "weight")), r"get_submodule\('2'\), 'weight'\)"),
        (nn.Sequential(nn.GELU(), computed(linear(), "bias"), Classic(0.5)), r"get_submodule\('1'\), 'bias'\)"),
        (nn.Sequential(nn.GELU(), computed(nn.BatchNorm1d(8), "weight"), Classic(0.5)), r"'1'\), 'weight'\)"),
        (computed_in_attention(), r"get_submodule\('attention\.out_proj'\), 'weight'\)"),
    ],
    ids=["weight", "bias", "batch norm", "attention"],
)
def test_a_layer_whose_tensors_are_computed_is_refused_with_the_remedy(model: nn.Module, remedy: str) -> None:
    for change in (fold, lambda model, x: convert(model, "inverted", x)):
        with pytest.raises(ValueError, match=rf"no weight can .*; torch\.nn\..*remove_parametrizations.*{remedy}"):
            change(model, torch.randn(3, 8))
