"""Laws of operations: those that let a factor pass fold exactly, every other is refused by its name."""

import inspect
from collections.abc import Callable

import pytest
import torch
from foldable import Classic, Residual, distance, eval_output, linear
from torch import Tensor, nn
from torchvision.ops import Permute, StochasticDepth

from dropout_lab.dropout.folding import operations
from dropout_lab.dropout.folding.fold import convert, fold
from dropout_lab.dropout.folding.match import factors_of_matching

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
        (lambda x: torch.mul(x, other=x), "mul"),
        (lambda x: torch.div(x, 0.1, rounding_mode="floor"), "div"),
    ],
)
def test_functions_that_hold_the_factor_back_are_refused_by_name(function: Callable[..., Tensor], name: str) -> None:
    with pytest.raises(ValueError, match=rf"'drop' \(p=0.3\): no weight can take up its factor exactly .*{name}\(\)"):
        fold(Function(function), torch.randn(3, 8))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x @ x.T @ x,
        lambda x: torch.tanh(torch.ones(8, 8, dtype=x.dtype)) @ x,
        lambda x: torch.bmm(x[None], torch.ones(1, 8, 8, dtype=x.dtype).sin())[0],
        lambda x: x.matmul(x),
    ],
)
def test_the_scale_of_a_product_of_matrices_is_that_of_both_together(function: Callable[[Tensor], Tensor]) -> None:
    model, x = Function(function).double(), torch.randn(8, 8, dtype=torch.float64)
    assert distance(eval_output(model, x), eval_output(fold(model, x), x)) < 1e-12


LISTED = [
    *operations.AFFINE, *operations.BATCH_NORMS, *operations.NORMS, nn.MultiheadAttention,
    nn.ReLU, nn.PReLU, nn.MaxPool2d, nn.AdaptiveAvgPool2d, nn.LPPool1d, nn.ZeroPad2d, nn.ReflectionPad1d, nn.Flatten,
    nn.Unflatten, nn.Upsample, nn.Identity, nn.Dropout, nn.AlphaDropout, StochasticDepth, Permute,
]  # fmt: skip


@pytest.mark.parametrize("kind", sorted(LISTED, key=str), ids=lambda kind: kind.__name__)
def test_a_subclass_counts_as_the_class_whose_calculation_it_inherits_unchanged(kind: type[nn.Module]) -> None:
    def of(**members: object) -> type[nn.Module]:
        made = type("Sub", (kind,), members)
        return operations.kind_of(made.__new__(made))

    assert of() is of(extra_repr=lambda self: "", __init__=lambda self: None) is kind
    assert {of(**{name: lambda self, *args: None}) for name in operations.CALLED} == {nn.Module}


@pytest.mark.parametrize("kind", sorted(LISTED, key=str), ids=lambda kind: kind.__name__)
def test_no_method_that_takes_part_in_a_calculation_is_forgotten(kind: type[nn.Module]) -> None:
    todo, seen = ["forward"], set()
    while todo:
        seen.add(name := todo.pop())
        used = inspect.unwrap(getattr(kind, name)).__code__.co_names
        methods = {each for each in used if inspect.isfunction(getattr(kind, each, None))} - vars(nn.Module).keys()
        todo += methods - seen
    assert seen <= operations.CALLED


class DropPath(nn.Module):
    """Listed by its name, and not to be seen through: its mask is not computed from the numbers of its input."""

    __module__ = "timm.layers.drop"

    def forward(self, x: Tensor) -> Tensor:
        return x * x.new_empty(x.shape[0], 1).bernoulli_(0.5) if self.training else x


def test_what_is_listed_is_not_looked_into() -> None:
    for kind in (DropPath, type("Renamed", (DropPath,), {})):
        model = nn.Sequential(linear(), nn.GELU(), Classic(0.5), kind(), linear())
        assert factors_of_matching(model, torch.randn(3, 8)) == {"4.weight": 2.0}


