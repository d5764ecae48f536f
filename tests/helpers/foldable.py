"""Parts of networks whose dropout can be folded into their weights, and how far two outputs are apart."""

import operator
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from dropout_lab.dropout import Dropout

Classic = partial(Dropout, scaling="classic")


class Residual(nn.Module):
    """x + body(x), or what else joins the two."""

    def __init__(self, *body: nn.Module, join: Callable[[Tensor, Tensor], Tensor] = operator.add) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)
        self.join = join

    def forward(self, x: Tensor) -> Tensor:
        return self.join(x, self.body(x))


def linear() -> nn.Linear:
    return nn.Linear(8, 8)


def eval_output(model: nn.Module, x: Tensor) -> Tensor:
    modes = [module.training for module in model.modules()]
    with torch.no_grad():
        y = model.eval()(x)
    for module, mode in zip(model.modules(), modes, strict=True):
        module.training = mode
    return y


def distance(a: Tensor, b: Tensor) -> float:
    return ((a - b).abs().max() / a.abs().max()).item()
