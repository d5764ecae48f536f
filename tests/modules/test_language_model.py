"""Laws of language models: numbers are a token's, however a text is cut into batches; Monte Carlo means of passes."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dropout_lab.data import Digits, Text
from dropout_lab.dropout import Dropout, Placement, install
from dropout_lab.models import Transformer
from dropout_lab.modules.classification import Classifier
from dropout_lab.modules.language_model import LanguageModel


def model(dropout=0.0, **options):
    net = Transformer((6,), 11, width=8, depth=1, heads=2)
    install(net, Dropout, Placement(p=dropout))
    return LanguageModel(net.double(), **options)


def batch(rows=3):
    return torch.randint(0, 11, (rows, 6)), torch.randint(0, 11, (rows, 6))


def test_the_loss_is_the_mean_over_tokens():
    module, (x, y) = model().eval(), batch()
    each = [F.cross_entropy(module.net(x)[row, place], y[row, place]) for row in range(3) for place in range(6)]
    torch.testing.assert_close(module.loss((x, y)), torch.stack(each).mean())


def test_scores_are_a_row_a_token():
    module, (x, y) = model().eval(), batch()
    scores = module.scores(module.predict(x), (x, y))
    assert {name: tuple(rows.shape) for name, rows in scores.items()} == {"loss": (18,), "acc": (18,)}
    torch.testing.assert_close(scores["loss"].mean(), module.loss((x, y)))
    assert torch.equal(scores["acc"].view(3, 6), module.net(x).argmax(2) == y)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_numbers_do_not_depend_on_how_a_text_is_cut_into_batches(sizes):
    module, (x, y) = model().eval(), batch(sum(sizes))
    whole = module.scores(module.predict(x), (x, y))
    parts = [module.scores(module.predict(a), (a, b)) for a, b in zip(x.split(sizes), y.split(sizes), strict=True)]
    torch.testing.assert_close(torch.cat([part["loss"] for part in parts]), whole["loss"])


@pytest.mark.parametrize(("loss", "perplexity"), [(math.log(7), 7.0), (0.0, 1.0), (1e9, math.exp(700))])
def test_perplexity_is_that_of_the_mean_loss_and_always_a_number(loss, perplexity):
    assert model().summarize({"loss": loss, "acc": 0.5})["perplexity"] == pytest.approx(perplexity)


def test_monte_carlo_averages_the_probabilities_of_tokens():
    module, (x, _) = model(dropout=0.5).eval(), batch()
    torch.manual_seed(0)
    mixed = module.monte_carlo(x, 4)
    torch.manual_seed(0)
    module.net.train()
    with torch.no_grad():
        passes = [module.predict(x).exp() for _ in range(4)]
    torch.testing.assert_close(mixed.exp(), torch.stack(passes).mean(0))
    assert not torch.equal(passes[0], passes[1])
    torch.testing.assert_close(mixed.exp().sum(2), torch.ones(3, 6, dtype=torch.float64))


def test_half_precision_scores_in_float32():
    class Half(nn.Module):
        def forward(self, x):
            return F.one_hot(x, 11).bfloat16()

    assert LanguageModel(Half()).predict(batch()[0]).dtype == torch.float32


def test_modules_and_data_that_do_not_fit_name_each_other():
    text, digits = Text(batch_size=4, seed=0), Digits(batch_size=4, seed=0)
    assert LanguageModel.outputs(text) == text.num_classes
    with pytest.raises(ValueError, match="a language model needs a text, and Digits is none: data=text is"):
        LanguageModel.outputs(digits)
    with pytest.raises(ValueError, match="not one a sample: module=language_model takes it"):
        Classifier.outputs(text)
