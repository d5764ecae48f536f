"""Laws of wide residual nets: the sizes of the paper, what a block computes, where dropout is."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dropout_lab.dropout import Dropout, Placement, install
from dropout_lab.models.wide_resnet import Block, WideResNet


def test_wrn_28_10_has_the_parameters_of_the_paper():
    """WRN-28-10 has 36.5 million parameters in its tables."""
    with torch.device("meta"):
        net = WideResNet((3, 32, 32), 10)
    assert sum(parameter.numel() for parameter in net.parameters()) == 36_479_194


@pytest.mark.parametrize(("depth", "blocks"), [(10, 3), (16, 6), (28, 12)])
def test_the_depth_counts_all_convolutions(depth, blocks):
    net = WideResNet((3, 8, 8), 5, depth=depth, width=1)
    assert len(net.groups) == blocks
    net = WideResNet((3, 8, 8), 5, depth=depth, width=2)  # at width 1 the first group needs no shortcut
    assert sum(isinstance(module, nn.Conv2d) for module in net.modules()) == depth


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 9, 13), (2, 4, 4)])
def test_images_of_any_shape_become_one_logit_a_class(shape):
    net = WideResNet(shape, 7, depth=10, width=1)
    images = torch.randn(3, *shape)
    assert net(images).shape == (3, 7)
    assert net.groups(net.conv(images)).shape[2:] == tuple(-(-side // 4) for side in shape[1:])


@pytest.mark.parametrize(("before", "after", "stride"), [(4, 4, 1), (4, 6, 1), (4, 6, 2)])
def test_a_block_is_activation_before_convolution_twice_plus_the_input(before, after, stride):
    block, x = Block(before, after, stride).eval(), torch.randn(2, before, 8, 8)
    with torch.no_grad():
        for norm in (block.norm1, block.norm2):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
        first = F.relu(block.norm1(x))
        second = F.relu(block.norm2(F.conv2d(first, block.conv1.weight, stride=stride, padding=1)))
        skip = x if block.shortcut is None else F.conv2d(first, block.shortcut.weight, stride=stride)
        expected = skip + F.conv2d(second, block.conv2.weight, padding=1)
        torch.testing.assert_close(block(x), expected)
    assert (block.shortcut is None) == ((before, stride) == (after, 1))


def test_dropout_is_between_the_convolutions_of_each_block_behind_the_relu():
    """Dropout of section 2.4 of the paper; no BatchNorm reads it directly."""
    net = WideResNet((3, 8, 8), 5, depth=10, width=1)
    installed = install(net, Dropout, Placement(p=0.3))
    assert [site.site for site in installed] == [f"groups.{number}.dropout" for number in range(3)]
    order = [name for name, _ in net.groups[0].named_children() if name != "shortcut"]
    assert order == ["norm1", "relu1", "conv1", "norm2", "relu2", "dropout", "conv2"]


@pytest.mark.parametrize("depth", [4, 12, 27, 16.0, "16"])
def test_another_depth_is_refused(depth):
    with pytest.raises(ValueError, match=rf"model.depth={depth}: must be 6n \+ 4"):
        WideResNet((3, 32, 32), 10, depth=depth)


@pytest.mark.parametrize("width", [0, 1.5, "wide", True, None])
def test_a_width_that_is_none_is_refused(width):
    with pytest.raises(ValueError, match=f"^model.width={width}: must be an integer >= 1$"):
        WideResNet((3, 32, 32), 10, depth=10, width=width)


def test_an_image_too_small_to_be_halved_twice_is_refused():
    with pytest.raises(ValueError, match="too often for 3x8 pixels"):
        WideResNet((3, 3, 8), 10)
