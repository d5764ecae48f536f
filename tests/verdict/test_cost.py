"""What is timed, on networks whose layers the test chooses, and how it is timed."""

import time

import pytest
import torch
from small_networks import dense
from torch import nn

from dropout_lab.dropout import Dropout
from dropout_lab.verdict import cost as subject
from dropout_lab.verdict.cost import ratios


def network(**axes):
    torch.manual_seed(0)
    return dense(Dropout(0.5, **axes), hidden=6, outputs=3).eval()


@pytest.fixture
def timed(monkeypatch):
    """The networks that are timed, instead of timing them."""
    seen = {}

    def ratios(candidates, rounds, calls):
        seen.update({name: call.func for name, call in candidates.items()})
        return dict.fromkeys(candidates, (0.0, 1.25))

    monkeypatch.setattr(subject, "ratios", ratios)
    return seen


def test_the_yardstick_has_no_dropout_layers_and_the_same_weights(timed):
    net = network(scaling="classic")
    assert subject.eval_cost(net, torch.randn(5, 4), "kept") == 1.25
    without, kept = timed.values()
    assert [type(layer) for layer in without] == [nn.Linear, nn.ReLU, nn.Linear]
    assert [type(layer) for layer in kept] == [type(layer) for layer in net]
    assert torch.equal(without[2].weight, net[3].weight)


def test_folded_is_the_network_with_its_layers_in_its_weights(timed):
    net, x = network(scaling="classic"), torch.randn(5, 4)
    subject.eval_cost(net, x, "folded")
    assert not any(isinstance(layer, Dropout) for layer in timed["folded"].modules())
    assert torch.allclose(timed["folded"](x), net(x))
    assert not torch.allclose(timed["without"](x), net(x))


def test_the_control_is_the_yardstick_again(timed):
    subject.eval_cost(network(), torch.randn(5, 4), "control")
    assert str(timed["control"]) == str(timed["without"])
    assert timed["control"] is not timed["without"]


def test_a_layer_that_a_forward_calls_by_name_leaves_an_identity():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.dropout = Dropout(0.5, scaling="classic")

        def forward(self, x):
            return self.dropout(x)

    without = subject.without_layers(Named())
    assert isinstance(without.dropout, nn.Identity)
    assert without(torch.ones(1)) == 1


def test_work_of_a_layer_is_seen():
    class Slow(Dropout):
        def forward(self, x):
            for _ in range(20):
                x = x * 1.0
            return x

    net = nn.Sequential(nn.Linear(4, 6), Slow(0.5), nn.Linear(6, 3)).eval()
    assert subject.eval_cost(net, torch.randn(5, 4), "kept") > 1.3


def work(times):
    for _ in range(times * 20_000):
        pass


def test_the_ratio_is_that_of_the_work():
    found = ratios({"one": lambda: work(1), "again": lambda: work(1), "two": lambda: work(2)}, rounds=21)
    assert [ratio for _, ratio in found.values()] == pytest.approx([1, 1, 2], rel=0.15)
    assert found["two"][0] > found["one"][0] > 0


def test_waiting_is_no_work():
    found = ratios({"work": lambda: work(1), "wait": lambda: time.sleep(0.002)}, rounds=5)
    assert found["wait"][1] < 0.5


def test_candidates_take_turns_at_coming_first():
    called = []
    ratios({name: lambda name=name: called.append(name) for name in "ab"}, rounds=4)
    assert called[4:] == [*"ba", *"ab", *"ba", *"ab"]  # behind two to warm up each


def test_the_number_of_threads_is_as_it_was(monkeypatch):
    set_to = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    ratios({"one": lambda: None}, rounds=1)
    assert set_to == [1, 3]
