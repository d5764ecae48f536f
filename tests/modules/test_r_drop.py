"""Laws of R-Drop: the loss of the paper, and runs that go on, divide and are read as any other's."""

from contextlib import suppress

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from commands import exit_code
from run_folders import same, stopped
from small_networks import dense

from dropout_lab.diff.__main__ import main as compare_runs
from dropout_lab.dropout import Dropout, mask_keys
from dropout_lab.evaluate import evaluate
from dropout_lab.fold import fold
from dropout_lab.modules.r_drop import RDrop
from dropout_lab.report.__main__ import main as report


def batch():
    return torch.randn(8, 4), torch.randint(0, 2, (8,))


def test_the_loss_is_that_of_the_paper():
    net, (x, y) = dense(Dropout(0.5)), batch()
    with mask_keys(0, 0, range(8)):
        loss, numbers = RDrop(net, alpha=3.0).loss((x, y))
    with mask_keys(0, 0, range(8)):
        one, two = (F.softmax(net(x), 1) for _ in range(2))
    assert not torch.equal(one, two)
    kl = (one * (one / two).log() + two * (two / one).log()).sum(1) / 2
    rows = torch.arange(8)
    torch.testing.assert_close(numbers["kl"], kl.mean())
    torch.testing.assert_close(loss, (3 * kl - one[rows, y].log() - two[rows, y].log()).mean())


def test_without_dropout_it_is_twice_the_loss_of_one_pass():
    net, (x, y) = dense(Dropout(0.0)), batch()
    loss, numbers = RDrop(net).loss((x, y))
    assert numbers["kl"] == 0
    torch.testing.assert_close(loss, 2 * F.cross_entropy(net(x), y))


def test_alpha_is_not_negative():
    with pytest.raises(ValueError, match="alpha=-1: must be a number >= 0"):
        RDrop(dense(Dropout(0.5)), alpha=-1)


SMALL = [
    *("module=r_drop", "model=mlp", "model.widths=[16,16]", "model.batch_norm=true", "data.train_size=200"),
    *("trainer=ddp_cpu", "trainer.devices=1", "trainer.sync_batchnorm=true", "trainer.precision=64-true"),
    *(
        "trainer.max_epochs=2",
        "trainer.log_every_n_steps=2",
        "logger=csv",
        "callbacks.activation_stats.every_n_steps=2",
    ),
    *("+callbacks.recent.every_n_train_steps=2", "callbacks.recent.train_time_interval=null"),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a small run."""
    folder = tmp_path_factory.mktemp("r_drop")
    assert exit_code(*SMALL, f"hydra.run.dir={folder}") == 0
    return folder


@pytest.mark.slow
def test_an_interrupted_run_ends_as_the_whole_one(trained, tmp_path):
    with stopped(RDrop, lambda module, _: module.global_step == 5):
        assert exit_code(*SMALL, f"hydra.run.dir={tmp_path}") == 1
    assert exit_code(*SMALL, f"hydra.run.dir={tmp_path}") == 0
    assert same(tmp_path, trained, checkpoints=("last", "best"))


@pytest.mark.slow
def test_two_processes_are_one(trained, tmp_path):
    assert exit_code(*SMALL, "trainer.devices=2", f"hydra.run.dir={tmp_path}") == 0
    for name in ("metrics.csv", "activations.csv"):
        one, two = (pd.read_csv(folder / name) for folder in (trained, tmp_path))
        pd.testing.assert_frame_equal(one, two, check_like=True, rtol=1e-10, atol=1e-10)
    one, two = (torch.load(folder / "checkpoints" / "last.ckpt")["state_dict"] for folder in (trained, tmp_path))
    torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-10)
    assert {value.item() for key, value in one.items() if key.endswith("num_batches_tracked")} == {6}


@pytest.mark.slow
def test_a_run_is_evaluated_folded_and_compared_as_any_other(trained, tmp_path, capsys):
    logged = pd.read_csv(trained / "metrics.csv")
    assert logged["train/kl"].dropna().gt(0).all()
    assert evaluate(trained) == logged.filter(like="test/").iloc[-1].to_dict()
    assert evaluate(trained, monte_carlo_samples=3)["test/loss"] != evaluate(trained)["test/loss"]
    difference, *_ = fold(trained, tmp_path / "plain.pt", "best")
    assert difference < 1e-12
    assert exit_code(*SMALL, "trainer.max_epochs=1", "module.alpha=0", f"hydra.run.dir={tmp_path / 'other'}") == 0
    capsys.readouterr()
    with suppress(SystemExit):
        compare_runs([str(trained), str(tmp_path / "other")])
    assert "call2" not in (said := capsys.readouterr().out)
    assert "they part at step 0" in said


@pytest.mark.slow
def test_a_sweep_s_table_has_every_column(tmp_path):
    words = [*SMALL, "trainer.max_epochs=1", "seed=0,1", "dropout=inverted,none"]
    assert exit_code("-m", *words, f"hydra.sweep.dir={tmp_path}") == 0
    report([str(tmp_path)])
    table = pd.read_csv(tmp_path / "table.csv").set_index("strategy")
    assert table["seeds"].to_dict() == {"inverted": 2, "none": 2}
    assert table[["gain_train_mean", "gain_eval_mean", "ratio_mean", "test_nll_mean"]].notna().all(axis=None)
    assert table["gain_eval_mean"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"compile": "true"}, "error: module: several passes in a step are not compiled; leave compile=true out"),
        ({"module.alpha": "-1"}, "error: module.alpha=-1: must be a number >= 0"),
    ],
)
@pytest.mark.slow
def test_what_cannot_be_trained_is_one_line(change, line, tmp_path, capsys):
    words = [f"{key}={value}" for key, value in change.items()]
    assert exit_code("module=r_drop", *words, f"hydra.run.dir={tmp_path / 'run'}") == 2
    assert line in capsys.readouterr().err.splitlines()
