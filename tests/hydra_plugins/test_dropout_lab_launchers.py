"""Launchers: the same sweep with its jobs in other processes leaves the same folders with the same numbers."""

import importlib
import os
import signal
import sys
import time

import pandas as pd
import pytest
import yaml
from commands import Command, exit_code, run, working_in
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from run_folders import same
from waiting import wait_until

from dropout_lab.cli import UserError
from dropout_lab.jobs import workers
from dropout_lab.jobs.devices import planned
from dropout_lab.jobs.plan import plan
from dropout_lab.jobs.workers import Worker
from dropout_lab.runs.folder import read_status
from dropout_lab.train.progress import SweepProgress, counting_from_folders
from hydra_plugins import dropout_lab_launchers as launchers

QUICK = ["trainer.max_epochs=1", "data.train_size=128", "callbacks.activation_stats.probe_masks=1"]
BREAKING = """
import os
from dropout_lab.models import CNN

class Breaks(CNN):
    def forward(self, x):
        # Not in the trial with two rows, before the job.
        if self.training and len(x) > 2 and os.environ["PL_GLOBAL_SEED"] == "1":
            {action}
        return super().forward(x)
"""


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """Makes a model that does something in the job of seed 1, in a module of its own."""

    def made(action):
        name = f"breaks_{tmp_path.name}"
        (tmp_path / f"{name}.py").write_text(BREAKING.format(action=action))
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        return f"model._target_={name}.Breaks"

    return made


@pytest.mark.slow
def test_jobs_side_by_side_are_those_of_one_after_another(tmp_path, broken):
    """Also where one of them fails."""
    model = broken('raise RuntimeError("seed one is unwell")')
    launchers = {"one": [], "joblib": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]}
    launchers["submitit"] = ["hydra/launcher=submitit_local"]
    said = {}
    for name, launcher in launchers.items():
        words = [*QUICK, "-m", "seed=1,0,2" if name != "submitit" else "seed=1,0", model, *launcher]
        done = run(*words, f"hydra.sweep.dir={tmp_path / name}")
        assert done.returncode == 1
        said[name] = done.stderr
        failed, *others = [read_status(folder.parent) for folder in sorted((tmp_path / name).glob("*/status.json"))]
        assert failed["error"] == "RuntimeError: seed one is unwell"
        assert f"breaks_{tmp_path.name}.py" in failed["traceback"]
        assert [status["status"] for status in (failed, *others)] == ["failed", *["ok"] * len(others)]
        assert f"1 of {1 + len(others)} jobs did not end well" in said[name]
        assert len(list((tmp_path / name / "wandb").glob("offline-run-*"))) == 1 + len(others)
    for other in ("joblib/1", "joblib/2", "submitit/1"):
        folders = tmp_path / other, tmp_path / "one" / other[-1]
        assert same(*folders)
        ours, theirs = (yaml.safe_load((folder / "config.yaml").read_text())["run"] for folder in folders)
        assert (ours["config_hash"], ours["name"]) == (theirs["config_hash"], theirs["name"])
    lines = said["joblib"].splitlines()
    assert (
        lines[0]
        == f"3 jobs through joblib, 2 at a time (n_jobs=2), each 1 device and 2 steps, in {tmp_path / 'joblib'}"
    )
    assert [line[:4] for line in lines if line[1:4] == "/3 "] == ["1/3 ", "2/3 ", "3/3 "]
    assert "seed=1: RuntimeError: seed one is unwell" in said["joblib"]
    assert len(lines) <= 10  # nobody prints what only a run that is alone should


FOREIGN = """
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.types import HydraContext


class Foreign(BasicLauncher):
    def setup(self, *, hydra_context, task_function, config):
        own = ConfigLoaderImpl(hydra_context.config_loader.get_search_path())
        context = HydraContext(config_loader=own, callbacks=hydra_context.callbacks)
        super().setup(hydra_context=context, task_function=task_function, config=config)

    def launch(self, job_overrides, initial_job_idx):
        first, second = job_overrides
        return super().launch([first, [*second, "optimizer.lr=7"]], initial_job_idx)
"""


