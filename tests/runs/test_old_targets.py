"""Runs of before the rooms, from commit 656b346: they are still read; they are not gone on with."""

import importlib
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from commands import exit_code, main_of
from hydra.utils import get_object

from dropout_lab.cli import UserError
from dropout_lab.diff.__main__ import diff
from dropout_lab.evaluate import evaluate
from dropout_lab.report import build
from dropout_lab.runs.folder import STATUS, config_of, is_of_earlier_version
from dropout_lab.runs.network import restore
from dropout_lab.runs.old_targets import OLD_TARGETS, has_old_targets, renewed

BEFORE = Path(__file__).parent / "before_the_rooms"  # a sweep: inverted (0) and classic (1), with max-norm
HERE = Path(__file__).parents[2]


@pytest.fixture
def sweep(tmp_path):
    return Path(shutil.copytree(BEFORE, tmp_path / "sweep"))


def targets(node):
    for key, value in node.items() if isinstance(node, dict) else enumerate(node):
        if key == "_target_":
            yield value
        elif isinstance(value, dict | list):
            yield from targets(value)


@pytest.mark.parametrize("old", OLD_TARGETS)
def test_every_old_target_is_a_thing_of_today_and_its_old_place_is_gone(old):
    assert get_object(OLD_TARGETS[old]).__name__ == old.rpartition(".")[2]
    with pytest.raises((ImportError, AttributeError)):
        getattr(importlib.import_module(old.rpartition(".")[0]), old.rpartition(".")[2])


def test_every_target_of_a_run_of_before_can_be_made_today():
    found = {*targets(config_of(BEFORE / "0"))}
    assert found & {*OLD_TARGETS.values()}
    assert not found & {*OLD_TARGETS}
    for target in found:
        assert get_object(target)


def test_targets_are_renewed_wherever_they_stand_and_nothing_else_is():
    old, new = "dropout_lab.bar.ProgressBar", "dropout_lab.train.progress.ProgressBar"
    module = {"_target_": "fork.Module"}
    node = {"a": [{"_target_": old, "of": old}], "b": {"c": {"_target_": "torch.nn.ReLU"}}, "module": module}
    assert renewed(node) == node | {"a": [{"_target_": new, "of": old}]}
    assert has_old_targets(node)
    assert not has_old_targets(renewed(node))
    assert is_of_earlier_version(BEFORE / "0")


def test_a_run_of_before_there_were_modules_is_a_classification_with_its_loss():
    loss = {"_target_": "torch.nn.CrossEntropyLoss", "label_smoothing": 0.1}
    assert renewed({"loss": loss})["module"] == {
        "_target_": "dropout_lab.modules.classification.Classifier",
        "loss": loss,
    }
    assert has_old_targets({"loss": loss})


@pytest.mark.slow
def test_a_run_of_before_evaluates_to_the_numbers_of_then(sweep):
    assert evaluate(sweep / "1") == {"test/loss": 2.309999483635784, "test/acc": 0.10204081632653061}


def test_a_run_of_before_has_no_monte_carlo(sweep):
    with pytest.raises(UserError, match=r"eval\.mode=monte_carlo: .* trained with masks of version 1"):
        evaluate(sweep / "1", monte_carlo_samples=2)


@pytest.mark.slow
def test_a_run_of_before_folds(sweep, tmp_path, capsys):
    main_of("dropout_lab.fold").main([f"run={sweep / '1'}", f"out={tmp_path / 'weights.pt'}"])
    assert "no dropout layers" in capsys.readouterr().out
    weights, before = torch.load(tmp_path / "weights.pt"), restore(sweep / "1").net
    plain = before.state_dict()
    assert torch.equal(weights["classifier.weight"], plain["classifier.weight"] * 0.5)


@pytest.mark.slow
def test_a_run_of_before_can_be_looked_at(sweep, tmp_path, capsys):
    main_of("dropout_lab.look").main([f"run={sweep / '0'}", "image=3", f"out={tmp_path / 'look'}"])
    assert "looking at test image 3" in capsys.readouterr().out
    assert (tmp_path / "look" / "look.png").stat().st_size


def test_runs_of_before_are_compared_by_what_they_recorded_and_not_done_again(sweep):
    """Their masks were others."""
    lines = diff(sweep / "0", sweep / "1")
    assert lines[0] == "config    dropout.scaling: inverted | classic"
    assert lines[1].startswith("records   metrics.csv at step ")
    assert lines[-1].startswith(f"replay    refused: {sweep / '0'} holds a run trained with masks of version 1")


def test_runs_of_before_are_reported(sweep):
    report = build(sweep)
    assert re.search(r"inverted +1 +10.20 +2.311 +-0.001 +1.09 +1.00 +1.25", report.text)
    assert re.search(r"classic +1 +10.20 +2.310 +-0.001 +0.51 +0.50 +1.03", report.text)


@pytest.mark.slow
@pytest.mark.parametrize("asked", ["resume", "hydra.run.dir"])
def test_an_unfinished_run_of_before_is_not_gone_on_with(asked, sweep, capsys):
    run = sweep / "0"
    status = json.loads((run / STATUS).read_text())
    (run / STATUS).write_text(json.dumps({**status, "status": "interrupted"}))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    words = [] if asked == "resume" else config_of(run)["run"]["overrides"]
    assert exit_code(*words, f"{asked}={run}") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "holds a run that an earlier version of this package has begun" in line
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
