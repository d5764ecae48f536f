"""Laws of branches: what is added to a shortcut can be dropped as a whole, which leaves the shortcut exactly."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from dropout_lab.dropout import Installed, Placement, install
from dropout_lab.dropout.folding.fold import fold
from dropout_lab.dropout.layer import Dropout

BRANCHES = Placement("branches", p=0.5)


class Everything(Dropout):
    """Drops all that it can."""

    def draw(self, x: Tensor) -> Tensor:
        return torch.zeros(len(x), *[1] * (x.ndim - 1))


def installed(model: nn.Module, rate: str = "constant", **options: str) -> list[Installed]:
    return install(model, partial(Dropout, mask="sample", **options), Placement("branches", p=0.5, rate=rate))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "blocks", "sites", "pixels"),
    [
        ("resnet18", "BasicBlock", 8, 32),
        ("resnet50", "Bottleneck", 16, 32),
        ("convnext_tiny", "CNBlock", 18, 32),
        ("efficientnet_b0", "MBConv", 9, 32),
        ("swin_t", "SwinTransformerBlock", 12, 32),
        ("swin_v2_t", "SwinTransformerBlockV2", 12, 32),
        ("vit_b_16", "EncoderBlock", 24, 224),
        ("regnet_y_400mf", "ResBottleneckBlock", 16, 32),
        ("mobilenet_v2", "InvertedResidual", 10, 32),
        ("mobilenet_v3_small", "InvertedResidual", 6, 32),
        ("mnasnet0_5", "_InvertedResidual", 10, 32),
        ("maxvit_t", "PartitionAttentionLayer", 33, 224),
    ],
)
def test_without_its_branches_a_network_hands_on_what_comes_in(name: str, blocks: str, sites: int, pixels: int) -> None:
    model = torchvision.models.get_model(name, weights=None, num_classes=3).train()
    assert len(install(model, Everything, BRANCHES)) == sites
    kept = []

    def compare(block: nn.Module, args: tuple[Tensor], out: Tensor) -> None:
        if args[0].shape == out.shape and any(each.name for each in block.modules() if isinstance(each, Dropout)):
            kept.append(torch.equal(args[0], out))

    for module in model.modules():
        if type(module).__name__ == blocks:
            module.register_forward_hook(compare)
    with torch.no_grad():
        model(torch.randn(2, 3, pixels, pixels))
    projected = {"resnet18": 3, "resnet50": 3, "regnet_y_400mf": 4}.get(name, 0)  # blocks of another shape
    assert kept.count(True) >= 4
    assert kept.count(False) <= projected


class Net(nn.Module):
    """A network of functions and layers, to be given a forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.relu, self.bn, self.gate, self.depth = nn.ReLU(), nn.BatchNorm1d(4), nn.Sigmoid(), nn.Identity()
        self.position = nn.Parameter(torch.ones(4))


def with_forward(forward: object) -> nn.Module:
    return type("Net", (Net,), {"forward": forward})()


@pytest.mark.parametrize(
    ("forward", "sites"),
    [
        (lambda self, x: x + self.b(self.relu(self.a(x))), ["b"]),
        (lambda self, x: torch.add(self.b(self.a(x)), x), ["b"]),
        (lambda self, x: x.add_(self.a(x)), ["a"]),
        (lambda self, x: self.c(x) + self.b(self.relu(self.a(x))), ["b"]),  # a projection
        (lambda self, x: x + self.position * self.b(self.a(x)), ["b"]),  # a scale
        (lambda self, x: x + F.relu(self.a(x)).unsqueeze(0)[0], ["a"]),
        (lambda self, x: (y := self.b(self.a(x))) * self.gate(self.c(y)) + x, ["b"]),  # squeeze and excitation
        (lambda self, x: (y := x + self.a(x)) + self.b(self.c(y)), ["a", "b"]),
        (lambda self, x: x + self.depth(self.a(x)), ["depth"]),
    ],
)
def test_a_layer_goes_where_a_branch_ends(forward: object, sites: list[str]) -> None:
    model = with_forward(forward)
    assert [site.site for site in installed(model)] == sites
    assert [site.site for site in install(model, Everything, BRANCHES)] == sites
    x = torch.randn(3, 4)
    dropped = model(x.clone())
    assert torch.equal(dropped, x) or torch.equal(dropped, model.c(x))  # c is where there is a projection


def test_a_shortcut_with_dropout_on_it_is_as_long_as_before() -> None:
    model = with_forward(lambda self, x: self.c(x) + self.b(self.a(x)))
    install(model, Dropout, Placement("pattern", pattern="c"))
    assert [site.site for site in installed(model)] == ["b"]


