"""What the laws of keyed masks are tested with."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dropout_lab.dropout import Dropout, mask_keys

Rows = Sequence[int] | Tensor
T = TypeVar("T")


def layer(p: float = 0.5, name: str | None = "00_drop", **axes: Any) -> Dropout:
    """A layer with a name, or None."""
    made = Dropout(p, **axes)
    made.name = name
    return made


def draw(of: Dropout, x: Tensor, seed: int = 1, step: int = 2, rows: Rows | None = None) -> Tensor:
    """Noise of a layer for x, in a context of its own."""
    with mask_keys(seed, step, range(len(x)) if rows is None else rows):
        return of.draw(x)


def assert_independent(first: Tensor, second: Tensor, p: float) -> None:
    """Two masks have no correlation beyond chance, and the four outcomes are as frequent as they should be.

    Of n elements: |correlation| * sqrt(n) below 4.5, which chance exceeds 7 times in a million, and chi-square of the
    outcomes against their probabilities (3 degrees of freedom) below 28: 4 times.
    """
    a, b, n = first.flatten().double(), second.flatten().double(), first.numel()
    correlation = torch.corrcoef(torch.stack([a, b]))[0, 1].item()
    assert abs(correlation) * n**0.5 < 4.5
    q = 1 - p
    cells = torch.tensor([[p * p, p * q], [q * p, q * q]], dtype=torch.float64) * n
    counts = torch.bincount((2 * a + b).int(), minlength=4).view(2, 2)
    assert ((counts - cells).square() / cells).sum().item() < 28


def segment(p: float = 0.5, name: str = "00_drop") -> nn.Sequential:
    """A part of a network to be checkpointed, always with the same weights."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 40), layer(p, name), nn.Tanh(), nn.Linear(40, 6)).double()


def gradients(parts: list[nn.Sequential], x: Tensor, forward: Callable[..., Tensor]) -> list[Tensor]:
    """Gradients of keyed training steps whose backward passes run after their contexts closed, last step first."""
    losses = []
    for step in range(3):
        with mask_keys(1, step, range(len(x))):
            y = x
            for part in parts:
                y = forward(part, y)
            losses.append(y.square().sum())
    results = []
    for loss in reversed(losses):
        loss.backward()
        for weight in (weight for part in parts for weight in part.parameters()):
            results.append(weight.grad)
            weight.grad = None
    return results


@torch._dynamo.config.patch(skip_fwd_side_effects_in_bwd_under_checkpoint=True)
@partial(torch.compile, fullgraph=True, backend="aot_eager")
def compiled_checkpoint(part: nn.Sequential, x: Tensor) -> Tensor:
    """In one graph with its recomputation, which torch does where it may forget there that a layer counts its calls."""
    return checkpoint(part, x, use_reentrant=False)


def in_threads(*functions: Callable[[], T]) -> list[T]:
    """What functions return that run at the same time, each in a thread of its own; an error of one is raised."""
    with ThreadPoolExecutor(len(functions)) as threads:
        futures = [threads.submit(function) for function in functions]
    return [future.result() for future in futures]


def alone(function: Callable[[], T]) -> T:
    """What a function returns that runs in a thread of its own."""
    return in_threads(function)[0]
