"""Concrete dropout against the formulas of its paper, and what is learned by it."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dropout_lab.dropout import check, mask_keys
from dropout_lab.dropout.concrete import ConcreteDropout
from dropout_lab.dropout.noise import uniform


@pytest.mark.slow
@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_concrete_dropout_keeps_every_law(p: float) -> None:
    for axes in ({}, {"scaling": "classic"}, {"mask": "sample"}):
        card = check(ConcreteDropout(p, **axes))
        assert not card.failed, card


@given(st.floats(0.01, 0.99), st.floats(0.05, 2))
def test_what_is_kept_is_the_formula_of_the_paper(p: float, temperature: float) -> None:
    layer, x = ConcreteDropout(p, temperature=temperature).double(), torch.ones(4, 8, dtype=torch.float64)
    with mask_keys(0, 0, range(4)):
        kept = layer.draw(x)
    with mask_keys(0, 0, range(4)):
        u = uniform(layer, x, x.shape)
    dropped = torch.sigmoid((math.log(p) - math.log(1 - p) + u.log() - (1 - u).log()) / temperature)
    torch.testing.assert_close(kept, 1 - dropped, rtol=1e-5, atol=1e-6)


def test_a_low_temperature_drops_all_or_nothing_at_the_rate() -> None:
    with mask_keys(0, 0, range(512)):
        kept = ConcreteDropout(0.3, temperature=1e-6).draw(torch.ones(512, 64))
    assert ((kept == 0) | (kept == 1)).double().mean() > 0.999
    assert kept.mean().item() == pytest.approx(0.7, abs=5 * math.sqrt(0.21 / kept.numel()))


def test_maps_are_kept_to_one_share() -> None:
    with mask_keys(0, 0, range(4)):
        kept = ConcreteDropout(0.3, mask="channel").draw(torch.ones(4, 8, 3, 3))
    assert kept.shape == (4, 8, 1, 1)


def by_hand(p: float, weights: torch.Tensor, units: int, rows: int, length: float) -> float:
    """The KL divergence of the paper, up to a constant, over the number of samples; weights as the mask meets them."""
    entropy = -p * math.log(p) - (1 - p) * math.log(1 - p)
    return (length**2 * (1 - p) / 2 * weights.square().sum().item() - units * entropy) / rows


@pytest.mark.parametrize("scaling", ["inverted", "classic", "unscaled"])
@pytest.mark.parametrize("fed", [[nn.Linear(6, 3)], [nn.Conv2d(4, 2, 3, groups=2)], [nn.Linear(6, 3), nn.Linear(6, 2)]])
def test_the_penalty_is_the_divergence_of_the_paper(fed: list[nn.Module], scaling: str) -> None:
    layer: Any = ConcreteDropout(0.2, scaling=scaling, length_scale=2.0)
    weights = torch.cat([each.weight.detach().flatten() for each in fed])  # type: ignore[operator]
    units = 4 if isinstance(fed[0], nn.Conv2d) else 6
    scale = 0.8 if scaling == "inverted" else 1
    assert layer.penalty(fed, 50).item() == pytest.approx(by_hand(0.2, weights / scale, units, 50, 2.0), rel=1e-5)
    layer.rows = 1000
    assert layer.penalty(fed, 50).item() == pytest.approx(by_hand(0.2, weights / scale, units, 1000, 2.0), rel=1e-5)


def test_a_layer_that_feeds_none_has_its_entropy_alone() -> None:
    assert ConcreteDropout(0.5).penalty([], 10).item() == pytest.approx(-math.log(2) / 10)


def learned(signal: float, rows: int = 64) -> float:
    """The p that training ends with, where so much of the targets can be told from the inputs."""
    torch.manual_seed(0)
    net = nn.Sequential(ConcreteDropout(0.3), nn.Linear(16, 1))
    x = torch.randn(rows, 16)
    y = signal * x.sum(1, keepdim=True) + (1 - signal) * torch.randn(rows, 1)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
    for step in range(200):
        with mask_keys(0, step, range(rows)):
            loss = F.mse_loss(net(x), y) + net[0].penalty([net[1]], rows)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float(net[0].p)


def test_what_can_be_told_from_inputs_is_dropped_less_than_what_can_not() -> None:
    assert learned(1.0) < 0.05 < 0.1 < learned(0.0)


@pytest.mark.parametrize(
    ("argument", "value", "rule"),
    [
        ("p", 0, "must be > 0, as a rate of 0 learns nothing"),
        ("temperature", 0, "must be a finite number > 0"),
        ("temperature", math.nan, "must be a finite number > 0"),
        ("length_scale", -1, "must be a finite number >= 0"),
        ("rows", 0, "must be > 0, or null for as many as there are"),
    ],
)
def test_an_argument_outside_its_range_is_refused(argument: str, value: float, rule: str) -> None:
    with pytest.raises(ValueError, match=f"^{argument}={value}: {rule}$"):
        ConcreteDropout(**{argument: value})  # type: ignore[arg-type]
