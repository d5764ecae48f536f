"""Runs that were trained with other masks than this package draws: what still works with them, and what is refused."""

import shutil

import numpy as np
import pytest
import torch
from commands import exit_code
from run_folders import content, unfinished, with_masks_of

from dropout_lab.cli import UserError
from dropout_lab.diff.__main__ import diff
from dropout_lab.dropout import MASKS_VERSION
from dropout_lab.evaluate import evaluate
from dropout_lab.fold import fold
from dropout_lab.look.subject import from_run
from dropout_lab.report import build
from dropout_lab.runs import resume
from dropout_lab.runs.folder import config_of, read_status
from dropout_lab.runs.masks import why_other_masks
from dropout_lab.runs.provenance import provenance
from dropout_lab.runs.read import Run
from dropout_lab.verdict import metrics

WORDS = [
    *("model.widths=[2,4]", "model.hidden=8", "trainer.max_epochs=1", "data.train_size=64", "logger=csv"),
    "callbacks.activation_stats.probe_masks=0",
]
OTHERS = [None, MASKS_VERSION + 1]  # of before there were versions, and of a newer package


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Two runs that differ in the seed, as a sweep."""
    folder = tmp_path_factory.mktemp("finished") / "sweep"
    assert exit_code("-m", "seed=0,1", *WORDS, f"hydra.sweep.dir={folder}") == 0
    return folder


@pytest.fixture
def sweep(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "sweep")


@pytest.fixture
def own(sweep):
    """The words of the first run's configuration."""
    return config_of(sweep / "0")["run"]["overrides"]


@pytest.fixture
def told():
    """Warnings are given once a process."""
    metrics._warn_of_no_monte_carlo.cache_clear()
    metrics.measured.cache_clear()


def test_every_checkpoint_carries_the_version_of_its_masks(finished):
    for path in (finished / "0" / "checkpoints").glob("*.ckpt"):
        assert torch.load(path, weights_only=True)["masks_version"] == MASKS_VERSION
    assert why_other_masks(finished / "0") is None


@pytest.mark.parametrize("version", OTHERS)
def test_a_run_of_other_masks_is_told_by_any_checkpoint_that_can_be_read(version, sweep):
    run = with_masks_of(version, sweep / "0")
    (run / "checkpoints" / "best.ckpt").write_bytes(b"")
    assert f"version {version or 1}, and this package draws those of version {MASKS_VERSION}" in why_other_masks(run)
    (run / "checkpoints" / "last.ckpt").unlink()
    assert why_other_masks(run) is None


@pytest.mark.parametrize("asked", ["resume", "hydra.run.dir"])
@pytest.mark.parametrize("version", OTHERS)
def test_a_run_of_other_masks_is_not_gone_on_with(version, asked, sweep, own, capsys):
    run = with_masks_of(version, unfinished(sweep / "0"))
    before = content(run)
    capsys.readouterr()
    assert exit_code(*([] if asked == "resume" else own), f"{asked}={run}") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{run} holds a run trained with masks of version {version or 1}, and this package draws those" in line
    assert "it can be evaluated (weight scaling), folded, looked at and reported, but not gone on with" in line
    assert "choose another hydra.run.dir (or hydra.sweep.dir), resume=never to overwrite it, or the version" in line
    assert content(run) == before


def test_a_sweep_with_an_unfinished_job_of_other_masks_starts_nothing(sweep, capsys):
    """A job that comes before it would have to run, too."""
    shutil.rmtree(sweep / "0")
    with_masks_of(None, unfinished(sweep / "1"))
    before = content(sweep)
    capsys.readouterr()
    assert exit_code("-m", "seed=0,1", *WORDS, f"hydra.sweep.dir={sweep}") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{sweep / '1'} holds a run trained with masks of version 1" in line
    assert content(sweep) == before


def test_a_job_that_was_not_known_when_its_sweep_began_clears_nothing_of_other_masks(sweep):
    """That of a search, or one that a cluster starts again."""
    run = with_masks_of(None, unfinished(sweep / "0"))
    before = content(run)
    with pytest.raises(UserError, match="masks of version 1"):
        resume.start_point(run, read_status(run)["config_hash"], "auto")
    assert content(run) == before


