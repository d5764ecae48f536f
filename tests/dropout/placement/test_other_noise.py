"""Laws: all randomness of a model that the lab did not install is named, and nothing else; and it can be silenced."""

import sys

import pytest
import timm
import torch
import torch.nn.functional as F
from placed import passes
from torch import Tensor, nn
from torchvision import models, ops

from dropout_lab.dropout import Placement, install
from dropout_lab.dropout.layer import Dropout, none
from dropout_lab.dropout.placement.other_noise import other_noise, shortened, switch_off


class Noisy(nn.Module):
    """Everything that drops, and one of each that is switched off."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.1)
        self.quiet_attention = nn.MultiheadAttention(8, 2)
        self.rnn = nn.LSTM(8, 8, 2, dropout=0.2)
        self.drop, self.off = nn.Dropout(0.3), nn.Dropout(0.0)
        self.block = Block()

    def forward(self, x: Tensor) -> Tensor:
        x = self.quiet_attention(*[self.attention(x, x, x)[0]] * 3)[0]
        x = F.dropout(self.off(self.drop(self.rnn(x)[0])), 0.0, self.training)
        x = F.dropout(self.block(x), 0.4, training=False)
        return F.scaled_dot_product_attention(x, x, x, None, 0.6 if self.training else 0.0)


class Block(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, training=self.training)


class StochasticDepth(nn.Identity):
    """Stands for torchvision's, which is known by its name."""

    p = 0.7


@pytest.mark.parametrize("training", [True, False])
def test_each_source_of_noise_is_named_with_its_rate(training: bool) -> None:
    assert other_noise(nn.Sequential(Noisy(), StochasticDepth()).train(training)) == [
        "0.attention: MultiheadAttention drops by itself, with dropout=0.1",
        "0.rnn: LSTM drops by itself, with dropout=0.2",
        "0.drop: Dropout(p=0.3) is not in the placement",
        "1: StochasticDepth drops by itself, with p=0.7",
        "0.block: dropout() drops by itself, with p=0.5",
        "0: scaled_dot_product_attention() drops by itself, with dropout_p=0.6",
    ]


class DropPath(nn.Module):
    """Stands for timm's."""

    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        return x * x.new_empty(x.shape[0], 1).bernoulli_(1 - self.drop_prob)


class OwnDepth(ops.StochasticDepth):
    pass


class OwnPath(DropPath):
    pass


def test_subclasses_of_noise_are_named_once() -> None:
    model = nn.Sequential(OwnDepth(0.2, "row"), OwnPath(0.3), OwnDepth(0.0, "row"))
    assert other_noise(model) == [
        "0: OwnDepth drops by itself, with p=0.2",
        "1: OwnPath drops by itself, with drop_prob=0.3",
    ]


def test_installed_layers_are_reached() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.3), nn.Linear(2, 2), nn.Dropout(0.2))
    install(model, Dropout, Placement("pattern", pattern="1"))
    assert other_noise(model) == ["3: Dropout(p=0.2) is not in the placement"]
    install(model, Dropout, Placement("existing"))
    assert other_noise(model) == []


def test_a_model_that_can_not_be_traced_says_what_is_unknown() -> None:
    class ByValue(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(x) if x.sum() > 0 else x

    [line] = other_noise(ByValue())
    assert "calls of F.dropout, if there are any, can't be listed: ByValue can't be traced" in line


@pytest.mark.parametrize(("drop_rate", "count"), [(0.0, 0), (0.1, 58)])
def test_the_functional_dropout_of_densenet_is_found(drop_rate: float, count: int) -> None:
    with torch.device("meta"):
        model = models.densenet121(drop_rate=drop_rate)
    lines = other_noise(model)
    assert len(lines) == count
    if count:
        assert lines[0] == "features.denseblock1.denselayer1: dropout() drops by itself, with p=0.1"


def test_the_attention_dropout_of_swin_is_found() -> None:
    with torch.device("meta"):
        model = models.swin_t(attention_dropout=0.2)
    lines = [line for line in other_noise(model) if "StochasticDepth" not in line]
    assert len(lines) == 12
    assert lines[0] == "features.1.0.attn: shifted_window_attention() drops by itself, with attention_dropout=0.2"


def silent(model: nn.Module) -> nn.Module:
    install(model, none, Placement("default"))
    switch_off(model)
    return model


def test_what_is_switched_off_is_what_was_named_and_nothing_is_left() -> None:
    model = nn.Sequential(Noisy(), StochasticDepth(), nn.RReLU())
    named = other_noise(model)
    assert named[4] == "2: RReLU draws its slopes, from 0.125 to 0.3333"
    assert switch_off(model) == named
    x = torch.randn(3, 5, 8)
    one, other = passes(model, x)
    assert torch.equal(one, other)
    assert torch.equal(one, passes(model, x, training=False)[0])  # nothing else depends on the mode
    assert other_noise(model) == []


def test_a_function_that_can_not_be_reached_is_refused_by_name() -> None:
    functions = sys.modules["torchvision.ops.stochastic_depth"]  # `ops.stochastic_depth` is one of them

    class Deep(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return functions.stochastic_depth(x, 0.5, "row", self.training)

    with pytest.raises(
        ValueError, match=r"stochastic_depth\(\) drops by itself, with p=0.5, and can't be switched off"
    ):
        switch_off(Deep())


def test_lines_that_say_the_same_are_one() -> None:
    model = nn.Sequential(*[ops.StochasticDepth(p, "row") for p in (0.0, 0.1, 0.2)], nn.Dropout(0.3))
    assert shortened(other_noise(model)) == [
        "1 and 1 more like it: StochasticDepth drops by itself, with p=0.1",
        "3: Dropout(p=0.3) is not in the placement",
    ]


FAMILIES = {  # of torchvision, a network of each, at the smallest images that it takes
    "alexnet": {}, "convnext_tiny": {}, "densenet121": {"drop_rate": 0.2}, "efficientnet_b0": {}, "googlenet": {},
    "inception_v3": {}, "maxvit_t": {}, "mnasnet0_5": {}, "mobilenet_v2": {}, "mobilenet_v3_small": {},
    "regnet_y_400mf": {}, "resnet18": {}, "shufflenet_v2_x0_5": {}, "squeezenet1_1": {}, "swin_t": {},
    "swin_v2_t": {"attention_dropout": 0.2, "dropout": 0.2}, "vgg11": {},
    "vit_b_32": {"attention_dropout": 0.2, "dropout": 0.2, "image_size": 64},
}  # fmt: skip
TIMM = {
    "vit_tiny_patch16_224": {"drop_path_rate": 0.2, "attn_drop_rate": 0.2, "proj_drop_rate": 0.2, "img_size": 64},
    "convnext_atto": {"drop_path_rate": 0.2, "drop_rate": 0.2},
    "resnet18": {"drop_path_rate": 0.2, "drop_block_rate": 0.2, "drop_rate": 0.2},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*FAMILIES, *(f"timm:{name}" for name in TIMM)])
def test_none_is_none_in_every_family(name: str) -> None:
    if name.startswith("timm:"):
        model = timm.create_model(name[5:], num_classes=3, **TIMM[name[5:]])
    else:
        auxiliary = {"aux_logits": False, "init_weights": False} if name in ("googlenet", "inception_v3") else {}
        model = models.get_model(name, weights=None, num_classes=3, **auxiliary, **FAMILIES[name])
    pixels = {"inception_v3": 96, "maxvit_t": 224}.get(name, 64)
    one, other = passes(silent(model), torch.randn(2, 3, pixels, pixels))
    assert torch.equal(one, other)
