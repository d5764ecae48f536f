"""The laws find what is wrong with a layer, and nothing wrong with the strategies of the lab."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from timm.layers import DropPath
from torch import Tensor, nn

from dropout_lab.dropout import Dropout, check

STRATEGIES = sorted((Path(__file__).parents[2] / "conf" / "dropout").glob("*.yaml"))
LAWS = [
    "mean", "variance", "gain in train", "gain in eval", "gradient", "identity", "dtypes", "compile", "keys repeat",
    "keys split", "keys and dtype", "keys alone", "pickling",
]  # fmt: skip
KEYS = ["keys repeat", "keys split", "keys and dtype", "keys alone"]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda path: path.stem)
def test_every_strategy_keeps_every_law(strategy: Path) -> None:
    card = check(instantiate(OmegaConf.load(strategy))(p=0.3))
    assert not card.failed, card
    assert [law.name for law in card.laws] == LAWS


@pytest.mark.parametrize(
    "layer", [nn.Dropout(0.3), nn.Dropout2d(0.3), DropPath(0.3), DropPath(0.3, scale_by_keep=False)], ids=str
)
def test_other_peoples_dropout_keeps_all_laws_but_keys(layer: nn.Module) -> None:
    card = check(layer)
    assert card.failed == KEYS, card


# Broken layers, and the laws that say so


class WrongScale(Dropout):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (1.1 if self.training and self.p else 1)


class ScaledInEval(Dropout):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if self.training else x * (1 - self.p)


class NotScaledInEval(Dropout):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if self.training else x


class ShrinksInsteadOfDropping(Dropout):
    def draw(self, x: Tensor) -> Tensor:
        return super().draw(x) * 0.5 + 0.5 * (1 - self.p)


class DropsLargeInputs(Dropout):
    def draw(self, x: Tensor) -> Tensor:
        return super().draw(x) & (x < 2)


class OtherMaskInBackward(Dropout):
    class Product(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, factor: Tensor) -> Tensor:
            ctx.save_for_backward(factor)
            return x * factor

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
            return grad * ctx.saved_tensors[0].flip(0), None

    def forward(self, x: Tensor) -> Tensor:
        return self.Product.apply(x, super().forward(torch.ones_like(x))) if self.training and self.p else x


class DrawsInEval(Dropout):
    def forward(self, x: Tensor) -> Tensor:
        torch.rand(())
        return super().forward(x)


class NoisyAtZero(Dropout):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if self.p else x + 1


class SinglePrecision(Dropout):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float()).to(torch.promote_types(x.dtype, torch.float32))


class NoHalf(Dropout):
    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == torch.float16:
            raise NotImplementedError("half precision\nsecond line")
        return super().forward(x)


class BreaksTheGraph(Dropout):
    def forward(self, x: Tensor) -> Tensor:
        torch._dynamo.graph_break()
        return super().forward(x)


class OtherWhenCompiled(Dropout):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(-x if torch.compiler.is_compiling() else x)


class SameEveryStep(Dropout):
    def draw(self, x: Tensor) -> Tensor:
        return (torch.arange(x.numel()).view(x.shape) * 0x9E3779B1 >> 16) & 1 == 1


class DependsOnThePlaceInTheBatch(Dropout):
    def draw(self, x: Tensor) -> Tensor:
        return super().draw(x) ^ (torch.arange(len(x)) % 2 == 1).view(-1, *(1,) * (x.ndim - 1))


class DependsOnDtype(Dropout):
    def draw(self, x: Tensor) -> Tensor:
        return super().draw(x) ^ (x.dtype == torch.bfloat16)


class DependsOnMemory(Dropout):
    def draw(self, x: Tensor) -> Tensor:
        return super().draw(x) ^ (x.stride(-1) == 1)


class UsesTorchsGenerator(Dropout):
    def draw(self, x: Tensor) -> Tensor:
        return torch.rand_like(x, dtype=torch.float32) < 1 - self.p


class AdvancesTorchsGenerator(Dropout):
    def draw(self, x: Tensor) -> Tensor:
        torch.rand(())
        return super().draw(x)


class NotPicklable(Dropout):
    def __init__(self, p: float, **axes: Any) -> None:
        super().__init__(p, **axes)
        self.function = lambda x: x


class ForgetsItsRate(Dropout):
    def __reduce__(self) -> tuple[Any, ...]:
        return ForgetsItsRate, (0.1,)


BROKEN: list[tuple[nn.Module, list[str]]] = [
    (WrongScale(0.5), ["mean", "variance", "gain in train", "dtypes"]),
    (ScaledInEval(0.5), ["gain in eval", "identity"]),
    (NotScaledInEval(0.5, scaling="classic"), ["gain in eval"]),
    (ShrinksInsteadOfDropping(0.5), ["variance"]),
    (DropsLargeInputs(0.5), ["gain in train"]),
    (OtherMaskInBackward(0.5), ["gradient"]),
    (DrawsInEval(0.5), ["identity", "keys alone"]),
    (NoisyAtZero(0.5), ["identity"]),
    (SinglePrecision(0.5), ["gradient", "identity", "dtypes"]),  # the first two are looked at in float64
    (NoHalf(0.5), ["dtypes", "keys and dtype"]),
    (BreaksTheGraph(0.5), ["compile"]),
    (OtherWhenCompiled(0.5), ["compile"]),
    (SameEveryStep(0.5), ["keys repeat", "keys split"]),
    (DependsOnThePlaceInTheBatch(0.5), ["keys split"]),
    (DependsOnDtype(0.5), ["keys and dtype"]),
    (DependsOnMemory(0.5), ["keys and dtype"]),
    (UsesTorchsGenerator(0.5), KEYS),
    (AdvancesTorchsGenerator(0.5), ["keys alone"]),
    (NotPicklable(0.5), ["pickling"]),
    (ForgetsItsRate(0.5), ["variance", "pickling"]),  # statistics are those of a copy
]


@pytest.mark.slow
@pytest.mark.parametrize(("layer", "laws"), BROKEN, ids=lambda value: type(value).__name__)
def test_a_broken_layer_fails_the_laws_it_breaks(layer: nn.Module, laws: list[str]) -> None:
    # Compiling takes longer than all the rest.
    named = laws if "compile" in laws else [law for law in LAWS if law != "compile"]
    card = check(layer, shape=(400, 3, 9, 10), laws=named)
    assert card.failed == laws, card
