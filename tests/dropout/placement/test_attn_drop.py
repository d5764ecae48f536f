"""Laws of layers called `attn_drop`: they drop, whatever kernel is fused, and with samples as rows."""

from functools import partial
from typing import Any

import pytest
import timm
import torch
from placed import layers
from torch import Tensor, nn

from dropout_lab.dropout import Placement
from dropout_lab.dropout.ensembles.exact import exact_ensemble
from dropout_lab.dropout.ensembles.monte_carlo import monte_carlo
from dropout_lab.dropout.folding.fold import fold
from dropout_lab.dropout.graph.calls import calls, trace
from dropout_lab.dropout.keys import mask_keys
from dropout_lab.dropout.layer import Dropout
from dropout_lab.dropout.placement.install import install, uninstall


def vit(**options: Any) -> nn.Module:
    """A network whose attention is fused: its layers `attn_drop` are not called."""
    small = {"img_size": 8, "patch_size": 4, "depth": 2, "embed_dim": 8, "num_heads": 2, "num_classes": 3}
    return random_weights(timm.create_model("vit_tiny_patch16_224", **small, **options))


def swin(name: str = "swin_tiny_patch4_window7_224") -> nn.Module:
    """A network with four windows a sample, folded into the rows."""
    small = {"img_size": 32, "window_size": 4, "depths": [2], "embed_dim": 8, "num_heads": [2], "num_classes": 3}
    return random_weights(timm.create_model(name, **small, drop_path_rate=0.0))


def random_weights(model: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    return model


def run(model: nn.Module, x: Tensor, rows: Any) -> Tensor:
    with torch.no_grad(), mask_keys(3, 5, rows):
        return model(x)


@pytest.mark.parametrize(
    ("placement", "sites"),
    [
        (Placement("attention"), ["blocks.0.attn.attn_drop", "blocks.1.attn.attn_drop"]),
        (Placement("pattern", pattern="*.attn_drop"), ["blocks.0.attn.attn_drop", "blocks.1.attn.attn_drop"]),
        (Placement("pattern", pattern="blocks.1.attn.*drop"), ["blocks.1.attn.attn_drop", "blocks.1.attn.proj_drop"]),
    ],
)
def test_a_layer_that_a_fused_kernel_hides_is_a_site_in_its_place(placement: Placement, sites: list[str]) -> None:
    model = vit()
    names = [call.name for call in calls(model)]
    found = install(model, Dropout, placement)
    assert [site for _, site, _ in found] == sites
    assert [name for name, _, _ in found] == sorted(name for name, _, _ in found)
    assert [call.name for call in calls(model)] == names
    called = []
    for layer in layers(model).values():
        layer.register_forward_hook(lambda layer, *_: called.append(layer.name))
    model(torch.randn(2, 3, 8, 8))
    assert called == [name for name, _, _ in found]


def test_existing_layers_are_those_that_a_fused_kernel_hides_too() -> None:
    model = vit()
    found = install(model, Dropout, Placement(["existing", "attention"]))
    drops = {path for path, module in vit().named_modules() if isinstance(module, nn.Dropout)}
    assert {site for _, site, _ in found} == drops


def test_the_fused_kernel_is_off_where_a_layer_stands_and_comes_back() -> None:
    model = vit(attn_drop_rate=0.3)
    install(model, Dropout, Placement("pattern", pattern="blocks.0.attn.attn_drop"))
    assert [block.attn.fused_attn for block in model.blocks] == [False, True]
    install(model, Dropout, Placement("pattern", pattern="blocks.1.attn.attn_drop"))
    assert [block.attn.fused_attn for block in model.blocks] == [True, False]
    uninstall(model)
    assert [block.attn.fused_attn for block in model.blocks] == [True, True]
    assert [block.attn.attn_drop.p for block in model.blocks] == [0.3, 0.3]


def test_where_an_attention_layer_is_never_called_it_is_no_site() -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unused, self.fc = vit().blocks[0], nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x)

    with pytest.raises(ValueError, match="Unused has no site"):
        install(Unused(), Dropout, Placement("attention"))


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256"])
@pytest.mark.parametrize("where", ["attention", "existing"])
def test_windows_are_their_sample_s_however_samples_are_split(name: str, where: str) -> None:
    model, x = swin(name), torch.randn(3, 3, 32, 32)
    install(model.train(), Dropout, Placement(where, p=0.5))
    together = run(model, x, range(3))
    assert (together - model.eval()(x)).abs().max() > 1e-3
    apart = torch.cat([run(model.train(), x[:1], [0]), run(model, x[1:], range(1, 3))])
    torch.testing.assert_close(apart, together, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("where", ["attention", "existing"])
def test_a_sample_s_mask_is_one_for_all_its_windows(where: str) -> None:
    model = swin().train()
    install(model, partial(Dropout, mask="sample"), Placement(where, p=0.5))
    factors = []
    for layer in layers(model).values():
        layer.register_forward_hook(lambda _, args, out: factors.append((out / args[0]).flatten(1)), prepend=True)
    for _ in range(3):
        model(torch.randn(4, 3, 32, 32))
    for of_layer in factors:
        assert {len(row[~row.isnan()].unique()) for row in of_layer} <= {0, 1}
        assert len(of_layer) == 4


def test_the_graph_drops_as_the_model_does_and_monte_carlo_takes_copies_of_rows() -> None:
    model, x = swin().train(), torch.randn(3, 3, 32, 32)
    install(model, partial(Dropout, mask="sample"), Placement("attention"))
    model(x[:2])  # another number of rows than those of the graph
    graph = trace(model)
    torch.testing.assert_close(run(graph, x, range(3)), run(model, x, range(3)))
    assert monte_carlo(model, x, 8).variance.max() > 1e-6


def test_all_thinned_networks_of_windows_are_those_that_are_drawn() -> None:
    model, x = swin().eval(), torch.randn(2, 3, 32, 32)
    install(model, partial(Dropout, mask="sample"), Placement("attention", p=0.3))
    torch.manual_seed(0)
    drawn = monte_carlo(model, x, 400)
    every = exact_ensemble(model, x)
    torch.testing.assert_close(every.arithmetic, drawn.mean.double(), atol=0.05, rtol=0)
    assert drawn.variance.max() > 0.01


@pytest.mark.parametrize("make", [vit, swin])
@pytest.mark.parametrize("where", ["attention", "existing"])
def test_layers_of_both_scalings_fold(make: Any, where: str) -> None:
    model = make().eval()
    x = torch.randn(2, 3, 8, 8) if make is vit else torch.randn(2, 3, 32, 32)
    for scaling in ("inverted", "classic"):
        install(model, partial(Dropout, scaling=scaling), Placement(where, p=0.4))
        folded = fold(model, x)
        torch.testing.assert_close(folded(x), model(x), atol=1e-5, rtol=1e-4)
        assert torch.equal(folded.train()(x), folded.eval()(x))
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in folded.modules())
        make().load_state_dict(folded.state_dict(), strict=True)


def test_attention_weights_are_no_maps() -> None:
    for model in (vit(), swin()):
        with pytest.raises(ValueError, match="and attention weights are no maps; use"):
            install(model, partial(Dropout, mask="channel"), Placement("attention"))
