"""The variance that masks bring about, where theory says what it is."""

import pytest
import torch
from chosen_networks import linear, network_of
from torch import nn

from dropout_lab.dropout import Dropout
from dropout_lab.verdict.mask_variance import gradient_variance, map_mean_variance, shared_masks


@pytest.mark.slow
def test_dropping_maps_moves_their_means_more_by_the_number_of_pixels_that_agree():
    """In constant maps all pixels do; where they are 1 and -1 in turn dropping a whole map does not move its mean."""
    constant = network_of(Dropout(0.5, mask="channel"), images=torch.ones(20, 3, 4, 4))
    assert map_mean_variance(constant) == pytest.approx(16, rel=0.1)
    assert map_mean_variance(constant, "theory") == pytest.approx(1, rel=0.1)
    alternating = torch.tensor([1.0, -1]).repeat(8).view(4, 4).expand(20, 3, 4, 4)
    assert map_mean_variance(network_of(Dropout(0.5), images=alternating)) == 0


def test_the_first_layer_with_maps_is_the_one_whose_means_are_looked_at():
    images = torch.rand(20, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    one = network_of(Dropout(0.5), nn.Flatten(), Dropout(0.5), images=images)
    assert map_mean_variance(one, "theory") == pytest.approx(1, rel=0.1)
    assert 8 < map_mean_variance(one) < 16  # mean(x)^2 / mean(x^2) of uniform numbers is 3/4


@pytest.mark.slow
def test_the_same_masks_are_as_noisy_as_one_sample_s_where_samples_agree():
    """Of equal samples the ratio is the number of ranks; of samples that hang on different units it is 1."""
    torch.manual_seed(0)
    units = torch.eye(64)
    agree = network_of(Dropout(0.5), linear(torch.randn(2, 64)), images=units[:1].expand(64, -1))
    differ = network_of(Dropout(0.5), linear(torch.zeros(2, 64)), images=units)
    assert shared_masks(agree, 4) == pytest.approx(4, rel=0.25)
    assert shared_masks(differ, 4) == pytest.approx(1, rel=0.1)
    assert shared_masks(agree, 1) == 1


def test_gradients_of_masks_have_the_variance_that_theory_says():
    """Logits (0, 0) whatever the mask: the gradient of a weight is m x / q / 2 / 64, and m has variance p q."""
    one = network_of(Dropout(0.2), linear(torch.zeros(2, 1)), images=torch.ones(64, 1))
    variance = gradient_variance(one.net.train(), one, torch.arange(64))
    assert variance == pytest.approx(2 * (0.2 / 0.8) / 4 / 64, rel=0.25)
