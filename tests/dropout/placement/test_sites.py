"""Laws of sites: each place has its own, in call order, each once, and a place without any is refused."""

import pytest
import torch
from placed import EVERYWHERE, IMAGE, SITES, Cnn, Residual, layers
from torch import Tensor, nn
from torchvision import models

from dropout_lab.dropout import Placement, install
from dropout_lab.dropout.graph.calls import calls
from dropout_lab.dropout.layer import Dropout


@pytest.mark.parametrize("where", SITES)
def test_each_place_has_its_sites(where: str) -> None:
    model = Cnn()
    names = {call.path: call.name for call in calls(model)} | {"input": "00_input"}
    found = install(model, Dropout, Placement(where, p=0.3))
    assert found == [(names[path], path, 0.3) for path in SITES[where]]
    assert set(layers(model)) == {name for name, _, _ in found}


def test_several_places_are_one_list_in_call_order_without_repetition() -> None:
    sites = [site for _, site, _ in install(Cnn(), Dropout, Placement(["classifier", *EVERYWHERE, "default"]))]
    assert sites == ["input", "features.0", "features.2", "drop", "head.2", "head.3"]


def test_a_model_without_dropout_gets_it_before_the_classifier_by_default() -> None:
    model = Residual()
    assert install(model, Dropout, Placement("default")) == [("03_fc", "fc", 0.5)]
    seen = []
    model.fc.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    model(IMAGE + 1)
    assert 0 < (seen[0] == 0).sum() < seen[0].numel()


def test_a_pattern_matches_paths_and_replaces_dropout_layers() -> None:
    model = Cnn()
    found = install(model, Dropout, Placement("pattern", pattern=["features.[02]", "head.3"]))
    assert [site for _, site, _ in found] == ["features.0", "features.2", "head.3"]
    assert isinstance(model.head[3], Dropout)
    assert isinstance(model.features[2].dropout, Dropout)


def test_a_module_called_twice_is_one_site_and_drops_at_both_calls() -> None:
    model = Residual()
    found = install(model, Dropout, Placement("activations", rate=[0.5]))
    assert found == [("01_relu", "relu", 0.5)]
    count = []
    model.relu.dropout.register_forward_hook(lambda *_: count.append(1))
    model(IMAGE)
    assert len(count) == 2


def test_activations_of_parameters_alone_are_no_sites() -> None:
    class Bias(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.act, self.bias_act = nn.Parameter(torch.ones(3)), nn.ReLU(), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.act(x + self.bias_act(self.table))

    assert [site for _, site, _ in install(Bias(), Dropout, Placement("activations"))] == ["act"]


@pytest.mark.parametrize(
    "placement",
    [
        Placement("existing"),
        Placement("pattern", pattern=["conv", "layer9.*"]),
    ],
)
def test_no_site_is_an_error_that_lists_candidates(placement: Placement) -> None:
    with pytest.raises(ValueError, match=r"Residual has no site.*conv \(Conv2d\), relu \(ReLU\)"):
        install(Residual(), Dropout, placement)
    with pytest.raises(ValueError, match=r"\.\.\. \(300 in all\)"):
        install(nn.Sequential(*[nn.Identity() for _ in range(300)]), Dropout, Placement("default"))


def test_two_layers_at_one_place_are_refused() -> None:
    with pytest.raises(ValueError, match="two dropout layers at 03_fc"):
        install(Residual(), Dropout, Placement(["classifier", "pattern"], pattern="fc"))
    with pytest.raises(ValueError, match="two dropout layers at 00_0"):
        install(nn.Sequential(nn.Linear(2, 2)), Dropout, Placement(["classifier", "input"]))


@pytest.mark.parametrize(
    ("pattern", "sites"),
    [
        ("layer?.1", ["layer1.1", "layer2.1", "layer3.1", "layer4.1"]),
        ("layer4", ["layer4.1"]),  # after the last step of a Sequential
        ("*.downsample", ["layer2.0.downsample.1", "layer3.0.downsample.1", "layer4.0.downsample.1"]),
        ("layer4.1.*", [f"layer4.1.{name}" for name in ("conv1", "bn1", "relu", "conv2", "bn2")]),  # leaf modules first
    ],
)
def test_a_pattern_names_blocks_where_it_names_no_leaf_module(pattern: str, sites: list[str]) -> None:
    model = models.resnet18(num_classes=3)
    keys = list(model.state_dict())
    assert [site for _, site, _ in install(model, Dropout, Placement("pattern", pattern=pattern))] == sites
    assert list(model.state_dict()) == keys
    seen = []
    for site in sites:
        model.get_submodule(site).register_forward_hook(lambda *call: seen.append((call[2] == 0).float().mean()))
    model(torch.randn(2, 3, 64, 64))
    assert len(seen) >= len(sites)  # one ReLU is called twice
    assert all(0.3 < zeros < 0.9 for zeros in seen)
    assert [site for _, site, _ in install(model, Dropout, Placement("pattern", pattern=pattern))] == sites


class Unused(nn.Module):
    """A block whose forward pass is not called, but its layer's, and one without a forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.block, self.items = nn.Sequential(nn.Linear(4, 4)), nn.ModuleList([nn.Linear(4, 4)])

    def forward(self, x: Tensor) -> Tensor:
        return self.items[0](self.block[0](x))


def test_what_a_pattern_could_name_is_said_and_blocks_that_are_not_called_are_none() -> None:
    for pattern in ("block", "items"):
        with pytest.raises(
            ValueError, match=r"its blocks are none; its leaf modules are block\.0 \(Linear\), items\.0"
        ):
            install(Unused(), Dropout, Placement("pattern", pattern=pattern))
    with pytest.raises(ValueError, match=r"did you mean 'layer4\.1'\? its blocks are layer1\.0, layer1, .*; its leaf"):
        install(models.resnet18(), Dropout, Placement("pattern", pattern="layr4.1"))
