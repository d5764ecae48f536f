"""A run that was interrupted ends as if it had not been."""

import os
import random
import shutil
import signal
import time
from functools import partial

import pandas as pd
import pytest
import run_folders
import torch
from commands import Command, exit_code, run
from omegaconf import OmegaConf
from wandb_files import read_all

from dropout_lab.modules.classification import Classifier
from dropout_lab.runs import identity, resume
from dropout_lab.runs.checkpoints import EndOfEpoch
from dropout_lab.runs.folder import read_status
from dropout_lab.runs.provenance import provenance
from dropout_lab.runs.wandb_files import disagreements
from dropout_lab.train import job

pytestmark = pytest.mark.slow

# Four epochs of seven steps; everything that has a state: momentum, a schedule, statistics at every second step.
WORDS = [
    *("trainer.max_epochs=4", "data.train_size=448", "trainer.log_every_n_steps=3", "logger=csv"),
    *(
        "callbacks.activation_stats.every_n_steps=2",
        "callbacks.activation_stats.probe_masks=1",
        "model.batch_norm=true",
    ),
]
# A checkpoint every second step, besides those at the ends of epochs.
OFTEN = ["callbacks.recent.train_time_interval=null", "+callbacks.recent.every_n_train_steps=2"]


class StopError(Exception):
    """Stands for whatever ends a process."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert exit_code(*WORDS, *OFTEN, f"hydra.run.dir={folder}") == 0
    return folder


same = partial(run_folders.same, checkpoints=("last", "best"))


def interrupt(monkeypatch, where, number, kind=Classifier):
    """Raise at the n-th call of a method, of the classifier if nothing else is said."""
    original, calls = getattr(kind, where), []

    def stopping(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == number:
            raise StopError
        return original(self, *args, **kwargs)

    monkeypatch.setattr(kind, where, stopping)


@pytest.mark.parametrize(
    ("where", "number"),
    [
        ("training_step", 1),
        ("training_step", 8),  # the first of the second epoch
        ("training_step", 12),  # within it
        ("training_step", 14),
        ("validation_step", 9),
        ("on_validation_epoch_end", 3),
        ("on_train_epoch_end", 3),
        ("test_step", 1),
    ],
)
def test_an_interrupted_run_ends_as_the_whole_one(where, number, whole, tmp_path, monkeypatch):
    words = [*WORDS, *OFTEN, f"hydra.run.dir={tmp_path / 'run'}"]
    with monkeypatch.context() as patch:
        interrupt(patch, where, number)
        assert exit_code(*words) == 1
    assert read_status(tmp_path / "run")["status"] == "failed"
    assert exit_code(*words) == 0
    assert read_status(tmp_path / "run")["status"] == "ok"
    assert same(tmp_path / "run", whole)


def test_a_run_that_was_moved_ends_as_the_whole_one(whole, tmp_path, monkeypatch):
    """It still knows which checkpoint was the best, and how good."""
    with monkeypatch.context() as patch:
        interrupt(patch, "training_step", 25)
        assert exit_code(*WORDS, *OFTEN, f"hydra.run.dir={tmp_path / 'run'}") == 1
    (tmp_path / "run").rename(tmp_path / "moved")
    assert exit_code(*WORDS, *OFTEN, f"resume={tmp_path / 'moved'}") == 0
    assert same(tmp_path / "moved", whole)
    best = [torch.load(folder / "checkpoints" / "last.ckpt")["callbacks"] for folder in (tmp_path / "moved", whole)]
    scores = [{key: state["best_model_score"] for key, state in one.items() if "monitor" in state} for one in best]
    assert scores[0] == scores[1]
    assert not (tmp_path / "run").exists()


@pytest.mark.filterwarnings("ignore:.*could not find the monitored key")  # of an epoch that ends unvalidated
@pytest.mark.parametrize("number", [8, 15, 24, 26])
def test_with_a_limit_of_steps_an_interrupted_run_ends_as_the_whole_one(number, tmp_path, monkeypatch):
    """Interrupted at the first step of an epoch and within one, the last of which ends early."""
    words = [*WORDS, "trainer.max_epochs=9", "trainer.max_steps=25", *OFTEN]
    assert exit_code(*words, f"hydra.run.dir={tmp_path / 'whole'}") == 0
    with monkeypatch.context() as patch:
        interrupt(patch, "training_step" if number <= 25 else "test_step", number if number <= 25 else 1)
        assert exit_code(*words, f"hydra.run.dir={tmp_path / 'run'}") == 1
    assert exit_code(*words, f"hydra.run.dir={tmp_path / 'run'}") == 0
    assert same(tmp_path / "run", tmp_path / "whole")


def test_gradients_that_are_accumulated_are_not_lost(tmp_path, monkeypatch):
    by_the_clock = "callbacks.recent.train_time_interval.minutes=0"
    words = [*WORDS, "trainer.max_epochs=2", "trainer.accumulate_grad_batches=2", "data.batch_size=16", by_the_clock]
    assert exit_code(*words, f"hydra.run.dir={tmp_path / 'whole'}") == 0
    with monkeypatch.context() as patch:
        interrupt(patch, "training_step", 24)
        assert exit_code(*words, f"hydra.run.dir={tmp_path / 'run'}") == 1
    assert torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"] == 10
    assert exit_code(*words, f"hydra.run.dir={tmp_path / 'run'}") == 0
    assert same(tmp_path / "run", tmp_path / "whole")


def test_interrupted_twice_it_ends_as_the_whole_one(whole, tmp_path, monkeypatch):
    words = [*WORDS, *OFTEN, f"hydra.run.dir={tmp_path / 'run'}"]
    for number in (10, 9):
        with monkeypatch.context() as patch:
            interrupt(patch, "training_step", number)
            assert exit_code(*words) == 1
    assert exit_code(*words) == 0
    assert same(tmp_path / "run", whole)


def test_what_ended_between_its_best_and_its_last_checkpoint_ends_with_both(whole, tmp_path, monkeypatch):
    """Nothing is left to train then."""
    words = [*WORDS, *OFTEN, f"hydra.run.dir={tmp_path / 'run'}"]
    with monkeypatch.context() as patch:
        interrupt(patch, "on_train_epoch_end", 4, EndOfEpoch)
        assert exit_code(*words) == 1
    steps = [torch.load(tmp_path / f"run/checkpoints/{name}.ckpt")["global_step"] for name in ("last", "best")]
    assert steps == [26, 28]
    assert exit_code(*words) == 0
    assert same(tmp_path / "run", whole)


def test_at_wandb_a_failed_start_ends_as_failed_and_the_run_goes_on_under_its_id(tmp_path, monkeypatch):
    """The summary has the numbers of the table, also where nothing was left to train."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    words = ["trainer.max_epochs=2", "data.train_size=128", f"hydra.run.dir={tmp_path}"]
    with monkeypatch.context() as patch:
        interrupt(patch, "test_step", 1)
        assert exit_code(*words) == 1
    assert exit_code(*words) == 0
    failed, done = read_all(tmp_path)
    assert [failed.exit_code, done.exit_code] == [1, 0]
    assert failed.run == done.run
    assert {key for key in done.summary if key.startswith(("final/", "test/"))} == {
        *("final/strategy", "final/gain_train", "final/gain_eval", "final/ratio", "test/loss", "test/acc"),
    }
    assert disagreements([tmp_path]) == []