@pytest.mark.parametrize(
    "forward",
    [
        lambda self, x: self.a(x + self.position),
        lambda self, x: self.a(x) + self.position,
        lambda self, x: self.a(x) + 1,
        lambda self, x: self.a(x) + self.b(x),  # parallel
        lambda self, x: (t := self.gate(self.a(x))) * self.b(x) + (1 - t) * x,  # Srivastava et al. 2015, highway
        lambda self, x: x * self.position + self.a(x).flip(-1) * self.position,  # a rotation
        lambda self, x: torch.cat([x, self.a(x)], 1),
        lambda self, x: self.a(x)[:, :2] + x[:, 2:],  # parts
        lambda self, x: self.a(x.reshape(x.shape[0] + x.shape[1] - 4, 4)),  # sizes
    ],
)
def test_other_additions_are_no_branches(forward: object) -> None:
    with pytest.raises(ValueError, match=r"Net has no site for dropout at placement\.where=branches"):
        installed(with_forward(forward))


@pytest.mark.parametrize(
    ("forward", "why"),
    [
        (lambda self, x: x + self.gate(self.a(x)).exp(), r"it comes from exp\(\)"),
        (lambda self, x: self.b((y := self.a(x)) + x) + y, "Linear a is used elsewhere"),
        (lambda self, x: x + self.a(self.b(self.a(x))), "a ends a branch, and is called elsewhere"),
    ],
)
def test_a_branch_that_can_not_be_dropped_as_a_whole_is_refused(forward: object, why: str) -> None:
    with pytest.raises(ValueError, match=f"placement.where=branches: .*{why}"):
        installed(with_forward(forward))


def test_rates_rise_by_block() -> None:
    model = torchvision.models.VisionTransformer(32, 16, 4, 2, 8, 16, dropout=0.1)
    found = installed(model, "linear")
    assert [(site.site.rpartition("encoder_layer_")[2], site.p) for site in found] == [
        *[("0.dropout", 0.125), ("0.mlp.4", 0.125), ("1.dropout", 0.25), ("1.mlp.4", 0.25)],
        *[("2.dropout", 0.375), ("2.mlp.4", 0.375), ("3.dropout", 0.5), ("3.mlp.4", 0.5)],
    ]


def test_stochastic_depth_that_is_there_is_replaced_and_comes_back() -> None:
    model = torchvision.models.efficientnet_b0(num_classes=3)
    before = [type(module) for module in model.modules()]
    for site in installed(model):
        assert isinstance(model.get_submodule(site.site), Dropout)
    install(model, Dropout, Placement("none"))
    assert [type(module) for module in model.modules()] == before


class ByValue(nn.Module):
    """A network that can't be traced."""

    def __init__(self, depth: nn.Module) -> None:
        super().__init__()
        self.block = nn.ModuleList([nn.Linear(4, 4), depth])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block[1](self.block[0](x)) if x.sum() > 0 else x


def test_without_a_graph_only_stochastic_depth_is_seen_or_the_reason_is_told() -> None:
    depth = torchvision.ops.StochasticDepth(0.2, "row")
    assert [site.site for site in installed(ByValue(depth))] == ["block.1"]
    with pytest.raises(ValueError, match=r"branches: torch.fx can't trace it, .*name modules with placement.pattern"):
        installed(ByValue(nn.ReLU()))


def test_the_branches_of_torch_s_transformers_are_sites_and_their_fast_path_is_off() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = nn.Sequential(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(8, 2))
    found = installed(model, "linear", scaling="classic")
    assert [(site.site[-17:], site.p) for site in found] == [
        *[("layers.0.dropout1", 0.25), ("layers.0.dropout2", 0.25)],
        *[("layers.1.dropout1", 0.5), ("layers.1.dropout2", 0.5)],
    ]
    x = torch.randn(2, 3, 8)
    with torch.no_grad():
        fast = model.eval()(x)
    assert torch.allclose(fast, model(x), atol=1e-6)


@pytest.mark.parametrize("scaling", ["classic", "inverted"])
def test_stochastic_depth_folds_into_the_last_affine_layer_of_each_branch(scaling: str) -> None:
    model = torchvision.models.resnet18(num_classes=3)
    installed(model, "linear", scaling=scaling)
    model.eval()
    x = torch.randn(2, 3, 32, 32)
    folded = fold(model, x)
    assert not any(isinstance(module, Dropout) for module in folded.modules())
    assert torch.equal(folded.layer4[1].bn2.weight, model.layer4[1].bn2.weight * (0.5 if scaling == "classic" else 1))
    with torch.no_grad():
        torch.testing.assert_close(folded(x), model(x))
