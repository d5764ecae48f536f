"""Laws of the caveats: a line for each reason to doubt a number, and none where all is well."""

import pytest
import torch
from torch import nn
from watching import around, feed, watched

from dropout_lab.activations import Tap
from dropout_lab.activations.caveats import caveats, switched_off
from dropout_lab.dropout import Dropout


def doubts(meter, model):
    return list(caveats(meter, meter.flush(), model))


def test_numbers_that_can_be_trusted_have_no_caveat():
    model = nn.Sequential(nn.Identity(), nn.Identity())
    meter = watched(*model)
    assert doubts(meter, model) == []  # nor where nothing has passed
    feed(meter, model, [torch.randn(4, 3)])
    assert doubts(meter, model) == []


def test_a_spread_that_is_lost_in_a_large_mean_is_named():
    model = nn.Sequential(nn.Identity())
    meter = watched(*model)
    feed(meter, model, [1e6 + torch.randn(4, 3)])
    assert doubts(meter, model) == ["the std of m0 is not reliable: the mean is over 100 times larger"]


def test_tensors_that_are_not_counted_are_named():
    model = nn.Sequential(nn.Identity())
    meter = watched(*model)
    feed(meter, model, [torch.arange(3)])
    assert "m0: not a floating-point tensor, not counted" in doubts(meter, model)


def test_layers_whose_hooks_never_ran_are_named_where_the_model_was_compiled():
    model, beside = nn.Sequential(nn.Identity()), nn.Identity()
    model.compile(backend="eager")
    meter = watched(model[0], beside)
    feed(meter, beside, [torch.randn(4, 3)])
    (line,) = doubts(meter, nn.ModuleList([model, beside]))
    assert line.startswith("train batches passed and no hook ran at m0: the model was compiled")


@pytest.mark.parametrize(
    ("layer", "off"),
    [
        (Dropout(0.5).eval(), True),
        (nn.Dropout(0.5).eval(), True),
        (Dropout(0.5), False),
        (Dropout(0.0).eval(), False),
        (nn.ReLU().eval(), False),
    ],
)
def test_a_layer_that_would_drop_something_and_is_in_eval_mode_is_off(layer, off):
    meter = around(layer)
    assert switched_off(meter.taps) == ["drop"] * off


def test_a_layer_in_monte_carlo_mode_is_on():
    layer = Dropout(0.5).eval()
    layer.monte_carlo = True
    assert switched_off([Tap("drop", layer)]) == []