@pytest.mark.parametrize("why", ["other code", "resume=never"])
def test_at_wandb_what_starts_anew_is_a_run_of_its_own_and_what_goes_on_is_not(why, tmp_path, monkeypatch):
    """Else the new curve would be drawn behind the old one."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    words = ["trainer.max_epochs=2", "data.train_size=64", *OFTEN, f"hydra.run.dir={tmp_path}"]
    assert exit_code(*words) == 0
    if why == "other code":
        for module in (identity, job, resume):
            monkeypatch.setattr(module, "provenance", lambda: {**provenance(), "code_hash": "another"})
    else:
        words.append(why)
    with monkeypatch.context() as patch:
        interrupt(patch, "training_step", 2)
        assert exit_code(*words) == 1
    assert exit_code(*[word for word in words if word != "resume=never"]) == 0
    first, failed, done = (run.run["id"] for run in read_all(tmp_path))
    assert first != failed == done
    assert disagreements([tmp_path]) == []


def test_resume_names_the_folder_alone(whole, tmp_path, monkeypatch):
    folder = tmp_path / "it's here"
    with monkeypatch.context() as patch:
        interrupt(patch, "training_step", 10)
        assert exit_code(*WORDS, *OFTEN, f"hydra.run.dir='{str(folder).replace(chr(39), chr(92) + chr(39))}'") == 1
    monkeypatch.chdir(folder.parent)
    assert exit_code('resume="it\'s here"') == 0
    assert same(folder, whole)


def test_a_job_of_a_sweep_that_is_resumed_by_its_folder_stays_the_run_that_it_was(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_MODE", "offline")
    words = ["trainer.max_epochs=2", "data.train_size=128", f"hydra.sweep.dir={tmp_path}"]
    with monkeypatch.context() as patch:
        interrupt(patch, "training_step", 3)
        assert exit_code("-m", "dropout=classic", *words) == 1
    before = OmegaConf.load(tmp_path / "0" / "config.yaml").run
    capsys.readouterr()
    assert exit_code(f"resume={tmp_path / '0'}") == 0
    said = capsys.readouterr()
    after = OmegaConf.load(tmp_path / "0" / "config.yaml").run
    assert {key: after[key] for key in before if key != "overrides"} == {
        key: before[key] for key in before if key != "overrides"
    }
    assert not (tmp_path / "0" / "wandb").exists()
    assert len(read_all(tmp_path)) == 2
    assert "lost" not in said.err
    assert "test/acc" in said.out  # it runs alone, and says so


@pytest.fixture(scope="module")
def cut(tmp_path_factory):
    """An interrupted run."""
    folder = tmp_path_factory.mktemp("cut") / "run"
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, "training_step", 12)
        assert exit_code(*WORDS, *OFTEN, f"hydra.run.dir={folder}") == 1
    return folder


@pytest.mark.parametrize("damage", ["truncated", "empty", "foreign"])
def test_a_broken_checkpoint_is_named_and_the_next_older_one_used(damage, whole, cut, tmp_path, capsys):
    shutil.copytree(cut, tmp_path / "run")
    words = [*WORDS, *OFTEN, f"hydra.run.dir={tmp_path / 'run'}"]
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    content = last.read_bytes()
    last.write_bytes({"truncated": content[: len(content) // 2], "empty": b"", "foreign": b"GIF89a" * 100}[damage])
    assert exit_code(*words) == 0
    assert f"left out: {last}" in capsys.readouterr().out
    assert same(tmp_path / "run", whole)


@pytest.mark.parametrize("resume", ["{}", "auto"])
def test_a_folder_whose_status_is_damaged_is_not_cleared(resume, cut, tmp_path, capsys):
    shutil.copytree(cut, tmp_path / "run")
    (tmp_path / "run" / "status.json").write_text('{"status": "interr')
    before = run_folders.content(tmp_path / "run")
    words = (
        [*WORDS, *OFTEN, f"hydra.run.dir={tmp_path / 'run'}"] if resume == "auto" else [f"resume={tmp_path / 'run'}"]
    )
    assert exit_code(*words) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert f"{tmp_path / 'run' / 'status.json'} cannot be read: Unterminated string" in line
    assert "resume=never to begin anew" in line
    assert run_folders.content(tmp_path / "run") == before


def test_a_finished_run_is_not_run_again(whole, capsys):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file()}
    assert exit_code(*WORDS, *OFTEN, f"hydra.run.dir={whole}") == 0
    assert "done already" in capsys.readouterr().out
    after = {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file()}
    changed = {path for path in before if after[path] != before[path]}
    assert all(path.name == "train.log" or path.parent.name == ".hydra" for path in changed)  # Hydra's, not ours


def test_a_finished_run_of_other_code_starts_anew(tmp_path, monkeypatch):
    words = ["trainer.max_epochs=1", "data.train_size=64", "logger=csv", f"hydra.run.dir={tmp_path}"]
    assert exit_code(*words) == 0
    first = (tmp_path / "metrics.csv").read_text()
    monkeypatch.setattr(resume, "provenance", lambda: {"code_hash": "another"})
    assert exit_code(*words) == 0
    assert (tmp_path / "metrics.csv").read_text() == first  # not twice as long


def test_what_came_after_the_best_epoch_stays(tmp_path):
    """Testing loads the checkpoint of the best epoch, which knows the tables as they were then."""
    words = [
        "trainer.max_epochs=3",
        "logger=csv",
        "callbacks.checkpoint.monitor=train/loss",
        "callbacks.checkpoint.mode=max",
    ]  # the highest loss: the first epoch's
    assert exit_code(*words, f"hydra.run.dir={tmp_path}") == 0
    assert torch.load(tmp_path / "checkpoints" / "best.ckpt")["epoch"] == 0
    metrics = pd.read_csv(tmp_path / "metrics.csv")
    assert metrics["val/loss"].count() == 3
    assert metrics["test/loss"].count() == 1
    assert set(pd.read_csv(tmp_path / "activations.csv").epoch) == {0, 1, 2}


def test_never_starts_anew(tmp_path, monkeypatch):
    words = ["trainer.max_epochs=2", "data.train_size=64", "logger=csv", f"hydra.run.dir={tmp_path}"]
    with monkeypatch.context() as patch:
        interrupt(patch, "training_step", 2)
        exit_code(*words)
    assert exit_code(*words, "resume=never") == 0
    assert pd.read_csv(tmp_path / "metrics.csv").epoch.min() == 0
    done = (tmp_path / "checkpoints" / "last.ckpt").stat().st_mtime_ns
    assert exit_code(*words) == 0
    assert (tmp_path / "checkpoints" / "last.ckpt").stat().st_mtime_ns == done
    assert exit_code(*words, "resume=never") == 0  # a finished one, too
    assert (tmp_path / "checkpoints" / "last.ckpt").stat().st_mtime_ns > done


def test_a_folder_of_another_configuration_is_refused(whole, capsys):
    before = (whole / "metrics.csv").read_text()
    assert exit_code(*WORDS, *OFTEN, "dropout.p=0.1", f"hydra.run.dir={whole}") == 2
    assert "holds a run of another configuration" in capsys.readouterr().err
    assert (whole / "metrics.csv").read_text() == before


def test_resuming_with_other_overrides_is_refused(whole, capsys):
    assert exit_code(f"resume={whole}", "dropout.p=0.1") == 2
    assert "that run has another configuration; give the same overrides as then" in capsys.readouterr().err


def test_an_empty_folder_is_an_error_and_no_fresh_start(tmp_path, capsys):
    assert exit_code(f"resume={tmp_path}") == 2
    assert "no interrupted run is there" in capsys.readouterr().err
    assert exit_code(f"resume={tmp_path / 'nowhere'}") == 2
    assert not (tmp_path / "nowhere").exists()


def test_a_sweep_started_again_skips_what_is_done_and_resumes_the_rest(tmp_path, monkeypatch):
    words = ["-m", "seed=0,1,2", *WORDS, "trainer.max_epochs=2", f"hydra.sweep.dir={tmp_path}"]
    with monkeypatch.context() as patch:
        interrupt(patch, "training_step", 14 + 10)  # in the second epoch of the second job
        assert exit_code(*words) == 1
    assert [read_status(tmp_path / str(job))["status"] for job in range(3)] == ["ok", "failed", "ok"]
    done = (tmp_path / "0" / "status.json").stat().st_mtime_ns
    assert exit_code(*words) == 0
    assert (tmp_path / "0" / "status.json").stat().st_mtime_ns == done
    assert read_status(tmp_path / "1")["status"] == "ok"
    steps = pd.read_csv(tmp_path / "1" / "metrics.csv").step
    assert steps.is_monotonic_increasing
    assert steps.max() == 14


def written(folder):
    """When the last checkpoint was."""
    last = folder / "checkpoints" / "last.ckpt"
    return last.stat().st_mtime_ns if last.exists() else None


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGTERM, signal.SIGUSR2])
def test_a_process_killed_at_any_moment_can_go_on(kind, whole, tmp_path):
    """Kill it three times at random moments, some of them while a checkpoint is written, with TMPDIR elsewhere."""
    folder = tmp_path / "run"
    words = [*WORDS, *OFTEN, f"hydra.run.dir={folder}"]
    elsewhere = "/dev/shm" if os.access("/dev/shm", os.W_OK) else str(tmp_path)
    chance = random.Random(int(kind))
    for _ in range(3):
        before = written(folder)
        running = Command(*words, TMPDIR=elsewhere)
        while running.returncode is None and written(folder) == before:  # it starts up, which harms nothing
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.5))
        running.send_signal(kind)
        running.wait()
    done = run(*words, TMPDIR=elsewhere)
    assert done.returncode == 0, done.stderr
    assert same(folder, whole)
