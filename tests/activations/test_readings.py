"""Laws of readings: gains are the fingerprints of strategies, errors are spreads, what means nothing is NaN."""

import numpy as np
import pytest
import torch
from torch import nn
from watching import around, feed, gain_meter, watched

from dropout_lab.dropout import Dropout


def test_a_variance_that_cannot_be_trusted_is_flagged():
    layers = nn.ModuleList([nn.Identity(), nn.Identity(), nn.Identity()])
    meter = watched(*layers)
    meter.start("eval")
    for layer, mean in zip(layers, (0.0, 50.0, 1000.0), strict=True):
        layer(torch.randn(20, 100) + mean)
    meter.stop()
    assert [one.reliable for one in meter.flush().stats("eval").values()] == [True, True, False]


Q = 0.25


FINGERPRINTS = {
    "inverted": (Dropout(1 - Q), 1, 1),
    "classic": (Dropout(1 - Q, scaling="classic"), Q, Q),
    "unscaled": (Dropout(1 - Q, scaling="unscaled"), Q, 1),
    "spatial": (Dropout(1 - Q, mask="channel"), 1, 1),
    "sample": (Dropout(1 - Q, mask="sample"), 1, 1),
    "none": (Dropout(0), 1, 1),
    "native": (nn.Dropout(1 - Q), 1, 1),
    "native2d": (nn.Dropout2d(1 - Q), 1, 1),
}


@pytest.mark.parametrize(("layer", "train", "eval_"), FINGERPRINTS.values(), ids=FINGERPRINTS)
def test_the_gain_is_the_fingerprint_of_the_strategy(layer, train, eval_):
    torch.manual_seed(1)
    meter = gain_meter(layer)
    batches = [torch.randn(50, 6, 5, 5).relu() for _ in range(4)]
    feed(meter, layer.train(), batches, "train")
    feed(meter, layer.eval(), batches, "eval")
    readings = meter.flush()
    meter.detach()
    gain = readings.gains("train")["drop"]
    assert abs(gain.value - train) <= 4 * gain.se + 1e-6
    assert gain.se < 0.13  # the test has power: the fingerprints are 0.75 apart
    assert readings.gains("eval")["drop"].value == pytest.approx(eval_, rel=1e-6)


@pytest.mark.parametrize("kind", ["inverted", "spatial", "sample", "native2d"])
def test_the_standard_error_of_the_gain_is_its_spread(kind):
    torch.manual_seed(2)
    layer = FINGERPRINTS[kind][0].train()
    meter = gain_meter(layer)
    x = torch.randn(40, 6, 5, 5).relu()
    gains = []
    for _ in range(400):
        feed(meter, layer, [x])
        gains.append(meter.flush().gains("train")["drop"])
    meter.detach()
    values, errors = np.array([(gain.value, gain.se) for gain in gains]).T
    # z scores have variance 1; over 400 repetitions its own standard error is 0.07 (more where z is heavy-tailed)
    assert np.var((values - 1) / errors) == pytest.approx(1, abs=0.3)
    assert values.std() == pytest.approx(np.sqrt((errors**2).mean()), rel=0.15)


def test_dropped_maps_are_independent_also_within_one_sample():
    torch.manual_seed(4)
    layer = Dropout(0.5, mask="channel")
    meter = gain_meter(layer)
    feed(meter, layer, [torch.ones(1, 400, 3, 3)])
    gain = meter.flush().gains("train")["drop"]
    assert gain.se == pytest.approx(1 / np.sqrt(400), rel=0.2)
    assert abs(gain.value - 1) < 4 * gain.se


def test_the_gain_of_an_input_without_a_mean_is_nan():
    torch.manual_seed(3)
    layer = Dropout(0.5)
    meter = around(layer)
    x = torch.randn(64, 100)
    feed(meter, layer, [x - x.mean()])
    assert np.isnan(meter.flush().gains("train")["drop"].value)
    feed(meter, layer, [x - x.mean() + 1])
    assert meter.flush().gains("train")["drop"].value == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(("mean", "told"), [(0.0, False), (1e-4, False), (1e-3, False), (0.1, True), (1.0, True)])
def test_the_gain_of_a_mean_that_the_masks_noise_hides_is_nan(mean, told):
    """Behind a LayerNorm each sample has the same mean, its bias's: without noise of its own, however small it is."""
    torch.manual_seed(6)
    norm, layer = nn.LayerNorm(32), Dropout(0.5)
    nn.init.constant_(norm.bias, mean)
    meter = around(layer)
    feed(meter, layer, [norm(torch.randn(64, 17, 32)).detach()])
    gain = meter.flush().gains("train")["drop"]
    assert np.isfinite(gain.value) == told
    assert not told or abs(gain.value - 1) < 4 * gain.se


def test_where_no_mask_is_drawn_the_gain_of_a_small_mean_is_exact():
    torch.manual_seed(8)
    layer = Dropout(0.5, scaling="classic").eval()
    meter = around(layer)
    feed(meter, layer, [(nn.LayerNorm(32)(torch.randn(64, 17, 32)) + 1e-4).detach()], "eval")
    assert meter.flush().gains("eval")["drop"] == pytest.approx((0.5, 0), abs=1e-6)


def test_a_gain_near_zero_with_a_small_error_is_kept():
    torch.manual_seed(7)
    layer = Dropout(0.99, scaling="unscaled")
    meter = around(layer)
    feed(meter, layer, [torch.randn(64, 16).relu()])
    gain = meter.flush().gains("train")["drop"]
    assert abs(gain.value - 0.01) < 4 * gain.se
    assert gain.se < 0.01


@pytest.mark.parametrize("p", [0.1, 0.5, 0.7])
@pytest.mark.parametrize("kind", [{}, {"scaling": "classic"}, {"scaling": "unscaled"}, {"mask": "channel"}])
def test_a_relu_has_a_gain_at_a_batch_of_eight(kind, p):
    layer = Dropout(p, **kind)
    meter = gain_meter(layer)
    for seed in range(20):
        torch.manual_seed(seed)
        feed(meter, layer, [torch.randn(8, 16, 2, 2).relu()])
        assert np.isfinite(meter.flush().gains("train")["drop"]).all()


def test_a_dead_layer_has_no_gain():
    layer = Dropout(0.5)
    meter = around(layer)
    feed(meter, layer, [torch.zeros(8, 4)])
    assert np.isnan(meter.flush().gains("train")["drop"].value)
