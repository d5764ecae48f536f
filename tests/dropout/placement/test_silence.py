"""Laws of silence: functions drop nothing within, and nothing else is changed."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from placed import passes
from torch import Tensor, nn

from dropout_lab.dropout.placement.other_noise import other_noise
from dropout_lab.dropout.placement.silence import is_silent, silence


class Functional(nn.Module):
    """Everything that functions drop, each by itself."""

    def __init__(self, drop: object) -> None:
        super().__init__()
        self.drop, self.weight = drop, nn.Parameter(torch.eye(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self, x)


def drop(self: nn.Module, x: Tensor) -> Tensor:
    return F.dropout(x, 0.5, self.training)


def attend(self: nn.Module, x: Tensor) -> Tensor:
    w, b = torch.cat([self.weight] * 3), torch.zeros(12)
    return F.multi_head_attention_forward(
        x, x, x, 4, 2, w, b, None, None, False, out_proj_weight=self.weight, out_proj_bias=b[:4], dropout_p=0.5
    )[0]


DROPS = [
    drop,
    lambda self, x: F.dropout(input=x),  # in evaluation, too
    lambda self, x: F.alpha_dropout(x, training=True),
    lambda self, x: F.dropout1d(x, 0.5, True),
    lambda self, x: F.feature_alpha_dropout(x, 0.5, True),
    lambda self, x: torch.dropout(x, 0.5, True),
    lambda self, x: F.scaled_dot_product_attention(x, x, x, None, 0.5),
    lambda self, x: F.scaled_dot_product_attention(x, x, value=x, dropout_p=0.5),
    attend,
    lambda self, x: F.rrelu(x, training=self.training),
]


@pytest.mark.parametrize("function", DROPS)
@pytest.mark.parametrize("traced", [True, False])
def test_a_function_drops_nothing_within_a_silent_module(function: object, traced: bool) -> None:
    body = Functional(function if traced else lambda self, x: function(self, x) if x.sum() > -1e9 else x)
    model, x = nn.Sequential(body, nn.Linear(4, 4)), torch.randn(3, 5, 4)
    alone = copy.deepcopy(body)
    silence(alone)
    assert is_silent(alone)
    assert other_noise(alone) == []
    assert torch.equal(*passes(alone, x))
    before = [type(module).forward for module in model.modules()]
    silence(model)
    one, other = passes(model, x)
    assert torch.equal(one, other)
    assert torch.isfinite(one).all()
    assert torch.equal(passes(copy.deepcopy(model), x)[0], one)
    assert [type(module).forward for module in model.modules()] == before
    with pytest.raises((RuntimeError, AssertionError)):
        model(x[..., :3])  # an error in the forward pass leaves no mode behind
    assert (F.dropout(torch.ones(999)) == 0).any()


def test_a_silent_model_can_be_pickled_and_compiled() -> None:
    model = nn.Sequential(Functional(drop), nn.Linear(4, 4))
    silence(model)
    x = torch.randn(3, 5, 4)
    assert torch.equal(pickle.loads(pickle.dumps(model))(x), model(x))
    torch.testing.assert_close(torch.compile(model, backend="eager")(x), model(x))
