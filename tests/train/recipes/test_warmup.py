"""Laws of the learning rate with warm-up."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dropout_lab.train.recipes.warmup import warmup_cosine


def made(warmup, total):
    """An optimizer with two groups of other rates, and its schedule."""
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (1.0, 0.25)]
    optimizer = torch.optim.SGD(groups)
    return optimizer, warmup_cosine(optimizer, warmup, total)


def rates(optimizer, schedule, epochs):
    seen = []
    for _ in range(epochs):
        seen.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    return seen


@pytest.fixture(scope="module", autouse=True)
def first_optimizer():
    """The first optimizer imports half of torch, which is not to count as the time of an example."""
    made(1, 1)


@given(st.integers(0, 10), st.integers(1, 40))
def test_the_rate_rises_in_equal_steps_then_falls_along_a_cosine_in_every_group(warmup, epochs):
    for epoch, (first, second) in enumerate(rates(*made(warmup, epochs), epochs)):
        if epoch < warmup:
            expected = (epoch + 1) / (warmup + 1)
        else:
            expected = (1 + math.cos(math.pi * (epoch - warmup) / (epochs - warmup))) / 2
        assert first == pytest.approx(expected, abs=1e-9)
        assert second == pytest.approx(first / 4, abs=1e-12)


@pytest.mark.parametrize("at", range(8))
def test_it_goes_on_from_its_state(at):
    optimizer, schedule = made(3, 8)
    whole = rates(*made(3, 8), 8)
    first = rates(optimizer, schedule, at)
    other, rest = made(3, 8)
    other.load_state_dict(optimizer.state_dict())
    rest.load_state_dict(schedule.state_dict())
    assert first + rates(other, rest, 8 - at) == whole


def test_a_negative_warm_up_is_refused():
    with pytest.raises(ValueError, match=r"lr_scheduler.warmup=-1: must be a number of epochs, or of steps, >= 0"):
        made(-1, 3)