@pytest.mark.slow
def test_a_job_that_a_foreign_launcher_composes_runs_if_it_is_the_planned_one(tmp_path, monkeypatch, capsys):
    (tmp_path / "hydra_plugins").mkdir()
    (tmp_path / "hydra_plugins" / "foreign.py").write_text(FOREIGN)
    monkeypatch.syspath_prepend(tmp_path)
    Plugins.instance().register(importlib.import_module("hydra_plugins.foreign").Foreign)
    words = ["logger=csv", "hydra.launcher._target_=hydra_plugins.foreign.Foreign", f"hydra.sweep.dir={tmp_path / 's'}"]
    assert exit_code(*QUICK, "-m", "seed=0,1", "trainer.min_epochs=1", *words) == 1
    first, second = (read_status(tmp_path / "s" / number) for number in "01")
    assert first["status"] == "ok"
    assert (second["status"], second["error"]) == (
        "failed",
        "its launcher brought another configuration than was planned; use one in conf/",
    )
    assert "1 of 2 jobs did not end well" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("n_jobs", "gpus", "cores", "jobs", "processes"),
    [(None, [], 3, 5, 3), (None, [], 3, 2, 2), (None, ["0", "1"], 3, 5, 2), (4, [], 3, 5, 4), (1, ["0", "1"], 3, 5, 1)],
)
def test_there_is_a_worker_for_each_gpu_or_free_core(n_jobs, gpus, cores, jobs, processes, monkeypatch):
    monkeypatch.setattr(workers, "free_cores", lambda: cores)
    for module in (launchers, workers):
        monkeypatch.setattr(module, "visible_gpus", lambda: gpus)
    monkeypatch.setattr(Worker, "run", lambda self, job, config, number: number)
    launcher = launchers.Joblib(n_jobs)
    launcher.context = launcher.task = launcher.config = None
    monkeypatch.setattr(launchers, "Job", lambda context, task: None)
    monkeypatch.setattr(launcher, "composed", lambda overrides: overrides)
    assert launcher.launch([[]] * jobs, 0) == list(range(jobs))
    assert len(launcher.workers) == processes


@pytest.mark.slow
def test_a_job_that_is_killed_does_not_end_the_sweep(tmp_path, broken, capfd):
    """Not even those that run beside it."""
    words = ["-m", "seed=0,1,2,3", broken("os.kill(os.getpid(), 9)"), "hydra/launcher=joblib"]
    assert exit_code(*QUICK, *words, "hydra.launcher.n_jobs=2", f"hydra.sweep.dir={tmp_path / 's'}") == 1
    statuses = [read_status(tmp_path / "s" / job)["status"] for job in "0123"]
    assert statuses == ["ok", "running", "ok", "ok"]
    said = capfd.readouterr().err
    assert "failed: job 1: its process was killed: SIGKILL(-9)" in said
    assert f"1 of 4 jobs did not end well:\n  running  {tmp_path}/s/1  its process was killed\n" in said


