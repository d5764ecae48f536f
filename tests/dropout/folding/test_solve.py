"""Laws of the solution: exact fractions that bring the new factors into the weights, or a refusal."""

from fractions import Fraction

import pytest
import torch
from foldable import Classic, linear
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dropout_lab.dropout.folding.fold import fold
from dropout_lab.dropout.folding.solve import Change, apply, require_same_outputs, solve


def test_dropout_inside_an_opaque_module_is_refused() -> None:
    model = nn.Sequential(nn.TransformerEncoderLayer(8, 2, 8))
    model[0].dropout1 = Classic(0.5)
    with pytest.raises(ValueError, match=r"'0.dropout1' \(p=0.5\) is inside TransformerEncoderLayer 0"):
        fold(model, torch.randn(3, 2, 8))


def test_what_the_graph_does_not_show_is_noticed_on_the_example() -> None:
    model = nn.Sequential(linear(), Classic(0.5), nn.ReLU(), linear())
    model[2].register_forward_hook(lambda module, args, output: output + 1)
    with pytest.raises(RuntimeError, match="changed the output on example_input"):
        fold(model, torch.randn(3, 8))


RATES = st.sampled_from([0.1, 0.25, 0.5, 0.75])


def chain(rates: list[float]) -> nn.Sequential:
    """Linear layers with classic dropout and a ReLU behind each but the last."""
    hidden = [part for p in rates for part in (Classic(p), nn.ReLU(), linear())]
    return nn.Sequential(linear(), *hidden)


@settings(max_examples=20)
@given(st.lists(RATES, min_size=1, max_size=5))
def test_each_weight_of_a_chain_takes_the_exact_factor_of_the_layer_before_it(rates: list[float]) -> None:
    model = chain(rates)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    changes = solve(model, lambda layer: 1 / (1 - Fraction(layer.p)), training=True)
    expected = {f"{3 * n + 3}.weight": Change(1 - Fraction(p)) for n, p in enumerate(rates)}
    assert changes == expected
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_factors_of_one_change_nothing() -> None:
    assert solve(chain([0.5, 0.3]), lambda layer: Fraction(1), training=False) == {}


@settings(max_examples=20)
@given(st.fractions(1, 10, max_denominator=100), st.floats(0, 2))
def test_a_change_is_by_the_factor_of_what_is_over_the_offset(factor: Fraction, offset: float) -> None:
    model = linear().double()
    before = model.bias.detach().clone()
    apply(model, {"bias": Change(factor, offset)})
    torch.testing.assert_close(model.bias.detach(), (before + offset) * float(factor) - offset)


def test_outputs_that_differ_by_rounding_are_the_same() -> None:
    x = torch.tensor([1.0, 2.0])
    require_same_outputs([x], [x + 1e-6])
    with pytest.raises(RuntimeError, match=r"by 0\.125 of 2"):
        require_same_outputs([x], [x + 0.125])


def test_outputs_that_are_no_numbers_are_the_same_only_where_both_are() -> None:
    x = torch.tensor([1.0, float("nan"), float("-inf")])
    require_same_outputs([x], [x.clone()])
    for place in range(3):
        other = x.clone()
        other[place] = 2.0 if place else float("nan")
        with pytest.raises(RuntimeError, match="changed the output on example_input"):
            require_same_outputs([x], [other])
