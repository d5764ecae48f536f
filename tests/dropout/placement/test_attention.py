"""Laws of dropout of attention weights: the weights of a row are dropped by its masks, and nothing else changes."""

import copy
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from placed import Cnn, layers
from torch import Tensor, nn
from torchvision.models import MaxVit, SwinTransformer, VisionTransformer
from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformerBlockV2

from dropout_lab.dropout import Placement
from dropout_lab.dropout.ensembles.monte_carlo import monte_carlo
from dropout_lab.dropout.folding.fold import fold
from dropout_lab.dropout.graph.calls import calls, trace
from dropout_lab.dropout.keys import mask_keys
from dropout_lab.dropout.layer import Dropout, none
from dropout_lab.dropout.placement.attention import put_inside
from dropout_lab.dropout.placement.install import install, site_table, uninstall

ATTENTION = Placement("attention", p=0.5)


class Encoder(nn.Module):
    """Two of torch's layers, opaque to tracing, in the container that makes nested tensors of padded samples."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.3, batch_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(8, 3)
        for each in self.encoder.layers:
            each.dropout.p = each.dropout1.p = each.dropout2.p = 0.0  # attention's own stays

    def forward(self, x: Tensor, padding: Tensor | None = None) -> Tensor:
        return self.head(self.encoder(x, src_key_padding_mask=padding)[:, 0])


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.TransformerDecoderLayer(8, 2, 16, dropout=0.0, batch_first=True), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x, x[:, :2])[:, 0])


SWIN = {"embed_dim": 8, "depths": [2], "num_heads": [2], "window_size": [4, 4], "stochastic_depth_prob": 0.0}
# A network, the shape of a sample, the number of sites.
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "encoder": (Encoder, (5, 8), 2),
    "decoder": (Decoder, (5, 8), 2),
    "vit": (lambda: VisionTransformer(16, 8, 2, 2, 8, 16, attention_dropout=0.3, num_classes=3), (3, 16, 16), 2),
    "swin": (lambda: SwinTransformer([4, 4], **SWIN, attention_dropout=0.3, num_classes=3), (3, 32, 32), 2),
    "swin v2": (
        lambda: SwinTransformer(
            [4, 4], **SWIN, block=SwinTransformerBlockV2, downsample_layer=PatchMergingV2, num_classes=3
        ),
        (3, 32, 32),
        2,
    ),
    "maxvit": (lambda: MaxVit((32, 32), 4, 4, [8], [1], 4, 0.0, num_classes=3), (3, 32, 32), 2),
    "timm": (
        lambda: timm.create_model(
            "vit_tiny_patch16_224", img_size=8, patch_size=4, depth=2, embed_dim=8, num_heads=2, attn_drop_rate=0.3
        ),
        (3, 8, 8),
        2,
    ),
}
every_network = pytest.mark.parametrize("name", NETWORKS)


def network(name: str, rows: int = 3) -> tuple[nn.Module, Tensor]:
    """A network whose attention matters, in training but for BatchNorm, and a batch for it."""
    torch.manual_seed(1)
    make, shape, _ = NETWORKS[name]
    model = make()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    for module in model.modules():
        module.train(not isinstance(module, nn.BatchNorm2d))
    return model, torch.randn(rows, *shape)


def rest_in_training(model: nn.Module) -> nn.Module:
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return model


def run(model: nn.Module, x: Tensor, rows: Any, step: int = 5) -> Tensor:
    with torch.no_grad(), mask_keys(3, step, rows):
        return model(x)


def attending(attention: nn.MultiheadAttention, layer: nn.Module) -> nn.MultiheadAttention:
    put_inside(attention, attention, layer)
    return attention


@st.composite
def questions(draw: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arguments of an attention module and of a call of it."""
    flag = st.booleans()
    own = draw(flag)
    module = {"embed_dim": 4, "num_heads": 2, "bias": draw(flag), "batch_first": draw(flag)}
    module |= {"add_bias_kv": draw(flag), "add_zero_attn": draw(flag)}
    if not own:
        module |= {"kdim": draw(st.sampled_from([4, 3])), "vdim": draw(st.sampled_from([4, 5]))}
    unbatched = draw(flag)
    length, keys, rows = 3, 3 if own else 5, 1 if unbatched else 2
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))

    def tokens(count: int, width: int) -> Tensor:
        x = torch.randn(rows, count, width, generator=generator, dtype=torch.float64)
        return x[0] if unbatched else x if module["batch_first"] else x.transpose(0, 1)

    def mask(*shape: int, floating: bool) -> Tensor:
        hidden = torch.rand(shape, generator=generator) < 0.4
        added = torch.randn(shape, generator=generator, dtype=torch.float64).masked_fill(hidden, -torch.inf)
        return added if floating else hidden

    query = tokens(length, 4)
    call = {"query": query, "key": query if own else tokens(keys, module.get("kdim", 4))}
    call["value"] = query if own else tokens(keys, module.get("vdim", 4))
    call |= {"need_weights": draw(flag), "average_attn_weights": draw(flag)}
    floating = draw(flag)
    if shape := draw(st.sampled_from([None, (length, keys), (rows * 2, length, keys)])):
        call["attn_mask"] = mask(*shape, floating=floating)
    if draw(flag):
        call["key_padding_mask"] = mask(*([keys] if unbatched else [rows, keys]), floating=floating)
    return module, call


