"""Laws of frozen networks: they answer as in evaluation, and a module that has one is none the wiser."""

import torch
from torch import nn

from dropout_lab.modules.frozen import Frozen


def net():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))


def test_it_answers_as_in_evaluation_whatever_is_done_to_the_module_that_has_it():
    class Owner(nn.Module):
        def __init__(self):
            super().__init__()
            self.own, self.asked = nn.Linear(3, 3), Frozen(trained)

    trained, x = net(), torch.randn(5, 3, requires_grad=True)
    before = {key: value.clone() for key, value in trained.state_dict().items()}
    owner, drawn = Owner().train(), torch.get_rng_state()
    out = owner.asked(x)
    assert torch.equal(out, owner.asked(x))
    assert not out.requires_grad
    assert torch.equal(torch.get_rng_state(), drawn)
    assert {*owner.state_dict()} == {"own.weight", "own.bias"} == {name for name, _ in owner.named_parameters()}
    assert all(torch.equal(value, before[key]) for key, value in trained.state_dict().items())


def test_it_computes_in_the_precision_of_its_input_and_takes_tokens():
    assert Frozen(net())(torch.randn(5, 3).double()).dtype == torch.float64
    assert Frozen(nn.Embedding(7, 2))(torch.tensor([3])).shape == (1, 2)