@pytest.mark.slow
def test_where_sbatch_refuses_its_words_are_the_line(tmp_path):
    (tmp_path / "bin").mkdir()
    for name in ("sbatch", "srun"):
        program = tmp_path / "bin" / name
        program.write_text("#!/bin/sh\necho 'sbatch: error: invalid partition: gpu' >&2\nexit 1\n")
        program.chmod(0o755)
    words = ["-m", "seed=0,1", "hydra/launcher=submitit_slurm", f"hydra.sweep.dir={tmp_path / 's'}"]
    done = run(*QUICK, *words, PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert done.returncode == 2
    assert done.stderr.splitlines()[1:] == [
        "error: hydra/launcher=submitit_slurm: no job has started: sbatch: error: invalid partition: gpu"
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_sweep_that_is_ended_leaves_no_process(kind, code, tmp_path):
    words = ["-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "seed=0,1", "logger=csv"]
    running = Command(*words, "trainer.max_epochs=10000", f"hydra.sweep.dir={tmp_path}", folder=tmp_path)
    deadline = time.monotonic() + 120
    training = [tmp_path / job / "metrics.csv" for job in "01"]  # both: one that has not begun to train notes nothing
    wait_until(lambda: all(path.exists() for path in training), deadline)
    assert all(path.exists() for path in training), running.stderr
    assert len(working_in(tmp_path)) > 3  # the command, two workers, and the server that they are forks of
    running.send_signal(kind)
    assert running.wait(60) == code
    assert "killed" not in running.stderr
    assert "Traceback" not in running.stderr
    wait_until(lambda: not working_in(tmp_path), deadline)
    assert working_in(tmp_path) == []
    assert [read_status(tmp_path / job)["status"] for job in "01"] == ["interrupted"] * 2


def test_jobs_elsewhere_are_counted_as_their_folders_say_so(tmp_path, capsys):
    folders = {tmp_path / job: f"job {job}" for job in "012"}
    for folder in folders:
        folder.mkdir()
    (tmp_path / "2" / "status.json").write_text('{"status": "ok"}')  # of an earlier sweep
    progress = SweepProgress(3)
    with counting_from_folders(progress, folders, interval=0.01):
        (tmp_path / "0" / "status.json").write_text('{"status": "running"}')
        (tmp_path / "1" / "status.json").write_text('{"status": "failed"}')
        time.sleep(0.2)
        assert capsys.readouterr().err.startswith("1/3 job 1 (")
        (tmp_path / "0" / "status.json").write_text('{"status": "ok"}')
    assert capsys.readouterr().err.startswith("2/3 job 0 (")


def test_a_job_elsewhere_is_shown_from_when_it_runs(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(SweepProgress, "_show", lambda self, job: shown.append((self._done, job)))
    (tmp_path / "0").mkdir()
    progress = SweepProgress(1)
    with counting_from_folders(progress, {tmp_path / "0": "job 0"}, interval=0.01):
        (tmp_path / "0" / "status.json").write_text('{"status": "running"}')
        wait_until(lambda: len(shown) > 1, time.monotonic() + 10)
        assert shown == [(0, "starting"), (0, "job 0")]


def test_jobs_that_were_done_before_are_counted_first(tmp_path, capsys):
    folders = {tmp_path / job: f"job {job}" for job in "01"}
    for folder in folders:
        folder.mkdir()
        (folder / "status.json").write_text('{"status": "ok"}')
    with counting_from_folders(SweepProgress(2), folders, done={tmp_path / "1"}, interval=0.01):
        time.sleep(0.2)
        assert [line[:9] for line in capsys.readouterr().err.splitlines()] == ["1/2 job 1"]
    assert capsys.readouterr().err == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "devices"),
    [
        (["trainer=ddp_cpu"], 2),  # which the job starts itself
        (["trainer=ddp", "trainer.devices=8"], 8),  # which this machine does not have
        (["trainer=ddp_cpu", "hydra.launcher.tasks_per_node=2"], 2),
        (
            [
                "trainer=ddp",
                "trainer.devices=4",
                "trainer.num_nodes=2",
                *(f"hydra.launcher.{k}" for k in ("nodes=2", "tasks_per_node=4")),
            ],
            8,
        ),
        (["trainer=ddp_cpu", "hydra.launcher.tasks_per_node=4"], None),
        (["hydra.launcher.tasks_per_node=2"], None),
        (["trainer=ddp_cpu", "trainer.num_nodes=2"], None),
        (["trainer=ddp_cpu", "hydra.launcher.nodes=2"], None),
    ],
)
def test_the_tasks_of_slurm_are_the_devices_of_the_job(words, devices):
    job_plan = plan(["-m", "hydra/launcher=submitit_slurm", *words])
    asked = job_plan.jobs[0].alike["trainer"], job_plan.base.hydra.launcher
    if devices:
        assert planned(*asked) == devices
    else:
        with pytest.raises(UserError, match=r"so the two pairs must be equal"):
            planned(*asked)


def test_a_launcher_without_a_sweep_is_refused():
    with pytest.raises(UserError, match="hydra/launcher=joblib: launchers start the jobs of a sweep; add -m"):
        plan(["hydra/launcher=joblib"])


@pytest.mark.parametrize("name", ["submitit_slurm", "submitit_local"])
def test_a_launcher_without_its_extra_says_which(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UserError, match=rf"^hydra/launcher={name} needs an extra of this package: .*\[slurm\]'$"):
        plan(["-m", f"hydra/launcher={name}"])


def test_a_search_without_its_extra_says_which(monkeypatch):
    monkeypatch.delitem(ConfigStore.instance().repo["hydra"]["sweeper"], "optuna.yaml")
    with pytest.raises(UserError, match=r"^hydra/sweeper=optuna needs an extra of this package: .*\[sweep\]'$"):
        plan(["-m", "sweep=optuna"])


def test_a_search_is_planned_with_the_first_of_the_values_of_each_key(tmp_path):
    words = ["-m", "sweep=optuna", "dropout.p=interval(0.2,0.8)", "model=choice(mlp,cnn)", "optimizer.lr=range(1,9)"]
    searched = plan([*words, f"hydra.sweep.dir={tmp_path}"])
    assert searched.jobs == []
    example = searched.example.config
    assert (example.dropout.p, example.optimizer.lr) == (0.2, 1)
    assert "MLP" in example.model._target_
    with pytest.raises(UserError, match=r"dropout\.p=2\.0: must be the probability"):
        plan(["-m", "sweep=optuna", "dropout.p=interval(2,3)"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # what Optuna imports
def test_every_trial_of_a_search_is_a_right_run_of_two_processes(tmp_path, capfd):
    words = ["-m", "sweep=optuna", "hydra.sweeper.n_trials=2", "trainer=ddp_cpu", "trainer.devices=2"]
    assert exit_code(*QUICK, *words, "logger=csv", f"hydra.sweep.dir={tmp_path}") == 0
    assert capfd.readouterr().err.startswith(f"2 jobs, each 2 devices and 2 steps, in {tmp_path}\n")
    found = yaml.safe_load((tmp_path / "optimization_results.yaml").read_text())
    trials = {}
    for job in "01":
        assert read_status(tmp_path / job)["status"] == "ok"
        config = yaml.safe_load((tmp_path / job / "config.yaml").read_text())
        assert config["trainer"]["devices"] == 2
        trials[config["dropout"]["p"]] = read_status(tmp_path / job)["objective"]
        assert len(pd.read_csv(tmp_path / job / "metrics.csv"))
    assert len(trials) == 2
    assert found["best_value"] == min(trials.values())
    assert found["best_params"]["dropout.p"] == min(trials, key=trials.get)