class Scripted(nn.Linear):
    """A linear layer with a forward of its own that computes the same, as timm has one."""

    def forward(self, input: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            return torch.zeros(1)
        return nn.functional.linear(input, self.weight, bias=self.bias)


class Standardised(nn.Linear):
    """A linear layer whose weight is computed from the one that it keeps."""

    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.linear(input, nn.functional.layer_norm(self.weight, (8,)), self.bias)


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.rand(8) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gain


class Convolution(nn.Conv1d):
    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.conv1d(input.unsqueeze(1), self.weight, self.bias, padding=1).flatten(1)


class Norm(nn.LayerNorm):
    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)


class Doubled(nn.ReLU):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


READABLE: dict[str, Callable[[], list[nn.Module]]] = {
    "linear": lambda: [Classic(0.3), Scripted(8, 8)],
    "linear without bias": lambda: [Classic(0.3), Scripted(8, 8, bias=False)],
    "linear before": lambda: [Scripted(8, 8), Classic(0.3)],
    "computed weight": lambda: [Classic(0.3), Standardised(8, 8), linear()],
    "scale": lambda: [Classic(0.3), Scale()],
    "convolution": lambda: [Classic(0.3), Convolution(1, 1, 3)],
    "norm before": lambda: [Norm(8), Classic(0.3)],
    "activation": lambda: [Classic(0.3), Doubled(), linear()],
}


@pytest.mark.parametrize("name", READABLE)
def test_modules_with_a_forward_of_their_own_are_looked_into(name: str) -> None:
    model = nn.Sequential(linear(), nn.GELU(), *READABLE[name](), nn.Tanh()).double()
    with torch.no_grad():
        for parameter in model[2:].parameters():
            parameter += 0.5  # no bias is 0, no weight of a norm is 1
    x = torch.randn(4, 8, dtype=torch.float64)
    before = eval_output(model, x)
    assert distance(before, eval_output(fold(model, x), x)) < 1e-12
    assert distance(before, eval_output(convert(model, "inverted", x), x)) < 1e-12


class Capped(nn.Linear):
    """As a linear layer on any example but those with very large numbers."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.clamp(max=1e6))


class Padded(nn.ZeroPad1d):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).clamp(max=1e6)


class Closed(nn.Linear):
    """A linear layer that torch.fx can't follow."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input if input.sum() < 1e6 else -input)


def patched() -> nn.Linear:
    layer = linear()
    layer.forward = lambda x: Capped.forward(layer, x)  # type: ignore[method-assign]
    return layer


@pytest.mark.parametrize(
    ("layer", "blocking"),
    [
        (Capped(8, 8), r"clamp\(\) in 3"),
        (Padded(0), r"clamp\(\) in 3"),
        (Closed(8, 8), "Closed 3"),
        (patched(), "Linear 3"),
    ],
    ids=["linear", "pad", "control flow", "patched"],
)
def test_subclasses_that_compute_something_else_hold_the_factor_back(layer: nn.Module, blocking: str) -> None:
    model = between(layer, linear())
    for change in (fold, lambda model, x: convert(model, "inverted", x)):
        with pytest.raises(ValueError, match=rf"no weight can take .*{blocking}"):
            change(model, torch.randn(3, 8))


def test_what_a_hook_sees_of_a_module_that_is_looked_into_are_tensors() -> None:
    model, x = between(Scripted(8, 8)), torch.randn(3, 8)
    seen: list[float] = []
    model[3].register_forward_hook(lambda module, args, output: seen.append(float(output.sum())))
    assert distance(eval_output(model, x), eval_output(fold(model, x), x)) < 1e-6
    assert seen


@pytest.mark.parametrize("shaped", [lambda w: w.reshape(1, -1, 1, 1), lambda w: w.unsqueeze(0).view(1, 4, 1, 1)])
def test_a_factor_passes_a_product_with_a_parameter_in_another_shape(shaped: Callable[[Tensor], Tensor]) -> None:
    class Scaled(nn.Module):
        """A layer scale as in timm's ConvNeXt."""

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.gamma, self.drop = nn.Conv2d(4, 4, 1), nn.Parameter(torch.randn(4)), Classic(0.5)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.drop(self.conv(x).mul(shaped(self.gamma)))

    model, x = Scaled().double().eval(), torch.randn(2, 4, 3, 3, dtype=torch.float64)
    assert distance(eval_output(fold(model, x), x), eval_output(model, x)) < 1e-12
