"""A run that goes on for longer than it was meant to ends as one of that length; where it can't, one line says why."""

import re
import shutil
from functools import partial

import pandas as pd
import pytest
import run_folders
from commands import exit_code
from run_folders import content, unfinished

from dropout_lab.cli import UserError
from dropout_lab.jobs.plan import plan
from dropout_lab.modules.classification import Classifier
from dropout_lab.runs.folder import read_config, read_status
from dropout_lab.runs.identity import fingerprints
from dropout_lab.runs.longer import require_goes_on
from dropout_lab.runs.resume import with_those_of_resumed

# Seven steps an epoch; everything that has a state.
WORDS = [
    *("data.train_size=448", "trainer.log_every_n_steps=3", "logger=csv", "model.batch_norm=true"),
    *("callbacks.activation_stats.every_n_steps=2", "callbacks.activation_stats.probe_masks=1"),
    *("lr_scheduler=steps", "lr_scheduler.milestones=[1,3]", "callbacks=[default,weight_averaging]"),
    "callbacks.weight_averaging.decay=0.9",
]
same = partial(run_folders.same, checkpoints=("last", "best"))


def train(folder, *words):
    assert exit_code(*WORDS, *words, f"hydra.run.dir={folder}") == 0
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of four epochs."""
    return train(tmp_path_factory.mktemp("whole") / "run", "trainer.max_epochs=4")


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """The first two of them, finished and tested."""
    return train(tmp_path_factory.mktemp("half") / "run", "trainer.max_epochs=2")


@pytest.fixture
def copy(half, tmp_path):
    """The same to go on with."""
    return shutil.copytree(half, tmp_path / "run")


def names(folder):
    run = read_config(folder).run
    return {key: run[key] for key in ("label", "name", "group", "config_hash")}


@pytest.mark.slow
@pytest.mark.parametrize("cut", [None, "last.ckpt", "best.ckpt"])
def test_it_ends_as_a_run_of_that_length(cut, copy, whole):
    """Its table has one test, as that one's has; cut: an unfinished run that goes on from its other checkpoint."""
    if cut:
        (unfinished(copy) / "checkpoints" / cut).unlink()
    assert exit_code(f"resume={copy}", "trainer.max_epochs=4") == 0
    assert same(copy, whole)
    assert pd.read_csv(copy / "metrics.csv")["test/loss"].count() == 1
    assert names(copy) == names(whole)
    assert read_config(copy).trainer == read_config(whole).trainer
    assert read_status(copy)["config_hash"] == read_status(whole)["config_hash"]
    before = content(copy)
    assert exit_code(f"resume={copy}") == 0  # it is done
    changed = {path for path, bytes_ in content(copy).items() if before.get(path) != bytes_}
    assert {path.name for path in changed} <= {"train.log", "hydra.yaml", "overrides.yaml", "config.yaml"}
    assert same(copy, whole)


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [4, -1])
def test_it_goes_on_for_more_steps_from_the_end_of_an_epoch(epochs, whole, tmp_path):
    run = train(tmp_path / "run", f"trainer.max_epochs={epochs}", "trainer.max_steps=14")
    assert exit_code(f"resume={run}", "trainer.max_steps=28") == 0
    assert same(run, whole)


@pytest.mark.slow
def test_interrupted_on_its_longer_way_it_goes_on_by_its_folder_alone(copy, whole, monkeypatch):
    class StopError(Exception):
        """Stands for whatever ends a process."""

    original, calls = Classifier.training_step, []

    def stopping(self, *args):
        calls.append(1)
        if len(calls) == 10:
            raise StopError
        return original(self, *args)

    monkeypatch.setattr(Classifier, "training_step", stopping)
    assert exit_code(f"resume={copy}", "trainer.max_epochs=4") == 1
    assert exit_code(f"resume={copy}") == 0
    assert len(calls) == 10 + 7
    assert same(copy, whole)


def refusal(folder, *words):
    """Why the run in a folder can't go on with these words; None: it can."""
    job_plan = plan(with_those_of_resumed([f"resume={folder}", *words]))
    try:
        require_goes_on(job_plan.folder, job_plan.jobs[0], fingerprints(job_plan.jobs[0]).run)
    except UserError as error:
        return str(error)
    return None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("as_then", "setting"),
    [
        (["lr_scheduler=cosine"], "lr_scheduler.T_max=training"),
        (["lr_scheduler=cosine", "lr_scheduler.interval=step"], "lr_scheduler.T_max=training"),
        (["lr_scheduler.T_max=${trainer.max_epochs}"], r"lr_scheduler.T_max=${trainer.max_epochs}"),
        (["lr_scheduler=warmup_cosine"], "lr_scheduler.total=training"),
        (["dropout_schedule=linear"], "dropout_schedule=linear"),
        (["dropout_schedule=early"], "dropout_schedule=early"),
        (["lr_scheduler=cosine", "lr_scheduler.T_max=50"], None),
        (["lr_scheduler=constant"], None),
        (["dropout_schedule=linear", "dropout_schedule.start=1"], None),
    ],
    ids=str,
)
def test_what_depends_on_the_length_is_named(as_then, setting, tmp_path):
    words = ["data.train_size=64", "logger=csv", "trainer.max_epochs=1", *as_then, f"hydra.run.dir={tmp_path}"]
    if not any("lr_scheduler" in word for word in words):
        words.append("lr_scheduler=constant")
    assert exit_code(*words) == 0
    said = refusal(tmp_path, *as_then, "trainer.max_epochs=3")  # a saved ${...} would be its value
    if setting is None:
        assert said is None
    else:
        assert f"trainer.max_epochs=3: {setting} depends on the length of training" in said


@pytest.mark.slow
def test_what_can_not_go_on_is_one_line_and_stays_as_it_is(half, tmp_path, capsys):
    assert "has come to 2 epochs and 14 steps already" in refusal(half, "trainer.max_epochs=1")
    assert "has come to 2 epochs and 14 steps already" in refusal(half, "trainer.max_steps=13")
    assert "another configuration; give the same overrides" in refusal(half, "trainer.max_epochs=4", "seed=1")
    assert refusal(half) is refusal(half, "trainer.max_epochs=3") is None
    within = train(tmp_path / "within", "trainer.max_epochs=4", "trainer.max_steps=10")
    assert "trainer.max_steps=10 has ended the run within an epoch" in refusal(within, "trainer.max_steps=20")
    stopping = [*WORDS[:4], "lr_scheduler=constant", "callbacks=[default,early_stopping]", "optimizer.lr=1e-9"]
    stopped = tmp_path / "stopped"
    stopping += ["callbacks.early_stopping.patience=1", "trainer.max_epochs=9", f"hydra.run.dir={stopped}"]
    assert exit_code(*stopping) == 0
    assert "has ended by itself after" in refusal(stopped, "trainer.max_epochs=20")
    before = content(half)
    assert exit_code(f"resume={half}", "trainer.max_epochs=1") == 2
    assert re.search("^error: resume=.*start_from=", capsys.readouterr().err, re.MULTILINE)
    assert content(half) == before
