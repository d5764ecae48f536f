"""Laws of the hooks of a meter: each call counts once, in its own row, as it was; an idle hook costs nothing."""

import copy
import pickle
import sys

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from watching import around, feed, watched

from dropout_lab.activations import Meter, Tap


def test_an_in_place_op_behind_a_layer_does_not_reach_its_output():
    linear = nn.Linear(20, 20)
    model = nn.Sequential(linear, nn.ReLU(inplace=True))
    x = torch.randn(30, 20)
    meter = watched(linear)
    feed(meter, model, [x])
    assert meter.flush().stats("train")["m0"].mean == pytest.approx(linear(x).mean().item(), rel=1e-5)


def test_the_input_is_seen_before_an_in_place_layer_changes_it():
    layer = nn.Dropout(0.5, inplace=True)
    meter = around(layer)
    feed(meter, layer, [torch.ones(100, 100)])
    stats = meter.flush().stats("train")
    assert stats["drop_in"].zeros == 0
    assert 0.45 < stats["drop"].zeros < 0.55


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_counts_a_call_once(reentrant):
    block = nn.Sequential(nn.Linear(10, 10), nn.ReLU(), nn.Dropout(0.5))
    meter = Meter([Tap("in", block[2], "input"), Tap("out", block[2])])
    meter.attach()
    meter.start("train")
    checkpoint(block, torch.randn(4, 10, requires_grad=True), use_reentrant=reentrant).sum().backward()
    meter.stop()
    assert [one.count for one in meter.flush().stats("train").values()] == [40, 40]


class Reused(nn.Module):
    def __init__(self):
        super().__init__()
        self.narrow, self.wide, self.relu = nn.Linear(5, 5), nn.Linear(5, 7), nn.ReLU()

    def forward(self, x):
        return self.relu(self.wide(self.relu(self.narrow(x))))


def test_each_call_of_a_reused_module_has_its_own_row():
    model = Reused()
    meter = Meter([Tap("relu", model.relu, call=0), Tap("relu_call2", model.relu, call=1)])
    meter.attach()
    meter.start("train")
    model(torch.randn(3, 5))
    model(torch.randn(3, 5))  # a second pass within one step
    meter.stop()
    assert {name: one.count for name, one in meter.flush().stats("train").items()} == {"relu": 30, "relu_call2": 42}


def test_a_forward_that_broke_off_does_not_shift_the_next_one():
    model = Reused()
    meter = Meter([Tap("relu", model.relu, call=0), Tap("relu_call2", model.relu, call=1)])
    meter.attach()
    meter.start("train")
    model.relu(model.narrow(torch.randn(3, 5)))
    meter.stop()
    feed(meter, model, [torch.randn(3, 5)])
    assert {name: one.count for name, one in meter.flush().stats("train").items()} == {"relu": 30, "relu_call2": 21}


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_of_a_watched_model_is_not_watched(copied):
    layer = nn.Dropout(0.5)
    meter = around(layer)
    twin = copied(layer)
    meter.start("train")
    twin(torch.ones(3, 3))
    meter.stop()
    assert meter.flush().stats("train")["drop"].count == 0
    assert not isinstance(next(iter(twin._forward_hooks.values())).__self__.meter, Meter)  # and carries none along


def test_an_idle_hook_calls_nothing():
    """What it costs is measured by scripts/bench/activations.py; this is why it costs so little."""

    def calls():
        seen = []
        sys.setprofile(lambda frame, event, argument: seen.append((event, frame.f_code)))
        try:
            layer(x)
        finally:
            sys.setprofile(None)
        return [code for event, code in seen if event in ("call", "c_call")]

    def nothing(module, args, output):
        pass

    layer, x = nn.Identity(), torch.randn(1)
    handle = layer.register_forward_hook(nothing)
    with_nothing = len(calls())
    handle.remove()
    meter = watched(layer)
    assert len(calls()) == with_nothing
    with meter.record():
        assert len(calls()) > with_nothing
    meter.detach()