@pytest.mark.slow
@pytest.mark.parametrize("why", ["resume=never", "finished", "no checkpoint"])
def test_in_place_of_a_run_of_other_masks_one_starts_anew(why, sweep, own, monkeypatch):
    run = with_masks_of(None, sweep / "0")
    if why == "finished":  # by the code of then
        monkeypatch.setattr(resume, "provenance", lambda: {**provenance(), "code_hash": "another"})
    else:
        unfinished(run)
    if why == "no checkpoint":
        shutil.rmtree(run / "checkpoints")
    words = [why] if why == "resume=never" else []
    assert exit_code(*own, f"hydra.run.dir={run}", *words) == 0
    assert torch.load(run / "checkpoints" / "last.ckpt")["masks_version"] == MASKS_VERSION


def test_a_finished_run_is_done_whatever_its_masks(sweep, own, capsys):
    run = with_masks_of(None, sweep / "0")
    assert exit_code(*own, f"hydra.run.dir={run}") == 0
    assert "done already" in capsys.readouterr().out


@pytest.mark.slow
def test_masks_of_torch_s_generator_have_no_version(tmp_path):
    """Such a run is gone on with, which leaves its best checkpoint as it was, and has its Monte Carlo."""
    run = tmp_path / "run"
    words = [*WORDS, "keyed=false", f"hydra.run.dir={run}"]
    assert exit_code(*words) == 0
    with_masks_of(None, unfinished(run))
    before = (run / "checkpoints" / "best.ckpt").read_bytes()
    assert exit_code(*words) == 0
    assert read_status(run)["status"] == "ok"
    assert (run / "checkpoints" / "best.ckpt").read_bytes() == before
    assert evaluate(run, monte_carlo_samples=2)


@pytest.mark.parametrize("version", OTHERS)
def test_monte_carlo_of_a_run_of_other_masks_is_refused(version, sweep, capsys):
    run = with_masks_of(version, sweep / "0")
    capsys.readouterr()
    words = [f"run={run}", "eval.mode=monte_carlo", "eval.samples=2"]
    assert exit_code(*words, module="dropout_lab.evaluate") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"eval.mode=monte_carlo: {run} holds a run trained with masks of version {version or 1}" in line
    assert "eval.mode=weight_scaling works here, and so do fold, look and report" in line


@pytest.mark.parametrize("version", OTHERS)
def test_a_run_of_other_masks_is_evaluated_folded_looked_at_and_reported(version, finished, sweep, tmp_path):
    run = with_masks_of(version, sweep / "0")
    assert evaluate(run) == evaluate(finished / "0")
    before, after = tmp_path / "before.pt", tmp_path / "after.pt"
    assert fold(run, after) == fold(finished / "0", before)
    assert all(torch.equal(value, torch.load(after)[key]) for key, value in torch.load(before).items())
    assert torch.load(after).keys() == torch.load(before).keys()
    assert torch.equal(*(from_run(one, "best", "").net.hidden.weight for one in (run, finished / "0")))
    assert build(sweep).text == build(finished).text


def test_steps_of_a_run_of_other_masks_are_not_done_again(finished, sweep):
    """What was recorded is compared, in whatever order the runs are given."""
    run, other = with_masks_of(None, sweep / "1"), finished / "0"
    for pair in ((run, other), (other, run)):
        *lines, refusal = diff(*pair)
        assert {line.split()[0] for line in lines} == {"config", "records"}
        assert refusal.startswith(f"replay    refused: {run} holds a run trained with masks of version 1")


def test_claims_about_monte_carlo_of_other_masks_have_no_number_and_the_others_theirs(sweep, told, caplog):
    runs = [Run(with_masks_of(None, sweep / number), number, "ok") for number in ("0", "1")]
    without, with_one = ("monte_carlo/acc/2", "monte_carlo/loss/2"), ("test/ece", "fine_tuned/acc/0.5")
    for run in runs:
        assert all(np.isnan(metrics.measure(run, name)) for name in without)
        assert all(np.isfinite(metrics.measure(run, name)) for name in with_one)
    (line,) = caplog.messages
    assert "claims about Monte Carlo are left without a number: runs trained with masks of version 1" in line


def test_claims_about_monte_carlo_of_today_s_masks_have_their_number(sweep, told, caplog):
    assert metrics.measure(Run(sweep / "0", "0", "ok"), "monte_carlo/loss/2")
    assert not caplog.messages
