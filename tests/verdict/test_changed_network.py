"""Copies that are changed after training, and by how much their logits move."""

import pytest
import torch
import torchvision
from chosen_networks import classic_and_inverted, linear, network_of, one_hidden_layer
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import nn

from dropout_lab.dropout import Dropout, Placement, install
from dropout_lab.verdict.changed_network import fine_tuned, with_new_statistics, with_other_scaling
from dropout_lab.verdict.network_metrics import MEASURES
from dropout_lab.verdict.trained_network import TrainedNetwork


def test_new_statistics_are_those_of_the_training_part_with_dropout_off():
    torch.manual_seed(0)
    one = network_of(Dropout(0.5), nn.BatchNorm1d(2), images=torch.randn(50, 2) * 3 + 1)
    norm = with_new_statistics(one)[1]
    assert torch.allclose(norm.running_mean, one.images.mean(0))
    assert torch.allclose(norm.running_var, one.images.var(0))
    assert not norm.training
    assert torch.equal(one.net[1].running_mean, torch.zeros(2))  # the network is as it was


def test_what_new_statistics_change_is_a_difference():
    """Shifted by its mean of 5, class 1 is right for the larger half of the images; before, for all."""
    x = torch.tensor([[4.0], [6.0]])
    one = network_of(nn.BatchNorm1d(1), linear([[0], [1]]), images=x, classes=torch.ones(2).long())
    assert MEASURES["new_statistics/acc"](one, "") == -0.5
    assert MEASURES["new_statistics/loss"](one, "") > 0


def test_a_network_that_is_folded_or_converted_moves_by_rounding_only():
    for one in classic_and_inverted():
        assert MEASURES["moved/fold"](one, "") < 1e-6
        assert MEASURES["moved/convert"](one, "") < 1e-6
        other = with_other_scaling(one.net, one.images)
        assert {layer.scaling for layer in (*one.net, *other) if isinstance(layer, Dropout)} == {"classic", "inverted"}


def test_what_moves_is_relative_to_the_largest_logit():
    """The logits -2 p and 3 p change with p of classic dropout from -1 and 1.5 to -1.8 and 2.7."""
    one = network_of(Dropout(0.5, scaling="classic"), linear([[-2], [3]]), images=torch.ones(1, 1))
    assert MEASURES["moved/rate"](one, "0.1") == pytest.approx(1.2 / 1.5)


def test_another_p_moves_classic_networks_only():
    classic, inverted = classic_and_inverted()
    assert MEASURES["moved/rate"](inverted, "0.1") == 0
    assert MEASURES["moved/rate"](classic, "0.1") > 0.01


def test_fine_tuning_trains_a_copy_with_the_new_p():
    one = one_hidden_layer()
    before = {name: value.clone() for name, value in one.net.state_dict().items()}
    tuned = fine_tuned(one, 0.1)
    assert (tuned[2].p, tuned.training) == (0.1, False)
    assert MEASURES["fine_tuned/loss"](one, "0.1") < 0  # on what it was trained on
    assert all(torch.equal(value, before[name]) for name, value in one.net.state_dict().items())
    assert torch.equal(tuned[0].weight, fine_tuned(one, 0.1)[0].weight)


@pytest.mark.slow
def test_an_untrained_vgg16_looking_at_a_photo_moves_by_rounding_when_folded_or_converted():
    """No weights of VGG-16 are at hand: its own initialisation, 224 x 224 pixels, float32, the head's two layers."""
    preset = torchvision.models.VGG16_Weights.IMAGENET1K_V1.transforms()
    photo = preset(Image.fromarray(load_sample_image("china.jpg")))[None]
    torch.manual_seed(0)
    net = torchvision.models.vgg16(num_classes=10)
    for layer in (net.classifier[0], net.classifier[3], net.classifier[6]):
        torch.nn.init.kaiming_uniform_(layer.weight)  # its own is so small that logits are biases only
    install(net, lambda p: Dropout(p, scaling="classic"), Placement("existing", p=0.3))
    one = TrainedNetwork(net.eval(), photo, torch.zeros(1).long(), photo, torch.zeros(1).long(), seed=0)
    moved = {name: MEASURES[f"moved/{name}"](one, "") for name in ("fold", "convert")}
    assert max(moved.values()) < 1e-5, moved
    assert MEASURES["moved/rate"](one, "0.1") > 0.1
