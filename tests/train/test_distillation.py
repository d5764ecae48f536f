"""Laws of distillation: only the loss asks the teacher, only training needs it, and what it says is the run's own."""

import json
import math
import re
import shutil

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from commands import exit_code
from run_folders import same, stopped
from torch import nn

from dropout_lab.cli import UserError
from dropout_lab.evaluate import evaluate
from dropout_lab.fold import fold
from dropout_lab.jobs.plan import plan
from dropout_lab.modules.frozen import Frozen
from dropout_lab.report.__main__ import main as report
from dropout_lab.runs.identity import fingerprints
from dropout_lab.runs.network import restore
from dropout_lab.train.distillation import Distillation

SMALL = [
    *("model=mlp", "model.widths=[16]", "data.train_size=200", "trainer=cpu", "trainer.max_epochs=2", "logger=csv"),
    *("callbacks.activation_stats.probe_masks=0", "trainer.precision=64-true"),
]
OFTEN = ["+callbacks.recent.every_n_train_steps=1", "callbacks.recent.train_time_interval=null"]
LOST = "lost"  # a folder that is not there


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    """The folder of two trained networks with dropout and batch normalisation, 0 and 1: one of each seed."""
    folder = tmp_path_factory.mktemp("teachers")
    words = ["data.train_size=128", "trainer.max_epochs=1", "logger=csv", "model.batch_norm=true", "dropout=classic"]
    words += ["callbacks.activation_stats.probe_masks=0"]
    assert exit_code("-m", *words, "seed=0,1", f"hydra.sweep.dir={folder}") == 0
    return folder


@pytest.fixture(scope="module")
def taught(teachers, tmp_path_factory):
    """The words of a small run, and its folder."""
    words = [*SMALL, *OFTEN, "dropout=inverted", "module=distillation", f"module.teacher={teachers / '0'}"]
    folder = tmp_path_factory.mktemp("taught") / "run"
    assert exit_code(*words, f"hydra.run.dir={folder}") == 0
    return words, folder


def told(capsys):
    """What a command that was refused said."""
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error: "))
    return line


def weights(folder):
    return torch.load(folder / "checkpoints" / "best.ckpt")["state_dict"]


def test_the_loss_is_that_of_hinton_et_al():
    student, teacher = nn.Linear(3, 4).double(), nn.Linear(3, 4).double()
    module = Distillation(student, teacher="unread", temperature=3.0, weight=0.75)
    module._teacher = Frozen(teacher)
    x, y = torch.randn(5, 3).double(), torch.tensor([0, 1, 2, 3, 0])
    loss, numbers = module.loss((x, y))
    p, q = (net(x).div(3.0).softmax(1) for net in (teacher, student))
    distance = 9 * (p * (p / q).log()).sum(1).mean()
    torch.testing.assert_close(numbers["distillation"], distance)
    torch.testing.assert_close(loss, 0.25 * F.cross_entropy(student(x), y) + 0.75 * distance)
    loss.backward()
    assert student.weight.grad is not None
    assert teacher.weight.grad is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, r"temperature=0.0: must be a number > 0"),
        ({"temperature": math.nan}, r"temperature=nan: must be a number > 0"),
        ({"weight": 1.5}, r"weight=1.5: must be a number in \[0, 1\]"),
    ],
)
def test_values_that_mean_nothing_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Distillation(nn.Linear(3, 4), teacher="unread", **options)


