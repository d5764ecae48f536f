"""Laws of the part before dropout: computed once, and the rest gives what the whole model gives."""

from collections.abc import Callable

import pytest
import torch
from ensemble_models import KINDS, batch, make
from torch import Tensor, nn

from dropout_lab.dropout import Dropout
from dropout_lab.dropout.ensembles.prefix import Prefix
from dropout_lab.dropout.graph.modes import dropout_only


@pytest.mark.parametrize(("kind", "batched"), [("residual", True), ("size", False), ("turned", False), ("input", True)])
def test_copies_are_made_only_where_the_batch_leads(kind: str, batched: bool) -> None:
    model, x = make(KINDS[kind]), batch()
    with dropout_only(model, on=False):
        parts = Prefix(model)
        values = parts.start(x)
        assert (parts.largest_chunk(x, values) > 1) is batched
        torch.testing.assert_close(parts.finish(values)[0], model(x), rtol=0, atol=0)


class Branch(nn.Sequential):
    """A chain's modules in a forward pass with more to it: the batch is not the leading dimension."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.t()).t()  # type: ignore[no-any-return]


class Watched(nn.Linear):
    """A step that is not known to work row by row, and does not: the mean of the batch is taken off."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y - y[0]


def hooked() -> nn.Module:
    last = nn.Linear(8, 3)
    last.register_forward_hook(lambda module, args, output: output - output.mean(0))
    return nn.Sequential(nn.Linear(6, 8), Dropout(0.5), last)


@pytest.mark.parametrize(
    "kind",
    [
        lambda: Branch(Dropout(0.5), nn.Linear(5, 5), nn.Linear(5, 5)),
        lambda: nn.Sequential(nn.Linear(6, 8), Dropout(0.5), Watched(8, 3)),
        lambda: nn.Sequential(nn.Linear(6, 8), Dropout(0.5), nn.BatchNorm1d(8, track_running_stats=False)),
        hooked,
    ],
    ids=["forward", "step", "mean", "hook"],
)
def test_a_chain_with_more_to_it_is_no_chain(kind: Callable[[], nn.Module]) -> None:
    model, x = make(kind), batch()
    with dropout_only(model, on=False):
        parts = Prefix(model)
        values = parts.start(x)
        assert parts.largest_chunk(x, values) == 1
        torch.testing.assert_close(parts.finish(values)[0], model(x), rtol=0, atol=0)


def test_a_module_that_stands_in_a_chain_twice_is_called_twice() -> None:
    squash = nn.Tanh()
    model, x = make(lambda: nn.Sequential(nn.Linear(6, 3), squash, nn.Linear(3, 3), squash, nn.Dropout(0.5))), batch()
    with dropout_only(model, on=False):
        parts = Prefix(model)
        assert torch.equal(parts.finish(parts.start(x))[0], model(x))
