"""Laws of the Trainer: all of Lightning's settings work with everything that a run is, or are refused beforehand."""

import inspect
import json
import math
import re

import pytest
from commands import Command, main_of
from lightning import Trainer
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from dropout_lab.cli import UserError
from dropout_lab.evaluate import evaluate
from dropout_lab.jobs.conf import CONF
from dropout_lab.jobs.plan import plan
from dropout_lab.runs import read
from dropout_lab.runs.folder import checkpoints, read_status
from dropout_lab.runs.loggers import Csv
from dropout_lab.train.preflight import refusals
from dropout_lab.train.trainer import try_trainer

SMALL = ["model=mlp", "data.train_size=256", "trainer.max_epochs=2", "logger=csv"]  # four batches an epoch
MORE = "+callbacks.more={_target_: dropout_lab.runs.checkpoints.Checkpoint}"


def table():
    """The rows of conf/trainer/README.md: section, argument, words that work, words that are refused."""
    section = None
    for line in (CONF / "trainer" / "README.md").read_text().splitlines():
        if line.startswith("## "):
            section = line.removeprefix("## ").split(".")[0]
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == 3 and (found := re.fullmatch(r"`(\w+)`", cells[0])):
            name = found[1]
            word = re.compile(rf"`({section}(?:\.\w+)?\.{name}=[^`]*)`")
            yield section, name, word.findall(cells[1]), word.findall(cells[2])


ROWS = list(table())
REFUSED = [(name, word) for _, name, _, refused in ROWS for word in refused]


def together():
    """What works, in as few jobs as have each key once."""
    jobs = []
    for _, _, works, _ in ROWS:
        for word in works:
            key = word.partition("=")[0]
            job = next((job for job in jobs if key not in job), None)
            if job is None:
                jobs.append(job := {})
            job[key] = word
    return [list(job.values()) for job in jobs]


def planned(command):
    for job in plan(command).known:
        try_trainer(job)
        refusals([job])


def words(*given):
    return [*SMALL, *[MORE] * any(word.startswith("callbacks.more.") for word in given), *given]


@pytest.mark.parametrize(("section", "kind"), [("trainer", Trainer), ("callbacks", ModelCheckpoint)])
def test_the_table_has_every_argument_of_lightning_with_words_to_try(section, kind):
    assert sorted(name for of, name, _, _ in ROWS if of == section) == sorted(inspect.signature(kind).parameters)
    assert [name for _, name, works, refused in ROWS if not works + refused] == []


@pytest.mark.slow
@pytest.mark.parametrize(("name", "word"), REFUSED)
def test_what_the_table_refuses_is_one_line_before_anything_starts(name, word):
    with pytest.raises(UserError, match=rf"^.*\b{name}\b.*$"):
        planned(words(word))


@pytest.mark.slow
@pytest.mark.parametrize("job", together(), ids=range(len(together())))
def test_what_the_table_says_works_can_be_tested_gone_on_with_evaluated_and_reported(job, tmp_path):
    folder = tmp_path / "run"
    command = [*words(*job), f"hydra.run.dir={folder}"]
    for _ in range(2):
        training = Command(*command)
        assert training.wait(300) == 0, training.stderr
        status = read_status(folder)
        run = read.open(folder)
        tested = {key: run.final(key) for key in ("test/loss", "test/acc")}
        assert all(math.isfinite(value) for value in tested.values())
        (folder / "status.json").write_text(json.dumps(status | {"status": "running"}))  # as if killed at its end
    assert "is done already" not in training.stderr
    there = {path.stem for path in checkpoints(folder)}
    assert {"best", "last"} < there if "callbacks.more." in str(job) else {"best", "last"} == there
    for name in there:
        again = evaluate(folder, name)
        assert name != "best" or again == pytest.approx(tested, rel=1e-6)
    (folder / "status.json").write_text(json.dumps(status))
    main_of("dropout_lab.report").main([str(folder)])


def test_ten_jobs_try_all_that_works():
    assert len(together()) <= 10


class Eager(Csv):
    """Starts something when it is made, as Comet's logger does."""

    def __init__(self, dir: str, speed: int = 1) -> None:
        raise AssertionError("made")


def test_a_logger_that_may_start_something_is_not_made():
    def eager(**keys):
        return [f"+logger.eager._target_={__name__}.Eager", *(f"+logger.eager.{k}={v}" for k, v in keys.items())]

    assert refusals(plan(eager(dir="x", speed=2)).jobs) == {}
    with pytest.raises(UserError, match=r"^logger.eager.sped: .*did you mean 'speed'\?$"):
        refusals(plan(eager(dir="x", sped=2)).jobs)
    with pytest.raises(UserError, match=r"^logger.eager: .*'dir'"):
        refusals(plan(eager()).jobs)


class LogsF1(Callback):
    """A fork's own."""


def test_a_metric_that_a_callback_of_a_fork_may_log_can_be_monitored():
    asked = ["callbacks.checkpoint.monitor=val/f1"]
    with pytest.raises(UserError, match=r"^callbacks.checkpoint.monitor=val/f1: nothing logs that; "):
        refusals(plan(asked).jobs)
    assert refusals(plan([*asked, f"+callbacks.f1._target_={__name__}.LogsF1"]).jobs) == {}
    rate = ["callbacks=[default,lr_monitor]", "callbacks.checkpoint.monitor=lr-SGD"]
    assert refusals(plan(rate).jobs) == {}


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["gpu", "ddp", "fsdp"])
def test_a_trainer_for_devices_that_are_not_here_is_checked_all_the_same(trainer):
    """A cluster's login node plans what its other nodes run."""
    assert refusals(plan([f"trainer={trainer}", "hydra/launcher=submitit_slurm", "-m"]).jobs) == {}
    wrong = plan([f"trainer={trainer}", "hydra/launcher=submitit_slurm", "-m", "trainer.precision=fp99"]).jobs
    with pytest.raises(UserError, match=r"^trainer\.precision=fp99: must be "):
        refusals(wrong)
