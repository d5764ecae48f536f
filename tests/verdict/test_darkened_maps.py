"""What many images lose to dark maps, in networks whose weights the test chooses."""

import pytest
import torch
from torch import nn

from dropout_lab.cli import UserError
from dropout_lab.dropout import Dropout, none
from dropout_lab.verdict import darkened_maps as subject
from dropout_lab.verdict.darkened_maps import BATCH, DRAWS, IMAGES, compare_with_darkened


def votes(channels, bias=0.0, dropout=none):
    """Lit by an image of ones, each of so many channels votes for class 1; class 0 has a bias."""
    conv, head = nn.Conv2d(1, channels, 1, bias=False), nn.Linear(channels, 2)
    nn.init.ones_(conv.weight)
    head.weight.data = torch.stack([torch.zeros(channels), torch.full((channels,), 1 / channels)])
    head.bias.data = torch.tensor([bias, 0.0])
    net = nn.Sequential(conv, nn.ReLU(), dropout(0.5), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
    return net.eval()


def ones(count=100, size=4):
    return torch.ones(count, 1, size, size)


@pytest.mark.parametrize("way", ["rescaled", "unscaled", "whole_maps"])
@pytest.mark.parametrize("p", [0.2, 0.5])
def test_the_fraction_p_of_what_is_lit_goes_dark(way, p):
    found = compare_with_darkened(votes(8), ones(), way, p, seed=0)
    assert found.dark == pytest.approx(p, abs=0.02)


def test_what_was_dark_before_does_not_count():
    x = ones()
    x[:, :, :, :2] = 0
    assert compare_with_darkened(votes(8), x, "rescaled", 0.2, seed=0).dark == pytest.approx(0.2, abs=0.02)


def test_without_rescaling_the_votes_fall_below_the_bias():
    """Half of 1 is below 0.7; rescaled it is 1 again, give or take; with one map of two gone it is 0 or 2 at times."""
    net = votes(64, bias=0.7)
    assert compare_with_darkened(net, ones(), "rescaled", 0.5, seed=0).same_class > 0.99
    assert compare_with_darkened(net, ones(), "unscaled", 0.5, seed=0).same_class < 0.01


def test_one_map_that_is_dark_takes_the_class_with_it():
    net = votes(1, bias=0.5)
    whole = compare_with_darkened(net, ones(), "whole_maps", 0.25, seed=0)
    assert whole.same_class == pytest.approx(0.75, abs=0.05)
    assert compare_with_darkened(net, ones(), "rescaled", 0.25, seed=0).same_class > whole.same_class + 0.1


def test_the_probability_is_that_of_the_class_without_dropout():
    """Logits (0.5, 2) where the map is lit, and (0.5, 0) where it is dark."""
    found = compare_with_darkened(votes(1, bias=0.5), ones(200), "whole_maps", 0.5, seed=0)
    lit, dark = (torch.tensor([0.5, logit]).softmax(0)[1] for logit in (2.0, 0.0))
    share = found.same_class
    assert found.probability == pytest.approx(float(share * lit + (1 - share) * dark), abs=1e-5)


def test_layers_off_the_maps_are_left_alone():
    net = votes(64, bias=0.5)
    net.insert(5, Dropout(0.5).eval())  # behind the flattening
    assert compare_with_darkened(net, ones(), "rescaled", 0.9, seed=0).same_class > 0.99


def test_masks_differ_from_image_to_image_and_draw_to_draw(monkeypatch):
    drawn = []
    monkeypatch.setattr(subject, "mask_keys", lambda *key: drawn.append(key) or torch.no_grad())
    compare_with_darkened(votes(2), ones(BATCH + 10), "rescaled", 0.5, seed=7)
    assert [(seed, draw) for seed, draw, _ in drawn] == 2 * [(7, draw) for draw in range(DRAWS)]
    assert [rows for *_, rows in drawn[::DRAWS]] == [range(BATCH), range(BATCH, BATCH + 10)]
    drawn.clear()
    compare_with_darkened(votes(2), ones(IMAGES + 10), "rescaled", 0.5, seed=7)
    assert drawn[-1][2] == range(IMAGES - BATCH, IMAGES)


def test_the_network_is_as_it_was():
    net, x = votes(4), ones()
    before = net(x)
    compare_with_darkened(net, x, "unscaled", 0.5, seed=0)
    assert torch.equal(net(x), before)


def test_a_network_without_maps_is_refused():
    with pytest.raises(UserError, match="has no feature maps"):
        compare_with_darkened(
            nn.Sequential(nn.Linear(3, 4), Dropout(0.5), nn.Linear(4, 2)).eval(), torch.randn(5, 3), "rescaled", 0.5, 0
        )
