"""Laws of a trial: what can't be trained or measured is told by its name, and nothing of it is left behind."""

import copy
import random
from contextlib import nullcontext

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from classifying import data, network
from torch import nn
from torch.utils.checkpoint import checkpoint

from dropout_lab.dropout import Dropout, Placement, install
from dropout_lab.dropout.placement.other_noise import switch_off
from dropout_lab.modules.classification import Classifier
from dropout_lab.modules.columns import Column
from dropout_lab.modules.r_drop import RDrop
from dropout_lab.train import trial
from dropout_lab.train.trial import ROWS, require_step


@pytest.fixture
def batch():
    return data().example(ROWS)


def everything(module):
    return [*module.state_dict().values(), *(each.grad for each in module.parameters()), torch.get_rng_state()]


@pytest.mark.parametrize("keyed", [True, False])
def test_a_trial_leaves_nothing_behind(keyed, batch):
    body = nn.Sequential(nn.Flatten(), nn.Linear(9, 4), nn.BatchNorm1d(4), Dropout(0.5), nn.Linear(4, 3))
    module = Classifier(body)
    module.net[1].eval()
    before, modes = copy.deepcopy(everything(module)), [each.training for each in module.modules()]
    require_step(module, batch, batch, keyed)
    for one, other in zip(everything(module), before, strict=True):
        assert (one is None and other is None) or torch.equal(one, other)
    assert [each.training for each in module.modules()] == modes


def test_what_a_module_keeps_in_eval_mode_is_in_eval_mode_in_the_step_too(batch):
    class Taught(Classifier):
        def loss(self, batch):
            seen.append((self.net.training, self.teacher.training))
            return super().loss(batch)

    seen, module = [], Taught(nn.Sequential(nn.Flatten(), nn.Linear(9, 3)))
    module.teacher = nn.Dropout(0.5).eval()
    require_step(module, batch, batch, keyed=True)
    assert seen == [(True, False)]


class Drops(nn.Module):
    """Forgets that in evaluation nothing is dropped."""

    def forward(self, x):
        return F.dropout(x, 0.5)


class Attends(nn.Module):
    """The same inside attention, where nobody sees it."""

    def forward(self, x):
        x = x.flatten(1)[:, :, None]
        return F.scaled_dot_product_attention(x, x, x, dropout_p=0.9).flatten(1)


@pytest.mark.parametrize("kind", [Drops, Attends])
def test_a_network_that_drops_in_evaluation_is_refused_by_the_path_of_the_module(kind, batch):
    net = nn.Sequential(nn.Flatten(), nn.Sequential(nn.Identity(), kind()), nn.Linear(9, 3))
    with pytest.raises(ValueError, match=r"^two passes in eval mode differ from 1\.1 on: it drops"):
        require_step(Classifier(net), batch, batch, keyed=True)


def test_a_network_whose_numbers_are_nan_is_another_matter(batch):
    class Divides(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :3] * float("nan")

    require_step(Classifier(nn.Sequential(Divides(), nn.Linear(3, 3))), batch, batch, keyed=True)


class Scores(Classifier):
    """Measures what a test gives it."""

    def __init__(self, net, scores):
        super().__init__(net)
        self.measured = scores

    def scores(self, prediction, batch):
        return self.measured


@pytest.mark.parametrize(
    ("scores", "told"),
    [
        ({"loss": torch.zeros(2), "acc": torch.zeros(1)}, r"its score 'acc' has the shape \(1,\): must be \(rows,\)"),
        ({"loss": torch.zeros(2, 3, 4), "acc": torch.zeros(2)}, r"its score 'loss' has the shape \(2, 3, 4\)"),
        ({"loss": torch.zeros(2)}, r"its column 'acc' has no number; it measures loss"),
    ],
)
def test_scores_are_a_row_a_sample_and_have_every_column(scores, told, batch):
    with pytest.raises(ValueError, match=f"^{told}"):
        require_step(Scores(network(), scores), batch, batch, keyed=True)


def test_a_loss_is_one_number_that_depends_on_the_weights(batch):
    class Constant(Classifier):
        def loss(self, batch):
            return torch.tensor(1.0), {"what": torch.tensor(2.0)}

    for module in (Constant(network()), Classifier(network(), loss=nn.CrossEntropyLoss(reduction="none"))):
        with pytest.raises(ValueError, match=r"^loss: must be one number for a batch"):
            require_step(module, batch, batch, keyed=True)