@pytest.mark.slow
def test_a_teacher_changes_nothing_but_what_is_learned(teachers, taught, tmp_path):
    words, folder = taught
    assert exit_code(*words, "module.weight=0", f"hydra.run.dir={tmp_path / 'deaf'}") == 0
    assert exit_code(*SMALL, *OFTEN, "dropout=inverted", f"hydra.run.dir={tmp_path / 'alone'}") == 0
    deaf, alone = (pd.read_csv(tmp_path / name / "metrics.csv") for name in ("deaf", "alone"))
    pd.testing.assert_frame_equal(deaf.drop(columns="train/distillation"), alone, check_exact=True)
    learned = pd.read_csv(folder / "metrics.csv")
    assert learned["train/distillation"].notna().any()
    assert learned["test/loss"].iloc[-1] != alone["test/loss"].iloc[-1]
    assert {*weights(folder)} == {*weights(tmp_path / "alone")}
    assert all(
        torch.equal(a, b) for a, b in zip(*(weights(tmp_path / n).values() for n in ("deaf", "alone")), strict=True)
    )


@pytest.mark.slow
@pytest.mark.parametrize("averaged", [False, True])
def test_an_interrupted_run_ends_as_the_whole_one(taught, averaged, tmp_path):
    words, whole = taught
    if averaged:
        words = [*words, "callbacks=[default,weight_averaging]"]
        whole = tmp_path / "whole"
        assert exit_code(*words, f"hydra.run.dir={whole}") == 0
    with stopped(Distillation, lambda module, _: module.global_step == 5):
        assert exit_code(*words, f"hydra.run.dir={tmp_path / 'cut'}") == 1
    assert exit_code(*words, f"hydra.run.dir={tmp_path / 'cut'}") == 0
    assert same(tmp_path / "cut", whole, checkpoints=("last", "best"))


@pytest.mark.slow
def test_two_processes_are_one(taught, tmp_path):
    words, whole = taught
    more = ["trainer=ddp_cpu", "trainer.devices=2", "trainer.max_epochs=2", "trainer.precision=64-true"]
    assert exit_code(*words, *more, f"hydra.run.dir={tmp_path}") == 0
    one, two = (pd.read_csv(folder / "metrics.csv") for folder in (whole, tmp_path))
    pd.testing.assert_frame_equal(one, two, check_like=True, rtol=1e-10, atol=1e-10)


@pytest.mark.slow
def test_only_training_needs_the_teacher(teachers, taught, tmp_path, capsys):
    words, whole = taught
    shutil.copytree(teachers / "0", tmp_path / "teacher")
    words = [*words[:-1], f"module.teacher={tmp_path / 'teacher'}"]
    with stopped(Distillation, lambda module, _: module.global_step == 5):
        assert exit_code(*words, f"hydra.run.dir={tmp_path / 'cut'}") == 1
    shutil.move(tmp_path / "teacher", tmp_path / LOST)
    logged = pd.read_csv(whole / "metrics.csv").iloc[-1]
    shutil.copytree(whole, tmp_path / "run")
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text().replace(str(teachers / "0"), str(tmp_path / "teacher")))
    assert evaluate(tmp_path / "run") == {key: logged[key] for key in ("test/loss", "test/acc")}
    assert fold(tmp_path / "run", tmp_path / "plain.pt", "best")[0] == 0
    capsys.readouterr()
    for again in (words, [f"resume={tmp_path / 'cut'}"]):
        assert exit_code(*again, *[f"hydra.run.dir={tmp_path / 'cut'}"][: len(again) - 1]) == 2
        assert re.search(r"^error: module.teacher=\S+teacher: \S+ does not exist", told(capsys))
    shutil.move(tmp_path / LOST, tmp_path / "teacher")
    assert exit_code(f"resume={tmp_path / 'cut'}") == 0
    assert same(tmp_path / "cut", whole)


@pytest.mark.slow
def test_it_goes_on_by_its_folder_from_wherever_the_command_is_given(teachers, taught, tmp_path, monkeypatch):
    words, whole = taught
    monkeypatch.chdir(teachers)
    with stopped(Distillation, lambda module, _: module.global_step == 5):
        assert exit_code(*words[:-1], "module.teacher=0", f"hydra.run.dir={tmp_path / 'cut'}") == 1
    monkeypatch.chdir(tmp_path)
    assert exit_code("resume=cut") == 0
    assert same(tmp_path / "cut", whole)


