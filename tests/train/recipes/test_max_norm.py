"""Laws of max-norm: which weights are shortened, to what, and that nothing else depends on it."""

import lightning
import pytest
import torch
from classifying import trainable
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dropout_lab.data import Synthetic
from dropout_lab.dropout import Dropout, match_inverted
from dropout_lab.modules.classification import Classifier
from dropout_lab.train.recipes.max_norm import MaxNorm, shorten

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers", "ignore:.*smaller than the logging interval", "ignore:.*LeafSpec"
)
SHAPES = st.sampled_from([(5, 7), (4, 3, 2, 2), (3, 2, 4), (2, 1, 1, 2, 2), (1, 1)])


def norms(weight):
    return weight.detach().flatten(1).norm(dim=1)


@pytest.mark.slow
@given(SHAPES, st.integers(0, 2**32), st.floats(0.01, 10), st.floats(0.01, 10))
def test_long_rows_are_projected_onto_the_ball_and_short_ones_stay_to_the_last_bit(shape, seed, spread, radius):
    before = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * spread
    after = before.clone()
    shorten(after, radius)
    expected = torch.stack([row * min(1, radius / row.norm().item()) for row in before])
    torch.testing.assert_close(after, expected)
    assert (norms(after) <= radius * (1 + 1e-6)).all()
    short = norms(before) < radius * (1 - 1e-6)
    assert torch.equal(after[short], before[short])


@given(SHAPES, st.integers(0, 2**32), st.floats(0.01, 10))
def test_weights_and_radius_can_be_scaled_together(shape, seed, radius):
    """Scaled together to the last bit for powers of two: what makes matched training possible."""
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    twice = 2 * weight
    shorten(weight, radius)
    shorten(twice, 2 * radius)
    assert torch.equal(twice, 2 * weight)


def test_a_row_of_zeros_stays():
    weight = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    shorten(weight, 1.0)
    torch.testing.assert_close(weight, torch.tensor([[0.0, 0.0], [0.6, 0.8]]))


@pytest.mark.parametrize("radius", [0, -1.0, float("nan"), float("inf"), True, "3"])
def test_a_radius_that_is_none_is_refused(radius):
    with pytest.raises(ValueError, match=r"callbacks.max_norm.radius=.*must be a number > 0"):
        MaxNorm(radius)


# In training.


def network(scaling="inverted"):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            *(nn.Conv2d(1, 4, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 8), nn.ReLU()),
            *(Dropout(0.5, scaling=scaling), nn.Linear(8, 3)),
        )


def train(net, optimizer, *callbacks, **options):
    samples = Synthetic(size=90, shape=[1, 3, 3], num_classes=3, noise=2.0, batch_size=8, seed=0)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    machine = {"accelerator": "cpu", "devices": 1, "enable_checkpointing": False}
    trainer = lightning.Trainer(**{**quiet, **machine, "max_epochs": 3, **options}, callbacks=list(callbacks))
    trainer.fit(trainable(Classifier(net), optimizer), samples)
    return net


def sgd(net, lr=0.5):
    return torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)


class After(lightning.Callback):
    """The longest row of each layer after each batch, and how many rows are at the bound."""

    def __init__(self):
        self.longest, self.bound = [], 0

    def on_train_batch_end(self, trainer, module, *_):
        found = [norms(module.net[number].weight) for number in (0, 4, 7)]
        self.longest += [each.max().item() for each in found]
        self.bound += sum(int((each > 0.999 * 0.4).sum()) for each in found)


@pytest.mark.parametrize("accumulated", [1, 2])
def test_after_each_step_no_unit_is_longer_than_the_radius_and_some_would_be(accumulated):
    seen, net = After(), network()
    train(net, sgd(net), MaxNorm(0.4), seen, accumulate_grad_batches=accumulated)
    stepped = seen.longest if accumulated == 1 else seen.longest[3:]  # before the first step weights are as drawn
    assert max(stepped) <= 0.4 * (1 + 1e-6)
    assert seen.bound > 10
    free = network()
    train(free, sgd(free))
    assert max(norms(free[4].weight)) > 0.4


def test_only_weights_of_linear_and_convolution_are_bounded():
    net = network()
    train(net, sgd(net), MaxNorm(0.01))
    assert net[1].weight.abs().min() > 0.01  # of BatchNorm
    assert max(net[4].bias.abs().max(), net[7].bias.abs().max()) > 0.01


def test_a_radius_that_nothing_reaches_changes_nothing():
    bounded, free = network(), network()
    train(bounded, sgd(bounded), MaxNorm(1e6))
    train(free, sgd(free))
    assert all(torch.equal(a, b) for a, b in zip(bounded.parameters(), free.parameters(), strict=True))


def test_matched_classic_dropout_has_radius_c_over_q_and_trains_as_its_inverted_twin():
    """Matched at p = 0.5 the weights are twice the twin's to the last bit."""
    inverted, classic = network(), network("classic")
    optimizer = match_inverted(
        classic, lambda groups: torch.optim.SGD(groups, lr=0.5, momentum=0.9), torch.randn(2, 1, 3, 3)
    )
    train(inverted, sgd(inverted), MaxNorm(0.4))
    train(classic, optimizer, MaxNorm(0.4))
    assert torch.equal(classic[7].weight, 2 * inverted[7].weight)
    assert torch.equal(classic[4].weight, inverted[4].weight)
    assert norms(classic[7].weight).max() == pytest.approx(0.8, rel=1e-4)


def test_training_can_go_on_from_a_checkpoint(tmp_path):
    whole, half, rest = network(), network(), network()
    train(whole, sgd(whole), MaxNorm(0.4), max_epochs=4)
    samples = Synthetic(size=90, shape=[1, 3, 3], num_classes=3, noise=2.0, batch_size=8, seed=0)
    options = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    first = lightning.Trainer(**options, enable_checkpointing=False, max_epochs=2, callbacks=[MaxNorm(0.4)])
    first.fit(trainable(Classifier(half), sgd(half)), samples)
    first.save_checkpoint(tmp_path / "half.ckpt")
    second = lightning.Trainer(**options, enable_checkpointing=False, max_epochs=4, callbacks=[MaxNorm(0.4)])
    second.fit(trainable(Classifier(rest), sgd(rest)), samples, ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert all(torch.equal(a, b) for a, b in zip(rest.parameters(), whole.parameters(), strict=True))