@pytest.mark.parametrize("passes", [1, 2, 3])
def test_a_module_says_how_many_passes_its_loss_makes_or_more(passes, batch):
    class Twice(Classifier):
        def loss(self, batch):
            return super().loss(batch) + super().loss(batch)

    Twice.passes, module = passes, Twice(network())
    refused = pytest.raises(ValueError, match="the loss of Twice calls its network 2 times: set passes = 2 in that")
    with nullcontext() if passes > 1 else refused:
        require_step(module, batch, batch, keyed=True)


def test_several_passes_are_not_recomputed_with_a_wrong_mask(batch):
    class Recomputed(nn.Sequential):
        def forward(self, x):
            return checkpoint(super().forward, x, use_reentrant=False)

    net = Recomputed(nn.Flatten(), nn.Linear(9, 3), Dropout(0.5))
    require_step(Classifier(net), batch, batch, keyed=True)
    with pytest.raises(RuntimeError, match=r"for several passes in a step .* a model without activation checkpointing"):
        require_step(RDrop(net), batch, batch, keyed=True)


def test_what_the_network_raises_comes_through(batch):
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        require_step(Classifier(nn.Sequential(nn.Flatten(), nn.Linear(8, 3))), batch, batch, keyed=True)
    mixes = nn.Sequential(nn.Flatten(0, 1), nn.Flatten(), Dropout(0.5), nn.Linear(9, 3), nn.Unflatten(0, (-1, 1)))
    rows = torch.zeros(2, 4, 3, 3), torch.zeros(8, dtype=torch.int64)
    with pytest.raises(ValueError, match="mask_keys was given 2 rows"):
        require_step(Classifier(nn.Sequential(mixes, nn.Flatten(0, 1))), rows, rows, keyed=True)


@pytest.mark.parametrize("limit", ["LONGEST", "LARGEST"])
def test_what_would_take_too_much_is_not_tried_and_that_is_said(limit, batch, monkeypatch, caplog):
    monkeypatch.setattr(trial, limit, 0)
    require_step(Scores(network(), {}), batch, batch, keyed=True)
    assert "not tried before the jobs start" in caplog.text


def test_a_column_of_a_callback_is_none_of_the_module():
    assert Column("auroc/test", "AUROC").of("test") == "auroc/test"


def test_what_is_mixed_in_training_is_measured_by_its_class():
    mixed = data()
    mixed.mixup = 0.3
    trained, measured = mixed.example(ROWS, training=True), mixed.example(ROWS)
    assert (trained[1].shape, measured[1].shape) == ((ROWS, 3), (ROWS,))
    require_step(Classifier(network()), trained, measured, keyed=True)


class Draws(nn.Module):
    """A layer that draws, in the way that is given."""

    def __init__(self, draw):
        super().__init__()
        self.draw = draw

    def forward(self, x):
        return x + float(self.draw()) if self.training else x


def quiet(*layers):
    net = nn.Sequential(nn.Flatten(), *layers, nn.Linear(9, 3))
    install(net, Dropout, Placement("classifier"))
    return Classifier(net)


@pytest.mark.parametrize("draw", [lambda: torch.rand(()), random.random, lambda: np.random.normal()])
def test_random_numbers_that_no_strategy_reaches_are_refused_by_the_module_that_draws_them(draw, batch):
    with pytest.raises(ValueError, match=r"draws random numbers of its own in 1\.0 \(Draws\), .*other_noise=keep"):
        require_step(quiet(nn.Sequential(Draws(draw))), batch, batch, keyed=True, quiet=True)
    require_step(quiet(Draws(draw)), batch, batch, keyed=True)


class Unkeyed(Dropout):
    """A strategy whose bits come from torch's generator."""

    def draw(self, x):
        return (torch.rand_like(x) >= self.p).to(x.dtype)


def test_a_strategy_may_draw_as_it_likes_also_inside_attention(batch):
    class Attends(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention, self.head = nn.MultiheadAttention(9, 1, batch_first=True), nn.Linear(9, 3)

        def forward(self, x):
            x = x.flatten(1)[:, None]
            return self.head(self.attention(x, x, x)[0][:, 0])

    net = Attends()
    install(net, Unkeyed, Placement("attention"))
    require_step(Classifier(net), batch, batch, keyed=True, quiet=True)


def test_a_strategy_may_draw_as_it_likes(batch):
    for where in ("classifier", "existing", "input"):
        net = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(9, 3))
        install(net, Unkeyed, Placement(where))
        switch_off(net)
        require_step(Classifier(net), batch, batch, keyed=True, quiet=True)
