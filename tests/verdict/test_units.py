"""Filters and correlations of units, on networks whose weights the test chooses."""

import numpy as np
import pytest
import torch
from chosen_networks import linear, network_of
from torch import nn

from dropout_lab.dropout import Dropout, none
from dropout_lab.verdict.units import filters, unit_correlation


@pytest.mark.parametrize("first", ["linear", "convolution"])
def test_a_filter_is_the_image_that_moves_its_unit_most(first):
    shape = (3, 4, 5)
    layer = nn.Conv2d(3, 7, (4, 5)) if first == "convolution" else nn.Sequential(nn.Flatten(), nn.Linear(60, 7))
    one = network_of(nn.BatchNorm2d(3), layer, none(), nn.Linear(7, 2), images=torch.zeros(1, *shape))
    images = torch.as_tensor(filters(one)).movedim(-1, 1)
    assert images.shape == (7, *shape)
    moved = (layer(images) - layer(torch.zeros(1, *shape))).reshape(7, 7)
    assert moved.diag().tolist() == pytest.approx(images.square().sum((1, 2, 3)).tolist(), rel=1e-5)


def test_correlation_is_the_mean_over_pairs_of_units_that_vary():
    a, b = torch.tensor([1.0, 2, 3, 4]), torch.tensor([1.0, -1, -1, 1])  # uncorrelated
    one = network_of(Dropout(0.5), images=torch.stack([a, -2 * a, b, torch.full((4,), 7.0)], dim=1))
    assert unit_correlation(one, "a") == pytest.approx(1 / 3)  # |-1|, 0 and 0


def test_correlation_is_that_of_the_layer_that_was_named():
    x = torch.tensor([[1.0, 1], [2, -1], [3, -1], [4, 1]])
    one = network_of(Dropout(0.5), linear([[1, 0], [1, 0]]), Dropout(0.5), images=x)
    assert unit_correlation(one, "a") == pytest.approx(0, abs=1e-6)
    assert unit_correlation(one, "b") == pytest.approx(1)


def test_correlation_of_maps_is_over_images_and_positions():
    x = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    expected = np.corrcoef(x[:, 0].flatten(), x[:, 1].flatten())[0, 1]
    assert unit_correlation(network_of(none(), images=x), "a") == pytest.approx(abs(expected), rel=1e-5)