@pytest.mark.slow
@given(questions(), st.booleans())
@settings(max_examples=300)
def test_attention_whose_layer_drops_nothing_answers_as_torch_does(question: Any, grad: bool) -> None:
    arguments, call = question
    torch.manual_seed(0)
    bare = nn.MultiheadAttention(**arguments, dtype=torch.float64)
    for parameter in bare.parameters():
        nn.init.normal_(parameter)
    open_one = attending(copy.deepcopy(bare), Dropout(0.5).eval())
    with torch.set_grad_enabled(grad):
        expected, weights = bare(**call)
        output, found = open_one(**call)
    torch.testing.assert_close(output, expected, equal_nan=True)
    torch.testing.assert_close(found, weights, equal_nan=True)
    if grad and not expected.isnan().any():
        for out in (expected, output):
            out.square().sum().backward()
        for (name, one), other in zip(bare.named_parameters(), open_one.parameters(), strict=True):
            torch.testing.assert_close(other.grad, one.grad, msg=name)
            assert other.grad.isfinite().all()


def test_a_query_that_no_key_may_answer_takes_no_gradient_along() -> None:
    bare = nn.MultiheadAttention(4, 2, batch_first=True, dtype=torch.float64)
    open_one = attending(copy.deepcopy(bare), Dropout(0.5).eval())
    x, mask = torch.randn(2, 3, 4, dtype=torch.float64), torch.tensor([False, True, False])[:, None].expand(3, 3)
    for module in (bare, open_one):
        module(x, x, x, attn_mask=mask, need_weights=False)[0].square().sum().backward()
    torch.testing.assert_close(open_one.in_proj_weight.grad, bare.in_proj_weight.grad)


@given(st.booleans())
def test_a_hint_at_a_causal_mask_changes_nothing_and_without_a_mask_is_refused(need_weights: bool) -> None:
    bare = nn.MultiheadAttention(4, 2)
    open_one = attending(copy.deepcopy(bare), Dropout(0.5).eval())
    x, mask = torch.randn(3, 2, 4), nn.Transformer.generate_square_subsequent_mask(3)
    for each in ({"attn_mask": mask, "is_causal": True}, {"attn_mask": mask}):
        expected = bare(x, x, x, need_weights=need_weights, **each)[0]
        torch.testing.assert_close(open_one(x, x, x, need_weights=need_weights, **each)[0], expected)
    with pytest.raises(RuntimeError, match="Need attn_mask"):
        open_one(x, x, x, is_causal=True)


def test_at_p_0_torch_s_own_forward_runs() -> None:
    bare = nn.MultiheadAttention(4, 2, batch_first=True, dropout=0.0)
    open_one = attending(copy.deepcopy(bare), Dropout(0.0))
    x = torch.randn(2, 3, 4)
    for training in (True, False):
        for need_weights in (True, False):
            expected = bare.train(training)(x, x, x, need_weights=need_weights)[0]
            assert torch.equal(open_one.train(training)(x, x, x, need_weights=need_weights)[0], expected)


def test_the_weights_that_are_dropped_are_those_that_are_returned() -> None:
    class First(Dropout):
        def draw(self, x: Tensor) -> Tensor:
            seen.append(x.shape)
            mask = torch.zeros_like(x)
            mask[..., 0] = 1
            return mask

    seen: list[torch.Size] = []
    attention = attending(nn.MultiheadAttention(4, 2, batch_first=True), First(0.5, scaling="unscaled"))
    x = torch.randn(3, 5, 4)
    output, weights = attention(x, x, x, average_attn_weights=False)
    assert seen == [(3, 2, 5, 5)]
    assert weights.shape == seen[0]
    assert (weights[..., 1:] == 0).all()
    value = torch.nn.functional.linear(x[:, :1], attention.in_proj_weight[8:], attention.in_proj_bias[8:])
    expected = (weights[..., :1] * value.view(3, 1, 2, 2).transpose(1, 2)).transpose(1, 2).flatten(2)
    torch.testing.assert_close(output, attention.out_proj(expected))


