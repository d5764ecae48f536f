"""What is lost with units and by noise, on networks whose weights the test chooses."""

import pytest
import torch
from chosen_networks import linear, network_of
from torch import nn

from dropout_lab.dropout import none
from dropout_lab.verdict.network_metrics import MEASURES
from dropout_lab.verdict.robustness import REPEATS, accuracy_without_units


def test_exactly_the_fraction_of_units_is_gone_and_the_rest_is_as_it_was():
    seen = []
    one = network_of(none(0.5), images=torch.ones(2, 8))
    one.net.append(nn.Identity()).register_forward_hook(lambda _, args, out: seen.append(out))
    accuracy_without_units(one, 0.25)
    assert len(seen) == REPEATS
    for out in seen:  # not rescaled, and the same units for both images
        assert sorted(out[0].tolist()) == [0, 0, *6 * [1]]
        assert torch.equal(out[0], out[1])
    assert len({tuple(out[0].tolist()) for out in seen}) > 1
    assert torch.equal(one.net(one.images), one.images)  # and all are back


def test_channels_are_removed_whole():
    seen = []
    one = network_of(none(0.5), images=torch.ones(1, 4, 3, 3))
    one.net.append(nn.Identity()).append(nn.Flatten()).register_forward_hook(lambda _, args, out: seen.append(out))
    accuracy_without_units(one, 0.5)
    assert all(out.view(4, 9).sum(1).sort().values.tolist() == [0, 0, 9, 9] for out in seen)


def test_accuracy_is_lost_with_the_units_that_it_hangs_on():
    x = torch.ones(4, 10)
    hangs_on_one = network_of(
        none(), linear([10 * [0.0], [1] + 9 * [0.0]], [0.5, 0]), images=x, classes=torch.ones(4).long()
    )
    hangs_on_any = network_of(
        none(), linear([10 * [0.0], 10 * [1.0]], [0.5, 0]), images=x, classes=torch.ones(4).long()
    )
    lost = MEASURES["accuracy_lost/units"]
    assert lost(hangs_on_one, "0.5") == pytest.approx(0.5, abs=0.31)
    assert lost(hangs_on_any, "0.5") == 0
    assert lost(hangs_on_any, "1") == 1


def test_noise_has_the_standard_deviation_that_was_asked_for():
    """Class 1 where the pixel is above 2: of N(0, 2), 15.9 % are."""
    one = network_of(linear([[0], [1]], [2, 0]), images=torch.zeros(4000, 1))
    assert MEASURES["accuracy_lost/noise"](one, "2") == pytest.approx(0.1587, abs=0.01)
    assert MEASURES["accuracy_lost/noise"](one, "0") == 0
