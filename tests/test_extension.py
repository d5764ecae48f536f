"""A new strategy is a subclass that overrides `draw`: three from the literature, as examples to copy.

`draw(x)` returns noise of mean 1 - p that broadcasts to x. Random bits come from `noise.bernoulli` or `noise.normal`,
which know about keyed masks: shape[0] is the batch, and each row's noise must depend on nothing but its own bits.
"""

import inspect
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_networks import convolutional
from torch import Tensor, nn

from dropout_lab.dropout import Dropout, Placement, check, install, mask_keys
from dropout_lab.dropout.noise import Rate, bernoulli, normal


class DropPath(Dropout):
    """Drop the whole sample: stochastic depth on the branch of a residual block (Huang et al. 2016).

    The same as ``Dropout(p, mask="sample")``.
    """

    def draw(self, x: Tensor) -> Tensor:
        return bernoulli(self, x, torch.Size([len(x), *(1 for _ in x.shape[1:])]), Rate.of(self.p))


class DropBlock(Dropout):
    """Drop squares of block x block pixels in each map (Ghiasi et al. 2018).

    The paper puts squares only where they fit, takes a rate that ignores overlaps, and makes up for both by dividing by
    the share of pixels kept in the batch; so a row would depend on the others. Here squares may hang over the border:
    each pixel lies under block^2 possible squares, and none of them is there with probability q if each is missing
    with probability q^(1/block^2). That is exact for every pixel, and nothing is left to renormalise.
    """

    def __init__(self, p: float = 0.1, block: int = 3, **axes: Any) -> None:
        super().__init__(p, **axes)
        self.block = block

    def draw(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        corners = torch.Size([n, c, h + self.block - 1, w + self.block - 1])
        missing = bernoulli(self, x, corners, Rate.of(1 - (1 - self.p) ** (1 / self.block**2)))
        return F.max_pool2d((~missing).float(), self.block, stride=1) == 0


class VariationalDropout(Dropout):
    """Gaussian dropout that learns its rate: noise N(1, alpha) and a KL divergence (Molchanov et al. 2017, eq. 14)."""

    def __init__(self, p: float = 0.5, **axes: Any) -> None:
        super().__init__(p, **axes)
        self.log_alpha = nn.Parameter(torch.tensor([math.log(p / (1 - p))]))

    def draw(self, x: Tensor) -> Tensor:
        return self.q * (1 + (self.log_alpha / 2).exp() * normal(self, x, x.shape))

    @property
    def learned_p(self) -> Tensor:
        return self.log_alpha.sigmoid()  # alpha = p / (1 - p)

    def penalty(self, fed: Sequence[nn.Module], rows: int) -> Tensor:
        fit = torch.sigmoid(1.87320 + 1.48695 * self.log_alpha)
        return (0.63576 * (1 - fit) + 0.5 * F.softplus(-self.log_alpha)).sum()


STRATEGIES = [DropPath, DropBlock, VariationalDropout]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_new_strategy_keeps_every_law(strategy: type[Dropout]) -> None:
    card = check(strategy(0.3))
    assert not card.failed, card


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_new_strategy_takes_any_scaling(strategy: type[Dropout]) -> None:
    for scaling in ("classic", "unscaled"):
        card = check(strategy(0.3, scaling=scaling), laws=["mean", "variance", "gain in train", "gain in eval"])
        assert not card.failed, card


def test_the_papers_rate_of_blocks_keeps_too_many_pixels() -> None:
    class Paper(DropBlock):
        def draw(self, x: Tensor) -> Tensor:
            seeds = bernoulli(self, x, x.shape, Rate.of(1 - self.p / self.block**2))
            return F.max_pool2d(seeds.float(), self.block, stride=1, padding=1) == 0

    assert check(Paper(0.5), laws=["mean"]).failed == ["mean"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_new_strategy_is_short(strategy: type[Dropout]) -> None:
    assert len(inspect.getsource(strategy).splitlines()) < 40


def test_drop_path_is_the_sample_mask() -> None:
    x = torch.randn(16, 3, 4)
    layers = DropPath(0.3), Dropout(0.3, mask="sample")
    outs = []
    for layer in layers:
        with mask_keys(seed=1, step=0, rows=range(16)):
            outs.append(layer(x))
    assert torch.equal(*outs)


def test_drop_block_drops_every_pixel_at_the_same_rate() -> None:
    """Corners, edges and the middle, within 4.5 standard errors."""
    with mask_keys(seed=1, step=0, rows=range(4096)):
        kept = DropBlock(0.3, block=3).draw(torch.ones(4096, 2, 6, 5)).double().mean((0, 1))
    assert (kept - 0.7).abs().max() < 4.5 * math.sqrt(0.21 / 8192)


def test_drop_block_drops_squares() -> None:
    """Every dropped pixel lies in a dropped square of block x block pixels, cut where it leaves the map."""
    with mask_keys(seed=1, step=0, rows=range(32)):
        dropped = ~DropBlock(0.2, block=3).draw(torch.ones(32, 4, 9, 9))
    wide = F.pad(dropped.float(), (2, 2, 2, 2), value=1.0)
    squares = -F.max_pool2d(-wide, 3, stride=1)  # 1 where all of a square is dropped
    assert 0.15 < dropped.double().mean() < 0.25
    assert torch.equal(F.max_pool2d(squares, 3, stride=1) > 0, dropped)


def test_a_block_of_one_pixel_is_plain_dropout() -> None:
    x = torch.ones(8, 4, 9, 9)
    with mask_keys(seed=1, step=0, rows=range(8)):
        blocks = DropBlock(0.3, block=1).draw(x)
    with mask_keys(seed=1, step=0, rows=range(8)):
        assert torch.equal(blocks, Dropout(0.3).draw(x))


def test_penalties_are_part_of_the_loss() -> None:
    """On targets that no input explains, the learned rate rises, as only noise-free fitting would keep it down."""
    torch.manual_seed(0)
    model = nn.Sequential(VariationalDropout(0.5), nn.Linear(8, 1))
    x, y = torch.randn(256, 8), torch.randn(256, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    rates = []
    for _ in range(50):
        loss = F.mse_loss(model(x), y) + sum(layer.penalty([], 1) for layer in model if hasattr(layer, "penalty"))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rates.append(model[0].log_alpha.item())
    assert rates[-1] > rates[0] + 1
    assert list(model.state_dict()) == ["0.log_alpha", "1.weight", "1.bias"]


@pytest.mark.parametrize("strategy", [DropPath, DropBlock])
def test_install_puts_a_new_strategy_anywhere(strategy: type[Dropout]) -> None:
    model = convolutional(nn.Identity(), size=8)
    (installed,) = install(model, strategy, Placement("convolutions", p=0.4))
    layer = model[0].get_submodule("dropout")
    assert isinstance(layer, strategy)
    assert (layer.name, layer.p) == (installed.name, 0.4)
    with mask_keys(seed=1, step=0, rows=range(4)):
        model(torch.randn(4, 1, 8, 8)).sum().backward()