def test_the_expected_output_is_that_of_evaluation() -> None:
    torch.manual_seed(0)
    attention = attending(nn.MultiheadAttention(4, 2, batch_first=True), Dropout(0.5))
    x = torch.randn(1, 5, 4).expand(20000, 5, 4)
    with torch.no_grad():
        dropped, expected = attention(x, x, x)[0], attention.eval()(x[:1], x[:1], x[:1])[0]
    error = dropped.std(0) / 20000**0.5
    assert (error > 1e-4).all()
    assert ((dropped.mean(0) - expected[0]).abs() < 5 * error).all()


@every_network
def test_masks_are_those_of_the_rows_however_they_are_split(name: str) -> None:
    model, x = network(name, rows=4)
    plain = model.eval()(x)
    assert len(install(rest_in_training(model), Dropout, ATTENTION)) == NETWORKS[name][2]
    together = run(model, x, range(4))
    assert (together - plain).abs().max() > 1e-3
    assert not torch.allclose(together, run(model, x, range(4), step=6), atol=1e-4)
    apart = torch.cat([run(model, x[:1], [0]), run(model, x[1:], range(1, 4))])
    torch.testing.assert_close(apart, together, atol=1e-4, rtol=1e-4)
    order = [2, 0, 3, 1]
    torch.testing.assert_close(run(model, x[order], order), together[order], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["swin", "swin v2", "maxvit"])
def test_all_windows_of_a_sample_are_its_row(name: str) -> None:
    model, x = network(name)
    install(model, partial(Dropout, mask="sample"), ATTENTION)
    shapes, kept = [], []
    for layer in layers(model).values():
        layer.register_forward_hook(lambda _, args, out: shapes.append(args[0].shape))
        layer.register_forward_hook(lambda _, args, out: kept.append((out / args[0]).flatten(1)))
    run(model, x, range(3))
    assert all(shape[0] == 3 and len(shape) == 5 and shape[1] > 1 and shape[2] == 2 for shape in shapes)
    for factors in kept:  # 0 / 0 is NaN: a weight that is 0 by itself
        assert {len(row[~row.isnan()].unique()) for row in factors} == {1}


@every_network
def test_the_model_stays_its_own_and_comes_back(name: str) -> None:
    model, x = network(name)
    model.eval()
    with torch.no_grad():
        expected = model(x)
    bare, keys, names = repr(model), list(model.state_dict()), [call.name for call in calls(model)]
    kinds = [type(module) for module in model.modules()]
    found = install(model, Dropout, ATTENTION)
    assert [site.name for site in found] == sorted(layers(model))
    assert list(model.state_dict()) == keys
    assert [call.name for call in calls(model)] == names
    with torch.no_grad():
        torch.testing.assert_close(model(x), expected, atol=1e-5, rtol=1e-5)
    assert install(model, Dropout, ATTENTION) == found
    assert len(layers(model)) == len(found)
    uninstall(model)
    assert repr(model) == bare
    assert [type(module) for module in model.modules()] == kinds
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    with torch.no_grad():
        assert torch.equal(model(x), expected)


@every_network
@pytest.mark.parametrize("clone", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_has_layers_of_its_own(name: str, clone: Callable[[nn.Module], nn.Module]) -> None:
    model, x = network(name)
    install(model, Dropout, ATTENTION)
    copied = clone(model)
    expected = run(model, x, range(3))
    for layer in layers(model).values():
        layer.p = 0.0
    assert torch.equal(run(copied, x, range(3)), expected)
    uninstall(copied)
    uninstall(model)
    assert repr(copied) == repr(model)
    assert [type(module) for module in copied.modules()] == [type(module) for module in model.modules()]


@every_network
def test_without_dropout_two_passes_in_training_are_one(name: str) -> None:
    model, x = network(name)
    install(model, none, ATTENTION)
    with torch.no_grad():
        assert torch.equal(model(x), model(x))
    uninstall(model)
    if name in ("vit", "swin", "timm", "encoder"):  # what these would drop by themselves is on again
        with torch.no_grad():
            assert not torch.equal(model(x), model(x))


@every_network
def test_monte_carlo_drops_in_evaluation_and_a_new_p_counts_at_once(name: str) -> None:
    model, x = network(name)
    install(model, Dropout, ATTENTION)
    model.eval()
    with torch.no_grad():
        assert torch.equal(model(x), model(x))
        for layer in layers(model).values():
            layer.monte_carlo = True
        assert not torch.equal(model(x), model(x))
        for layer in layers(model).values():
            layer.p = 0.0
        assert torch.equal(model(x), model(x))


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "timm"])
def test_the_graph_of_a_model_drops_as_the_model_does(name: str) -> None:
    model, x = network(name)
    install(model, Dropout, ATTENTION)
    if name not in ("encoder", "decoder"):
        torch.testing.assert_close(run(trace(model), x, range(3)), run(model, x, range(3)))
    torch.manual_seed(0)
    assert monte_carlo(model, x, 4).variance.max() > 1e-6


