"""Laws of channel masks: they go exactly where a tensor is a stack of feature maps that a convolution made."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dropout_lab.dropout import Placement, install
from dropout_lab.dropout.layer import Dropout

spatial = partial(Dropout, mask="channel")


class Through(nn.Module):
    """A convolution, then `step`, then the dropout layer in question."""

    def __init__(self, step: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.step = step
        self.drop = nn.Dropout()

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.step(self.conv(x)))


class LayerNorm2d(nn.LayerNorm):
    """Channels-first layer norm, as in torchvision and timm."""


KEEPS = {
    "nothing": lambda x: x,
    "relu": F.relu,
    "method": lambda x: x.relu().clamp(0, 1).contiguous(),
    "in place": lambda x: F.relu_(x).add_(1),
    "batch norm, pool": nn.Sequential(nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)),
    "global pool": nn.AdaptiveAvgPool2d(1),
    "functional pool": lambda x: F.max_pool2d(F.adaptive_avg_pool2d(x, 4), 2),
    "mean with keepdim": lambda x: x.mean((2, 3), keepdim=True),
    "residual": lambda x: x + F.silu(x),
    "gate": lambda x: x * x.mean((2, 3), keepdim=True).sigmoid(),
    "token branch added back": lambda x: x + x.permute(0, 2, 3, 1).permute(0, 3, 1, 2),
    "cat": lambda x: torch.cat([x, x], 1),
    "chunk": lambda x: x.chunk(2, dim=1)[1],
    "slice": lambda x: x[:, :4],
    "channels-first layer norm": LayerNorm2d(8),
    "a subclass of it": type("Renamed", (LayerNorm2d,), {})(8),
    "upsample": lambda x: F.interpolate(x, scale_factor=2),
    "scaled by a number": lambda x: 2 * x - 1,
}
LOSES = {
    "flatten": nn.Flatten(),
    "flatten function": lambda x: torch.flatten(x, 1),
    "linear": nn.Sequential(nn.Flatten(2), nn.Linear(36, 5)),
    "tokens": lambda x: x.flatten(2).transpose(1, 2),
    "NHWC": lambda x: x.permute(0, 2, 3, 1),
    "NHWC, layer norm": lambda x: F.gelu(F.layer_norm(x.permute(0, 2, 3, 1), (8,))),
    "layer norm": nn.LayerNorm(6),
    "mean over space": lambda x: x.mean((2, 3)),
    "view": lambda x: x.view(x.shape[0], -1),
    "one map": lambda x: x[:, 0],
    "matmul": lambda x: x @ x,
}


@pytest.mark.parametrize("step", KEEPS.values(), ids=KEEPS.keys())
def test_maps_stay_maps_through(step: Callable[[Tensor], Tensor]) -> None:
    model = Through(step)
    install(model, spatial, Placement("existing"))
    assert model.drop.mask == "channel"


@pytest.mark.parametrize("step", LOSES.values(), ids=LOSES.keys())
def test_a_channel_mask_is_refused_behind(step: Callable[[Tensor], Tensor]) -> None:
    model = Through(step)
    with pytest.raises(ValueError, match=r"in place of drop \(\d+_drop\).*the tensor comes from.*elsewhere=element"):
        install(model, spatial, Placement("existing"))
    assert type(model.drop) is nn.Dropout


@pytest.mark.parametrize("step", LOSES.values(), ids=LOSES.keys())
def test_elsewhere_names_the_mask_to_use_instead(step: Callable[[Tensor], Tensor]) -> None:
    model = Through(step)
    install(model, partial(spatial, elsewhere="element"), Placement("existing"))
    assert model.drop.mask == "element"


def test_elsewhere_changes_nothing_where_there_are_maps() -> None:
    model = Through(F.relu)
    install(model, partial(spatial, elsewhere="sample"), Placement("existing"))
    assert model.drop.mask == "channel"


@pytest.mark.parametrize("conv", [nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d])
def test_every_kind_of_convolution_makes_maps(conv: type[nn.Module]) -> None:
    model = nn.Sequential(conv(1, 2, 3), nn.ReLU())
    install(model, spatial, Placement("activations"))
    assert model[1].dropout.mask == "channel"


def test_functional_convolution_makes_maps() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(2, 3, 3, 3))
            self.drop = nn.Dropout()

        def forward(self, x: Tensor) -> Tensor:
            return self.drop(F.conv2d(x, self.weight))

    install(Functional(), spatial, Placement("existing"))


def test_the_input_holds_maps_only_if_it_goes_to_a_convolution() -> None:
    install(nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3)), spatial, Placement("input"))
    for first in (nn.Flatten(), nn.Linear(8, 8)):
        with pytest.raises(ValueError, match="input does not go to a convolution"):
            install(nn.Sequential(first, nn.ReLU()), spatial, Placement("input"))


def test_a_module_called_with_and_without_maps_is_not_for_channels() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc, self.relu = nn.Conv2d(3, 4, 3), nn.Linear(4, 4), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.relu(self.fc(self.relu(self.conv(x)).mean((2, 3))))

    with pytest.raises(ValueError, match="Linear fc"):
        install(Twice(), spatial, Placement("activations"))


def test_without_a_graph_only_a_convolution_is_sure() -> None:
    class ByValue(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.relu = nn.Conv2d(3, 4, 3), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.relu(self.conv(x)) if x.sum() > 0 else self.conv(x)

    install(ByValue(), spatial, Placement("convolutions"))
    with pytest.raises(ValueError, match="can't be traced"):
        install(ByValue(), spatial, Placement("activations"))
