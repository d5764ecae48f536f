"""Laws of the transformer: what a token sees, the sizes, where dropout is, and that the lab can read it."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dropout_lab.dropout import Dropout, Placement, fold, install, mask_keys
from dropout_lab.dropout.graph.calls import trace
from dropout_lab.models import Transformer
from dropout_lab.models.transformer import Attention


def made(shape=(6,), classes=11, **options):
    return Transformer(shape, classes, **{"width": 16, "depth": 2, "heads": 2, **options}).double().eval()


def tokens(*shape, classes=11):
    return torch.randint(0, classes, shape)


def test_a_token_is_predicted_from_those_up_to_it_alone():
    net, x = made(), tokens(2, 6)
    for place in range(6):
        other = x.clone()
        other[:, place:] = tokens(2, 6 - place)
        assert torch.equal(net(x)[:, :place], net(other)[:, :place])
        assert not torch.equal(net(x)[:, place], net(other)[:, place]) or torch.equal(x[:, place], other[:, place])


def test_every_patch_of_an_image_sees_every_other():
    net = made((1, 4, 4), patch=2)
    image = torch.randn(1, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    net(image)[0, 0].backward()
    assert (image.grad != 0).all()


@pytest.mark.parametrize("causal", [True, False])
def test_attention_is_torchs(causal):
    ours, theirs = Attention(8, 2, 5, causal), nn.MultiheadAttention(8, 2, batch_first=True)
    theirs.load_state_dict(
        {
            **{"in_proj_weight": ours.qkv.weight, "in_proj_bias": ours.qkv.bias},
            **{"out_proj.weight": ours.out.weight, "out_proj.bias": ours.out.bias},
        }
    )
    x = torch.randn(3, 5, 8)
    mask = torch.ones(5, 5, dtype=torch.bool).triu(1) if causal else None
    torch.testing.assert_close(ours(x), theirs(x, x, x, attn_mask=mask)[0])


def test_the_shapes_are_those_of_tokens_and_of_images():
    assert made()(tokens(3, 6)).shape == (3, 6, 11)
    assert made((3, 8, 4), 5, patch=4)(torch.randn(2, 3, 8, 4).double()).shape == (2, 5)


def test_the_default_has_800_thousand_weights():
    """4 layers, 4 heads, width 128, context 64, 65 characters: 0.80 million, as the public figure of this size has."""
    net = Transformer((64,), 65)
    assert sum(parameter.numel() for parameter in net.parameters()) == 818_241
    loss = F.cross_entropy(net(tokens(4, 64, classes=65)).flatten(0, 1), tokens(256, classes=65))
    assert loss.item() == pytest.approx(math.log(65), abs=0.2)  # at first it knows nothing


@pytest.mark.parametrize("shape", [(6,), (1, 4, 4)])
def test_each_place_of_dropout_is_a_module_that_placement_names(shape):
    net = made(shape)
    block = ["attention.dropout", "dropout1", "mlp.dropout", "dropout2"]
    everywhere = ["dropout", *(f"blocks.{n}.{name}" for n in range(2) for name in block)]
    places = {
        "existing": everywhere,
        "default": everywhere,
        "branches": [name for name in everywhere if name[-1] in "12"],
        "attention": [name for name in everywhere if "attention" in name],
        "activations": ["blocks.0.mlp.gelu", "blocks.1.mlp.gelu"],
    }
    for where, sites in places.items():
        assert [site for _, site, _ in install(net, Dropout, Placement(where))] == sites
    assert [p for *_, p in install(net, Dropout, Placement("branches", p=0.4, rate="linear"))] == [0.2, 0.2, 0.4, 0.4]


def test_attention_weights_are_dropped_by_head_query_and_key():
    net, seen = made(), []
    install(net, Dropout, Placement("attention"))
    for block in net.blocks:
        block.attention.dropout.register_forward_hook(lambda _, args, out: seen.append((args[0], out)))
    with mask_keys(0, 0, range(3)):
        net.train()(tokens(3, 6))
    assert len(seen) == len(net.blocks)
    for weights, dropped in seen:
        assert weights.shape == (3, 2, 6, 6)
        assert torch.allclose(weights.sum(3), torch.ones(3, 2, 6, dtype=torch.float64))
        mixed = (weights > 0) & (dropped == 0)
        for axis in (1, 2, 3):  # no mask is shared along heads, queries or keys
            there, gone = ((mask & (weights > 0)).any(axis) for mask in (~mixed, mixed))
            assert (there & gone).any()


@pytest.mark.parametrize("where", ["attention", "activations", "branches"])
def test_classic_dropout_folds_where_an_affine_layer_takes_it(where):
    net, x = made((1, 4, 4)), torch.randn(2, 1, 4, 4).double()
    install(net, partial(Dropout, scaling="classic"), Placement(where, p=0.3))
    torch.testing.assert_close(fold(net, x)(x), net.eval()(x))


def test_between_an_embedding_and_layernorm_nothing_takes_it_up():
    net, x = made(), tokens(2, 6)
    install(net, partial(Dropout, scaling="classic"), Placement("pattern", p=0.3, pattern="dropout"))
    with pytest.raises(ValueError, match="no weight can take up its factor exactly between Embedding embed"):
        fold(net, x)
    install(net, Dropout, Placement("existing", p=0.3))
    torch.testing.assert_close(fold(net, x)(x), net.eval()(x))


def test_it_can_be_traced():
    net, x = made(), tokens(2, 6)
    assert torch.equal(trace(net)(x), net(x))


@pytest.mark.parametrize(
    ("shape", "options", "said"),
    [
        ((6,), {"heads": 3}, "model.width=16: must be divisible by model.heads=3"),
        ((6,), {"depth": 0}, "model.depth=0: must be an integer >= 1"),
        ((1, 4, 4), {"patch": 3}, "model.patch=3: must divide the 4x4 pixels of an image"),
        ((4, 4), {}, r"takes images \(channels, height, width\)"),
    ],
)
def test_what_it_can_not_be_is_one_line(shape, options, said):
    with pytest.raises(ValueError, match=said):
        made(shape, **options)