@pytest.mark.parametrize("make", [partial(Dropout, scaling="classic"), partial(Dropout, noise="gaussian"), Dropout])
def test_the_eval_kernel_of_the_transformer_layer_runs_only_at_p_0(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []
    kernel = torch._transformer_encoder_layer_fwd
    monkeypatch.setattr(torch, "_transformer_encoder_layer_fwd", lambda *args: runs.append(1) or kernel(*args))
    model, x = network("encoder")
    install(model.eval(), make, ATTENTION)
    padding = torch.tensor([[False] * 3 + [True] * 2] * 3)
    for given_padding in (None, padding):
        expected = model(x, given_padding)
        with torch.no_grad():
            torch.testing.assert_close(model(x, given_padding), expected)
    assert runs == []
    for layer in layers(model).values():
        layer.p = 0.0
    with torch.no_grad():
        model(x)
    assert len(runs) == 2


def test_the_table_says_inside() -> None:
    model, _ = network("swin")
    install(model, Dropout, ATTENTION)
    assert site_table(model).splitlines() == [
        "name                  module                                      dropout  mask     p",
        "04_features_0_0_attn  features.1.0.attn (ShiftedWindowAttention)  inside   element  0.5".replace(
            "_0_0_", "_1_0_"
        ),
        "13_features_1_1_attn  features.1.1.attn (ShiftedWindowAttention)  inside   element  0.5",
    ]


@every_network
def test_channels_are_refused_or_replaced_as_weights_are_no_maps(name: str) -> None:
    model, x = network(name)
    with pytest.raises(
        ValueError, match=r"channel dropout can't go .*: it needs .*, and attention weights are no maps; "
    ):
        install(model, partial(Dropout, mask="channel"), ATTENTION)
    install(model, partial(Dropout, mask="channel", elsewhere="sample"), ATTENTION)
    assert {layer.mask for layer in layers(model).values()} == {"sample"}
    run(model, x, range(3))


def test_a_model_without_attention_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"^Cnn has no site for dropout at placement\.where=attention; its leaf modules "
    ):
        install(Cnn(), Dropout, ATTENTION)


@pytest.mark.parametrize("name", ["vit", "swin", "maxvit"])
def test_folding_takes_an_inverted_layer_out_and_refuses_a_classic_one(name: str) -> None:
    model, x = network(name)
    bare = copy.deepcopy(model)
    install(model, Dropout, ATTENTION)
    folded = fold(model, x)
    bare.load_state_dict(folded.state_dict(), strict=True)
    assert not layers(folded)
    assert [type(module) for module in folded.modules() if module._modules] == [
        type(module) for module in bare.modules() if module._modules
    ]
    with torch.no_grad():
        assert torch.equal(folded.train()(x), folded(x))  # nothing drops
    found = install(model, partial(Dropout, scaling="classic"), ATTENTION)
    with pytest.raises(ValueError, match=rf"dropout layer '{found[0].name}' \(p=0.5\) is inside .*, which can't be"):
        fold(model, x)


def test_a_classic_layer_elsewhere_folds_beside_an_inverted_one_inside() -> None:
    model, x = network("vit")
    install(model, lambda p: Dropout(p, scaling="classic" if p == 0.5 else "inverted"), Placement("existing", p=0.5))
    alone = fold(model, x)
    rates = [
        0.25 if "self_attention" in call.path else 0.5
        for call in calls(model)
        if isinstance(call.module, nn.Dropout | Dropout | nn.MultiheadAttention)
    ]
    places = Placement(["existing", "attention"], rate=rates)
    install(model, lambda p: Dropout(p, scaling="classic" if p == 0.5 else "inverted"), places)
    together = fold(model, x)
    for one, other in zip(alone.parameters(), together.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit", "swin"])
def test_an_installed_model_compiles_to_one_graph(name: str) -> None:
    torch.compiler.reset()
    model, x = network(name)
    install(model, Dropout, ATTENTION)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(run(compiled, x, range(3)), run(model, x, range(3)))
