"""Runs whose strategy learns its rates: trained, gone on with, on two processes, and read afterwards as any other."""

import pandas as pd
import pytest
import torch
from commands import exit_code
from run_folders import same, stopped

from dropout_lab.diff.__main__ import main as compare_runs
from dropout_lab.evaluate import evaluate
from dropout_lab.fold import fold
from dropout_lab.modules.classification import Classifier
from dropout_lab.report.__main__ import main as report
from dropout_lab.runs import read

pytestmark = pytest.mark.slow

SMALL = [
    *("data.train_size=200", "data.batch_size=40", "model=mlp", "model.widths=[32,32]", "dropout=concrete"),
    *("trainer=cpu", "trainer.max_epochs=3", "trainer.precision=64-true", "trainer.log_every_n_steps=2", "logger=csv"),
    *("optimizer.weight_decay=0.01", "callbacks.activation_stats.every_n_steps=2"),
]
LAYERS = ["dropout_p/02_layers_2", "dropout_p/05_layers_5"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A sweep of two strategies and two seeds."""
    folder = tmp_path_factory.mktemp("learned")
    assert exit_code("-m", *SMALL, "dropout=concrete,inverted", "seed=0,1", f"hydra.sweep.dir={folder}") == 0
    return folder


def rates(folder):
    """What each layer has learned, by its weights."""
    state = torch.load(folder / "checkpoints" / "last.ckpt")["state_dict"]
    return [torch.sigmoid(state[key]).item() for key in state if key.endswith("logit")]


def test_rates_are_trained_logged_and_saved(trained):
    metrics = pd.read_csv(trained / "0" / "metrics.csv")
    logged = metrics.filter(like="dropout_p/").dropna()
    assert len(logged.columns) == 2
    assert (logged.iloc[-1] != 0.5).all()
    assert logged.iloc[-1].tolist() == pytest.approx(rates(trained / "0"))
    assert (metrics["train/penalty"].dropna() < 0).all()  # the entropy of the rates
    assert "train/penalty" not in pd.read_csv(trained / "2" / "metrics.csv")


def test_the_table_and_the_page_have_them_as_any_strategy(trained, capsys):
    report([str(trained)])
    table = pd.read_csv(trained / "table.csv").set_index("strategy")
    assert table["seeds"].to_dict() == {"concrete": 2, "inverted": 2}
    assert table.loc["concrete"].filter(like="gain_eval_mean").tolist() == [1]
    assert "concrete" in (trained / "report.html").read_text()


def test_an_interrupted_run_ends_as_the_whole_one(trained, tmp_path):
    with stopped(Classifier, lambda module, _: module.global_step == 12):
        assert exit_code(*SMALL, f"hydra.run.dir={tmp_path}") == 1
    assert exit_code(*SMALL, f"hydra.run.dir={tmp_path}") == 0
    assert same(tmp_path, trained / "0", checkpoints=("last", "best"))


def test_two_processes_are_one(trained, tmp_path):
    assert exit_code(*SMALL, "trainer=ddp_cpu", "trainer.devices=2", f"hydra.run.dir={tmp_path}") == 0
    one, two = (pd.read_csv(folder / "metrics.csv") for folder in (trained / "0", tmp_path))
    pd.testing.assert_frame_equal(one, two, check_like=True, rtol=1e-10, atol=1e-10)
    assert rates(tmp_path) == pytest.approx(rates(trained / "0"), rel=1e-10)


def test_what_is_read_afterwards_has_the_rates_that_were_learned(trained, tmp_path, capsys):
    folder = trained / "0"
    tested = read.open(folder).metrics.filter(like="test/").iloc[-1]
    assert evaluate(folder) == tested.to_dict()
    assert evaluate(folder, monte_carlo_samples=3)["test/loss"] != tested["test/loss"]
    net = read.open(folder).network("last")
    assert [layer.p for layer in net.modules() if hasattr(layer, "logit")] == pytest.approx(rates(folder))
    fold(folder, tmp_path / "weights.pt")
    assert not any("logit" in key for key in torch.load(tmp_path / "weights.pt"))
    with pytest.raises(SystemExit, match="1"):
        compare_runs([str(folder), str(trained / "1")])
    assert "replay    they part at step 0" in capsys.readouterr().out


@pytest.mark.parametrize("scaling", ["inverted", "classic"])
def test_its_weights_begin_another_run_and_another_s_begin_one_of_it(scaling, trained, tmp_path):
    here = [f"dropout.scaling={scaling}"]
    for way, (number, words) in {
        "from": (0, ["dropout=inverted", *here]),
        "to": (2, here),
        "both": (0, [*here, "dropout.rows=1000"]),
    }.items():
        start = [f"start_from={trained / str(number)}", "trainer.max_epochs=1", f"hydra.run.dir={tmp_path / way}"]
        assert exit_code(*SMALL, *words, *start) == 0


def test_a_rate_that_begins_at_0_or_is_scheduled_is_one_line_before_anything_starts(tmp_path, capsys):
    for words, message in (
        (["dropout.p=0"], "error: dropout.p=0: must be > 0, as a rate of 0 learns nothing"),
        (["dropout_schedule=linear"], "learns its p, and no schedule can: use the constant one"),
        (["dropout.scaling=classic", "optimizer.match=inverted"], "learns its p: no factor stays the same in training"),
    ):
        assert exit_code(*SMALL, *words, f"hydra.run.dir={tmp_path / 'run'}") == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "run").exists()
