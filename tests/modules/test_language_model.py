"""Laws of language models: numbers are a token's, however a text is cut into batches; Monte Carlo means of passes."""

import hashlib
import math
import random
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from commands import exit_code
from hypothesis import given
from hypothesis import strategies as st
from run_folders import same, stopped
from torch import nn

from dropout_lab.data import Digits, Text
from dropout_lab.diff.__main__ import main as compare_runs
from dropout_lab.dropout import Dropout, Placement, install
from dropout_lab.evaluate import evaluate
from dropout_lab.fold import fold
from dropout_lab.models import Transformer
from dropout_lab.modules.classification import Classifier
from dropout_lab.modules.language_model import LanguageModel
from dropout_lab.runs.folder import read_config


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


def test_what_the_loss_is_a_mean_of_are_tokens():
    data = Text(context=16, train_size=160, batch_size=4, seed=0)
    data.setup("fit")
    windows = len(data.train.targets)
    assert model().samples(data) == 16 * windows
    assert windows > 1


def test_scores_are_a_row_a_token():
    module, (x, y) = model().eval(), batch()
    scores = module.scores(module.predict(x), (x, y))
    assert {name: tuple(rows.shape) for name, rows in scores.items()} == {"loss": (18,), "acc": (18,)}
    torch.testing.assert_close(scores["loss"].mean(), module.loss((x, y)))
    assert torch.equal(scores["acc"].view(3, 6), module.net(x).argmax(2) == y)


@pytest.mark.slow
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


SMALL = [
    *("data=text", "data.context=16", "data.batch_size=16", "data.train_size=null", "module=language_model"),
    *("model=transformer", "model.width=16", "model.depth=1", "model.heads=2", "dropout=inverted", "dropout.p=0.2"),
    *("trainer=cpu", "trainer.max_epochs=2", "trainer.precision=64-true", "trainer.log_every_n_steps=4", "logger=csv"),
    *("callbacks.activation_stats.every_n_steps=4", "+callbacks.recent.every_n_train_steps=3"),
    "callbacks.recent.train_time_interval=null",
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The words of a small run, and its folder."""
    folder = tmp_path_factory.mktemp("language")
    generator = random.Random(0)
    (folder / "text.txt").write_text("".join(generator.choice("abcdefgh ") for _ in range(4321)))  # parts of odd sizes
    words = [*SMALL, f"data.file={folder / 'text.txt'}"]
    assert exit_code(*words, f"hydra.run.dir={folder / 'run'}") == 0
    return words, folder / "run"


@pytest.mark.slow
@pytest.mark.parametrize("step", [5, 13, 17])
def test_an_interrupted_run_ends_as_the_whole_one(trained, step, tmp_path):
    words, whole = trained
    with stopped(LanguageModel, lambda module, _: module.global_step == step):
        assert exit_code(*words, f"hydra.run.dir={tmp_path}") == 1
    assert exit_code(*words, f"hydra.run.dir={tmp_path}") == 0
    assert same(tmp_path, whole, checkpoints=("last", "best"))


@pytest.mark.slow
def test_two_processes_are_one(trained, tmp_path):
    words, whole = trained
    assert (
        exit_code(
            *words,
            "trainer=ddp_cpu",
            "trainer.precision=64-true",
            "trainer.max_epochs=2",
            "trainer.devices=2",
            "trainer.log_every_n_steps=4",
            f"hydra.run.dir={tmp_path}",
        )
        == 0
    )
    one, two = (pd.read_csv(folder / "metrics.csv") for folder in (whole, tmp_path))
    pd.testing.assert_frame_equal(one, two, check_like=True, rtol=1e-10, atol=1e-10)


@pytest.mark.slow
def test_evaluation_gives_the_numbers_of_the_test(trained):
    words, folder = trained
    text = next(word for word in words if word.startswith("data.file=")).removeprefix("data.file=")
    assert read_config(folder).data_digest == hashlib.sha256(Path(text).read_bytes()).hexdigest()
    logged = pd.read_csv(folder / "metrics.csv").iloc[-1]
    found = evaluate(folder)
    assert found == {key: logged[key] for key in ("test/loss", "test/perplexity", "test/acc")}
    assert found["test/perplexity"] == pytest.approx(math.exp(found["test/loss"]))
    mixed = evaluate(folder, monte_carlo_samples=3)
    assert mixed["test/loss"] != found["test/loss"]


@pytest.mark.slow
def test_a_language_model_folds_and_two_of_them_can_be_compared(trained, tmp_path, capsys):
    words, folder = trained
    difference, *_ = fold(folder, tmp_path / "plain.pt", "best")
    assert difference == 0
    assert exit_code(*words, "seed=1", "trainer.max_epochs=1", f"hydra.run.dir={tmp_path / 'other'}") == 0
    capsys.readouterr()
    with suppress(SystemExit):
        compare_runs([str(folder), str(tmp_path / "other")])
    assert "they part at step 0" in capsys.readouterr().out
