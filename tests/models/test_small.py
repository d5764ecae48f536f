"""Laws of the networks written here: shapes, where dropout belongs, what is refused."""

import pytest
import torch
from torch import nn

from dropout_lab.dropout import Dropout, Placement, install
from dropout_lab.models.small import CNN, MLP, ConvNet


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (2, 9, 13), (1, 4, 5)])
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("kind", [CNN, MLP])
def test_images_of_any_shape_become_one_logit_a_class(kind, shape, batch_norm):
    logits = kind(shape, num_classes=7, batch_norm=batch_norm)(torch.randn(5, *shape))
    assert logits.shape == (5, 7)


def test_the_cnn_has_dropout_after_each_pooling_and_in_the_hidden_layer():
    names = [name for name, layer in CNN((1, 8, 8), 10).named_modules() if isinstance(layer, nn.Dropout)]
    assert names == ["blocks.0.dropout", "blocks.1.dropout", "dropout"]
    for block in CNN((1, 8, 8), 10).blocks:
        assert [name for name, _ in block.named_children()] == ["conv", "relu", "pool", "dropout"]


def test_the_papers_convolutional_net_has_its_filters_pools_units_and_dropout():
    """Appendix B.2's net: 96, 128 and 256 filters of 5x5, pools of 3x3, stride 2, 2048 units twice, 5 dropouts."""
    net = ConvNet((3, 32, 32), 10)
    logits, features = net(torch.randn(2, 3, 32, 32)), net.blocks(torch.randn(2, 3, 32, 32))
    assert (logits.shape, features.shape) == ((2, 10), (2, 256, 4, 4))
    shapes = [tuple(weight.shape) for weight in net.parameters() if weight.ndim > 1]
    convolutions = [(96, 3, 5, 5), (128, 96, 5, 5), (256, 128, 5, 5)]
    assert shapes == [*convolutions, (2048, 4096), (2048, 2048), (10, 2048)]
    assert all((block.pool.kernel_size, block.pool.stride) == (3, 2) for block in net.blocks)
    assert len(install(net, Dropout, Placement(p=0.5))) == 5


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 13), (1, 1, 1)])
def test_the_papers_convolutional_net_takes_images_of_any_shape(shape):
    assert ConvNet(shape, 7, widths=(4, 6, 8), hidden=(9,))(torch.randn(5, *shape)).shape == (5, 7)


def test_the_mlp_has_dropout_after_each_activation():
    for layer in MLP((64,), 10, widths=(5, 6, 7)).layers:
        assert [name for name, _ in layer.named_children()] == ["linear", "relu", "dropout"]


@pytest.mark.parametrize("net", [CNN((1, 8, 8), 10, batch_norm=True), MLP((64,), 10, batch_norm=True)])
def test_batch_norm_comes_before_the_activation_and_replaces_the_bias(net):
    layers = [module for module in net.modules() if isinstance(module, nn.Sequential) and hasattr(module, "norm")]
    assert len(layers) == 2
    for layer in layers:
        names = [name for name, _ in layer.named_children()]
        assert names[1:3] == ["norm", "relu"]
        assert layer[0].bias is None


@pytest.mark.parametrize("net", [CNN((1, 8, 8), 10), MLP((1, 8, 8), 10), ConvNet((1, 8, 8), 10, (4, 4), (8,))])
def test_layers_are_called_in_the_order_in_which_they_are_written(net):
    called = []
    for name, module in net.named_modules():
        if not list(module.children()):
            module.register_forward_hook(lambda *_, name=name: called.append(name))
    net(torch.randn(2, 1, 8, 8))
    assert called == [name for name, module in net.named_modules() if not list(module.children())]


def test_the_widths_are_as_asked():
    cnn, mlp = CNN((3, 16, 16), 10, widths=(4, 6, 8), hidden=5), MLP((3, 2), 10, widths=(4, 6))
    assert [(block.conv.in_channels, block.conv.out_channels) for block in cnn.blocks] == [(3, 4), (4, 6), (6, 8)]
    assert (cnn.hidden.in_features, cnn.hidden.out_features) == (8 * 2 * 2, 5)
    assert [(layer.linear.in_features, layer.linear.out_features) for layer in mlp.layers] == [(6, 4), (4, 6)]


def test_an_mlp_without_hidden_layers_is_a_linear_classifier():
    net = MLP((1, 8, 8), 10, widths=())
    assert [type(module) for module in net.modules() if not list(module.children())] == [
        nn.Flatten,
        nn.Sequential,
        nn.Linear,
    ]
    assert net(torch.randn(2, 1, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize(("shape", "fits"), [((1, 4, 4), True), ((1, 3, 8), False), ((1, 8, 3), False)])
def test_an_image_too_small_for_the_poolings_is_refused_with_what_to_change(shape, fits):
    if fits:
        CNN(shape, 10)
        return
    with pytest.raises(ValueError, match=rf"{shape[1]}x{shape[2]} pixels; use a larger data.image_size or fewer"):
        CNN(shape, 10)


@pytest.mark.parametrize("sizes", [3, "32", None, [], [0], [8, -1], [8.0], [True], ["8"]])
def test_sizes_that_are_none_are_refused_by_the_name_of_their_key(sizes):
    for kind in (CNN, ConvNet):
        with pytest.raises(ValueError, match=r"^model\.widths=.*: must be a list of 1 or more integers >= 1"):
            kind((1, 8, 8), 10, widths=sizes)
    if sizes != []:
        with pytest.raises(ValueError, match=r"^model\.widths=.*: must be a list of 0 or more integers >= 1"):
            MLP((1, 8, 8), 10, widths=sizes)
        with pytest.raises(ValueError, match=r"^model\.hidden=.*: must be a list of 0 or more integers >= 1"):
            ConvNet((1, 8, 8), 10, hidden=sizes)
    if sizes != 3:
        with pytest.raises(ValueError, match=r"^model\.hidden=.*: must be an integer >= 1$"):
            CNN((1, 8, 8), 10, hidden=sizes)


@pytest.mark.parametrize("kind", [CNN, MLP])
def test_a_switch_is_true_or_false_as_any_word_would_count_as_true(kind):
    for value in ("no", "false", 0, None):
        with pytest.raises(ValueError, match=f"^model.batch_norm={value}: must be true or false$"):
            kind((1, 8, 8), 10, batch_norm=value)


@pytest.mark.parametrize(("kind", "sites"), [(CNN, 3), (MLP, 2)])
def test_the_default_placement_finds_the_dropout_of_both(kind, sites):
    net = kind((1, 8, 8), 10)
    keys = list(net.state_dict())
    installed = install(net, Dropout, Placement(p=0.3))
    assert len(installed) == sites
    assert all(isinstance(net.get_submodule(site.site), Dropout) for site in installed)
    assert list(net.state_dict()) == keys
