"""A run tested again, from its folder alone."""

import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf
from trained_run import QUICK

from dropout_lab import evaluate as evaluation
from dropout_lab.jobs.plan import plan
from dropout_lab.jobs.processes import launch
from dropout_lab.runs.network import restore
from dropout_lab.train.__main__ import main as train_main


def test_evaluate_gives_the_run_s_own_numbers_to_the_last_bit(trained_run):
    logged = pd.read_csv(trained_run / "metrics.csv").iloc[-1]
    assert evaluation.evaluate(trained_run) == {key: logged[key] for key in ("test/loss", "test/acc")}


@pytest.fixture(scope="module")
def of_two(tmp_path_factory):
    """A run of two processes. The test part has an odd number of images."""
    folder = tmp_path_factory.mktemp("two") / "run"
    with pytest.raises(SystemExit) as ended:
        train_main([*QUICK, "trainer=ddp_cpu", "trainer.devices=2", f"hydra.run.dir={folder}"])
    assert ended.value.code == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("samples", [0, 5])
def test_evaluate_gives_the_same_at_any_number_of_processes(samples, of_two, tmp_path):
    """On as many as the run had it is the same to the last bit. Processes of one group print once."""
    one = evaluation.evaluate(of_two, monte_carlo_samples=samples)
    mode = ["eval.mode=monte_carlo", f"eval.samples={samples}"] if samples else []
    launch(2, evaluation.main, [f"run={of_two}", *mode], log=tmp_path / "said")
    _, *lines = (tmp_path / "said").read_text().splitlines()
    two = {key: float(value) for key, value in (line.split() for line in lines)}
    assert two == pytest.approx(one, rel=1e-6)
    if not samples:
        assert two == pd.read_csv(of_two / "metrics.csv").iloc[-1][["test/loss", "test/acc"]].to_dict()


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["64-true", "bf16-true"])
def test_a_network_of_another_precision_is_evaluated_as_it_was_tested(precision, tmp_path):
    with pytest.raises(SystemExit) as ended:
        train_main([*QUICK, f"trainer.precision={precision}", f"hydra.run.dir={tmp_path}"])
    assert ended.value.code == 0
    logged = pd.read_csv(tmp_path / "metrics.csv").iloc[-1]
    assert evaluation.evaluate(tmp_path) == {key: logged[key] for key in ("test/loss", "test/acc")}


@pytest.mark.slow
@pytest.mark.parametrize("module", ["regression", "regression_one_variance"])
def test_numbers_that_are_predicted_are_evaluated_as_they_were_tested_whatever_was_learned_beside_the_weights(
    module, tmp_path
):
    words = ["data=tabular", f"module={module}", "model=mlp", "model.widths=[16]", "trainer.max_epochs=2", "logger=csv"]
    with pytest.raises(SystemExit) as ended:
        train_main([*words, f"hydra.run.dir={tmp_path}"])
    assert ended.value.code == 0
    logged = pd.read_csv(tmp_path / "metrics.csv").iloc[-1]
    found = evaluation.evaluate(tmp_path)
    assert found.keys() == {"test/rmse", "test/loss", "test/coverage_50", "test/coverage_90"}
    assert found == {key: logged[key] for key in found}
    assert found != evaluation.evaluate(tmp_path, monte_carlo_samples=3)
    if module == "regression_one_variance":
        assert restore(tmp_path).saved.rest["raw_variance"] != 0


@pytest.mark.slow
@pytest.mark.parametrize("words", [["data=digits"], ["data=tabular", "module=regression"]], ids="-".join)
def test_one_batch_is_learned_by_heart_whatever_its_targets_are(words, tmp_path):
    with pytest.raises(SystemExit) as ended:
        train_main(["debug=overfit", "model=mlp", *words, f"hydra.run.dir={tmp_path}"])
    assert ended.value.code == 0
    rows = pd.read_csv(tmp_path / "metrics.csv")
    first, *_, last = rows["train_eval/acc" if "data=digits" in words else "train_eval/rmse"].dropna()
    assert last == 1 if "data=digits" in words else last < first / 4


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["gpu", "ddp", "fsdp"])
def test_a_run_of_gpus_is_evaluated_where_there_are_none(trainer, trained_run, tmp_path):
    if torch.accelerator.is_available():
        pytest.skip("there is a GPU here")
    config = OmegaConf.load(trained_run / "config.yaml")
    config.trainer = plan([f"trainer={trainer}", "trainer.max_epochs=2"]).base.trainer
    OmegaConf.save(config, tmp_path / "config.yaml")
    (tmp_path / "checkpoints").symlink_to(trained_run / "checkpoints")
    assert evaluation.evaluate(tmp_path) == evaluation.evaluate(trained_run)


def test_monte_carlo_is_reproducible_and_another_number(trained_run):
    first, again = (evaluation.evaluate(trained_run, monte_carlo_samples=5) for _ in range(2))
    assert first == again
    assert first != evaluation.evaluate(trained_run)


def test_monte_carlo_averages_the_predictions_of_masks(trained_run):
    from dropout_lab.dropout import mask_keys, monte_carlo

    run = restore(trained_run)
    run.data.setup("test")
    classes = run.data.test.targets
    with mask_keys(run.config.seed, 0, range(len(classes))):
        mean = monte_carlo(run.net, run.data.prepare(run.data.test.inputs), 4).mean
    loss = torch.nn.functional.nll_loss(mean.log(), classes).item()
    assert evaluation.evaluate(trained_run, monte_carlo_samples=4)["test/loss"] == pytest.approx(loss, 1e-6)


def test_evaluation_leaves_the_folder_as_it_was(trained_run):
    before = {path: path.stat().st_mtime_ns for path in trained_run.rglob("*")}
    evaluation.evaluate(trained_run)
    assert {path: path.stat().st_mtime_ns for path in trained_run.rglob("*")} == before


def test_the_command_prints_the_numbers(trained_run, capsys):
    evaluation.main([f"run={trained_run}", "ckpt=last"])
    said = capsys.readouterr().out
    assert "last.ckpt  weight_scaling, dropout off" in said
    assert repr(evaluation.evaluate(trained_run, "last")["test/acc"]) in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run=nowhere"], "nowhere: does not exist; give the folder of one run"),
        (["run=."], "is not a run folder: it has no config.yaml"),
        (["run={run}", "ckpt=first"], "there is ckpt=best, ckpt=last"),
        (["run={run}", "eval.mode=exact"], "eval.mode=exact: must be weight_scaling or monte_carlo"),
        (["run={run}", "eval.mode=monte_carlo", "eval.samples=0"], "eval.samples=0: out of range"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(words, message, trained_run, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        evaluation.main([word.format(run=trained_run) for word in words])
    assert ended.value.code == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert "\n" not in said
