"""Laws of operations: those that let a factor pass fold exactly, every other is refused by its name."""

from collections.abc import Callable

import pytest
import torch
from foldable import Classic, Residual, distance, eval_output, linear
from torch import Tensor, nn

from dropout_lab.dropout.folding.fold import convert, fold

PASSING = (
    nn.MaxPool2d(2, padding=1), nn.AvgPool2d(2), nn.LPPool2d(2, 2), nn.Upsample(scale_factor=2, mode="bilinear"),
    nn.ReflectionPad2d(1), nn.ZeroPad2d(1), nn.ReplicationPad2d(1), nn.PixelShuffle(2), nn.RReLU(),
    nn.Conv2d(4, 4, 1, bias=False), nn.Identity(), nn.AdaptiveMaxPool2d(3), nn.CircularPad2d(1),
)  # fmt: skip


@pytest.mark.parametrize("op", PASSING, ids=lambda op: type(op).__name__)
def test_ops_that_hand_scales_on_let_the_factor_pass(op: nn.Module) -> None:
    x = torch.randn(3, 1, 6, 6, dtype=torch.float64)
    body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Hardswish(), Classic(0.3), op, nn.LazyConv2d(2, 2)).double()
    body(x)
    assert distance(eval_output(body, x), eval_output(fold(body, x), x)) < 1e-12


def between(*ops: nn.Module) -> nn.Sequential:
    """A dropout layer and ops between a GELU and a sigmoid: nothing to fold into on either side but through ops."""
    return nn.Sequential(linear(), nn.GELU(), Classic(0.3), *ops)


ILLEGAL: dict[str, tuple[nn.Module, str]] = {
    **{
        type(op).__name__: (between(op, linear()), f"{type(op).__name__} 3")
        for op in (nn.Sigmoid(), nn.Tanh(), nn.GELU(), nn.SiLU(), nn.ELU(), nn.Softplus(), nn.Softmax(1), nn.ReLU6(),
                   nn.Hardswish(), nn.Hardtanh(), nn.SELU(), nn.Mish(), nn.LogSoftmax(1), nn.LayerNorm(8),
                   nn.GroupNorm(2, 8), nn.BatchNorm1d(8, track_running_stats=False), nn.ConstantPad1d(1, 0.5),
                   nn.Threshold(0.1, 0.0), nn.Softshrink(), nn.Bilinear(8, 8, 2))
        if not isinstance(op, nn.Bilinear)
    },
    "output": (between(nn.ReLU()), "the model's output"),
    "input": (nn.Sequential(Classic(0.3), nn.ReLU(), nn.Tanh()), "Tanh 2 and the model's input"),
    "skip": (between(Residual(Classic(0.2)), linear()), r"add\(\)"),
    "far": (between(nn.ReLU(), nn.Dropout(0.1), nn.Flatten(), nn.Sigmoid()), "GELU 1 and Sigmoid 6"),
    "weight norm": (between(nn.utils.parametrizations.weight_norm(linear())), "ParametrizedLinear 3"),
    "recurrent": (between(nn.RNN(8, 8)), "RNN 3"),
}  # fmt: skip


@pytest.mark.parametrize("name", ILLEGAL)
def test_ops_that_hold_the_factor_back_are_refused_by_name(name: str) -> None:
    model, blocking = ILLEGAL[name]
    with pytest.raises(ValueError, match=rf"dropout layer '.*' \(p=0\.[23]\).*: no weight can take .*{blocking}"):
        fold(model, torch.randn(3, 8))
    if name != "BatchNorm1d":
        with pytest.raises(ValueError, match=blocking):
            convert(model, "inverted", torch.randn(3, 8))


class Function(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last = linear(), linear()
        self.drop = Classic(0.3)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.function(self.drop(torch.tanh(self.first(x)))))


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (torch.sigmoid, "sigmoid"),
        (lambda x: x.softmax(dim=1), "softmax"),
        (nn.functional.relu6, "relu6"),
        (lambda x: x + 1, "add"),
        (lambda x: x**2, "pow"),
        (lambda x: 1 / x, "truediv"),
        (lambda x: x.clamp(max=0.1), "clamp"),
        (lambda x: nn.functional.pad(x, (0, 0), value=0.1), "pad"),
        (lambda x: nn.functional.layer_norm(x, (8,)), "layer_norm"),
        (lambda x: torch.where(x > 0.1, x, 0.0), "gt"),
    ],
)
def test_functions_that_hold_the_factor_back_are_refused_by_name(function: Callable[..., Tensor], name: str) -> None:
    with pytest.raises(ValueError, match=rf"'drop' \(p=0.3\): no weight can take up its factor exactly .*{name}\(\)"):
        fold(Function(function), torch.randn(3, 8))