@pytest.mark.slow
def test_a_teacher_for_each_seed_is_one_row_with_the_columns_of_classification(teachers, tmp_path):
    words = [*SMALL, "module=distillation", f"module.teacher='{teachers}/${{seed}}'", "dropout=inverted,none"]
    assert exit_code("-m", *words, "seed=0,1", f"hydra.sweep.dir={tmp_path}") == 0
    report([str(tmp_path)])
    table = pd.read_csv(tmp_path / "table.csv").set_index("strategy")
    assert table["seeds"].to_dict() == {"inverted": 2, "none": 2}
    assert table[["test_acc_mean", "test_nll_mean", "gap_nll_mean", "test_nll_minus_baseline_mean"]].notna().any().all()
    one, two = (fingerprints(job) for job in plan(["-m", *words[:-1], "seed=0,1"]).jobs)
    assert one.group == two.group
    assert one.run != two.run


@pytest.mark.slow
def test_the_teacher_s_weights_are_part_of_the_fingerprint_and_not_their_place(teachers, tmp_path, monkeypatch):
    monkeypatch.chdir(teachers)
    shutil.copytree(teachers / "0", tmp_path / "copy")
    places = (teachers / "0", "0", tmp_path / "copy", teachers / "1")
    jobs = [plan([*SMALL, "module=distillation", f"module.teacher='{each}'"]).jobs[0] for each in places]
    first, *same_weights, other = (fingerprints(job).run for job in jobs)
    assert {*same_weights} == {first}
    assert other != first


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["module.teacher=DIR"], r"module.teacher=\S+: \S+ is no run, it has no config.yaml; in \S+ there is 0, 1$"),
        (["module.teacher=DIR/2"], r"module.teacher=\S+2: \S+2 does not exist; .*there is 0, 1$"),
        (
            ["module.teacher=DIR/0/checkpoints/no.ckpt"],
            r"no.ckpt does not exist; the run has module.teacher=\S+best.ckpt",
        ),
        (["module.teacher=RUNNING"], r"that run has the status running; a teacher has to be trained to its end"),
        (["module.teacher=DIR/0", "data=synthetic", "+data.num_classes=3"], r"inputs .* classes, but here they are"),
        (["module.teacher=DIR/0", "module.weight=2"], r"module.weight=2: must be a number in \[0, 1\]"),
        ([], "module.teacher needs a value: module.teacher=..."),
    ],
)
def test_what_can_not_teach_is_one_line_before_anything_starts(words, message, teachers, tmp_path, capsys):
    running = shutil.copytree(teachers / "0", tmp_path / "running")
    status = json.loads((running / "status.json").read_text())
    (running / "status.json").write_text(json.dumps({**status, "status": "running"}))
    words = [word.replace("DIR", str(teachers)).replace("RUNNING", str(running)) for word in words]
    assert exit_code(*SMALL, "module=distillation", *words, f"hydra.run.dir={tmp_path / 'run'}") == 2
    assert not (tmp_path / "run").exists()
    assert re.search(message, told(capsys))


@pytest.mark.slow
def test_to_load_a_teacher_draws_nothing(teachers):
    module, data = Distillation(nn.Linear(3, 4), teacher=str(teachers / "0")), restore(teachers / "0").data
    drawn = torch.get_rng_state()
    module.begin(data)
    assert torch.equal(torch.get_rng_state(), drawn)


@pytest.mark.slow
def test_a_teacher_of_another_kind_is_refused(taught, tmp_path):
    words = ["data=tabular", "module=regression", "model=mlp", "trainer.max_epochs=1", "logger=csv"]
    assert exit_code(*words, f"hydra.run.dir={tmp_path}") == 0
    with pytest.raises(UserError, match="that run is no classification, but Regression"):
        Distillation(nn.Linear(3, 4), teacher=str(tmp_path)).begin(None)
