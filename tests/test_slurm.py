"""Sweeps as jobs of a real SLURM, of one node, which scripts/slurm_local starts for these tests."""

import os
import re
import shutil
import subprocess
import sys
import time

import pytest
from commands import Command, exit_code
from run_folders import same
from waiting import wait_until

from dropout_lab.jobs.conf import REPOSITORY
from dropout_lab.runs.folder import read_status

MISSING = [name for name in ("slurmctld", "slurmd", "munged") if shutil.which(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"no {', '.join(MISSING)} here: apt install slurm-wlm munge"),
    pytest.mark.skipif(os.geteuid() != 0, reason="starting a SLURM needs root"),
]

PATIENCE = 240  # seconds for anything, on a machine that has other things to do
WORDS = ["trainer.max_epochs=4", "data.train_size=448", "logger=csv", "callbacks.activation_stats.probe_masks=1"]
SLURM = ["hydra/launcher=submitit_slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.timeout_min=30"]
# A checkpoint every second step, and in SLURM time enough to be preempted between two of them.
SLOW = """
import os, time
from dropout_lab.models import CNN

at_first = "SLURM_JOB_ID" in os.environ and "SLURM_RESTART_COUNT" not in os.environ

class Slow(CNN):
    def forward(self, x):
        # Not in the trial with two rows, before the job.
        if self.training and len(x) > 2 and at_first and os.environ["PL_GLOBAL_SEED"] == "1":
            time.sleep(0.2)
        return super().forward(x)
"""
OFTEN = ["callbacks.recent.train_time_interval=null", "+callbacks.recent.every_n_train_steps=2"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The environment in which this cluster is found."""
    folder = tmp_path_factory.mktemp("slurm")
    script = str(REPOSITORY / "scripts" / "slurm_local")
    # What it starts holds on to its output, so that goes into a file.
    with (folder / "start.log").open("w") as output:
        started = subprocess.run(
            [script, "start", str(folder)], env={**os.environ, "CPUS": "2"}, stdout=output, stderr=output, timeout=60
        )
    said = (folder / "start.log").read_text()
    assert started.returncode == 0, said
    assert said == f"export SLURM_CONF={folder}/slurm.conf\n"
    yield {**os.environ, "OMP_NUM_THREADS": "1", "SLURM_CONF": str(folder / "slurm.conf")}
    subprocess.run([script, "stop", str(folder)], check=True, timeout=90)


class Training(Command):
    """A command that runs, and what its jobs have said so far."""

    def __init__(self, environment, run, *words, copy=None):
        super().__init__(*WORDS, "-m", *words, f"hydra.sweep.dir={run}", copy=copy, **environment)
        self.run = run

    def everything(self):
        logs = sorted((self.run / ".submitit").rglob("*_log.*"))
        return "\n".join([self.stderr, *(f"{path}\n{path.read_text()}" for path in logs)])

    def wait_until(self, true, what):
        wait_until(lambda: true() or self.returncode is not None, time.monotonic() + PATIENCE)
        assert true(), f"waited until {what}\n{self.everything()}"

    def finish(self, code=0):
        assert self.wait(PATIENCE) == code, self.everything()
        return self.stderr


def slurm(environment, *command):
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_jobs_run_the_code_as_it_was_and_survive_preemption(cluster, tmp_path):
    """An array of two: submitted from a clone that is broken before they start, and one is preempted half-way."""
    (tmp_path / "slow.py").write_text(SLOW)
    words = ["seed=0,1", "model._target_=slow.Slow", *OFTEN]
    whole = tmp_path / "whole"
    Training({**cluster, "PYTHONPATH": str(tmp_path)}, whole, *words).finish()

    clone, sweep = tmp_path / "clone", tmp_path / "sweep"
    for name in ("src", "conf"):
        shutil.copytree(REPOSITORY / name, clone / name)
    shutil.copy(REPOSITORY / "pyproject.toml", clone)
    held = "+hydra.launcher.additional_parameters.hold=true"
    training = Training({**cluster, "PYTHONPATH": str(tmp_path)}, sweep, *words, *SLURM, held, copy=clone)
    training.wait_until(lambda: "SLURM job" in training.stderr, "the jobs are submitted")
    number = re.search(r"SLURM job (\d+)", training.stderr)[1]
    with (clone / "src" / "dropout_lab" / "modules" / "classification.py").open("a") as file:
        file.write("\nraise RuntimeError('this was edited after the jobs were submitted')\n")
    (clone / "conf" / "dropout" / "inverted.yaml").write_text("_target_: nothing.Here\n_partial_: true\np: 0.5\n")
    slurm(cluster, "scontrol", "release", number)

    second = sweep / "1"
    training.wait_until((second / "checkpoints" / "last.ckpt").exists, "there is a checkpoint")
    slurm(cluster, "scancel", "--signal=USR2", f"{number}_1")
    training.wait_until(lambda: read_status(second)["status"] == "interrupted", "the job has been preempted")
    said = training.finish()
    assert "2/2 " in said
    assert "Requeued job" in training.everything()
    assert "Restarts=1" in slurm(cluster, "scontrol", "show", "job", f"{number}_1")
    for job in "01":
        assert same(sweep / job, whole / job), job


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """The run of two processes without SLURM."""
    folder = tmp_path_factory.mktemp("local") / "run"
    assert exit_code(*WORDS, "trainer=ddp_cpu", "trainer.devices=2", f"hydra.run.dir={folder}") == 0
    return folder


@pytest.mark.parametrize("tasks", [2, 1])
def test_two_processes_of_slurm_are_those_of_one_machine(tasks, cluster, local, tmp_path):
    """Started by SLURM, or by the job itself."""
    words = ["trainer=ddp_cpu", "trainer.devices=2"]
    sweep = tmp_path / "sweep"
    Training(cluster, sweep, *words, *SLURM, f"hydra.launcher.tasks_per_node={tasks}").finish()
    assert same(sweep / "0", local)
    assert {path.name for path in sweep.iterdir()} == {"0", "code", ".submitit", "multirun.yaml"}
    assert len(list((sweep / ".submitit").rglob("*_log.out"))) == tasks


def test_processes_that_srun_starts_are_one_run(cluster, local, tmp_path):
    """Each of them sets up the environment, or finds that there is nothing to do."""
    srun = ["srun", "--ntasks=2", "--ntasks-per-node=2", str(REPOSITORY / "scripts" / "train")]
    words = [*WORDS, "trainer=ddp_cpu"]
    environment = {**cluster, "VIRTUAL_ENV": sys.prefix}
    run = tmp_path / "run"
    done = subprocess.run(
        [*srun, *words, f"hydra.run.dir={run}"], env=environment, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("run folder: ") == 1
    assert same(run, local)


BREAKS = """
import os
from dropout_lab.models import CNN

class Breaks(CNN):
    def forward(self, x):
        # Not in the trial with two rows, before the job.
        if self.training and len(x) > 2 and os.environ["SLURM_PROCID"] == "1":
            raise RuntimeError("rank one is unwell")
        return super().forward(x)
"""


def test_what_failed_first_is_why_the_job_failed(cluster, tmp_path):
    (tmp_path / "breaks.py").write_text(BREAKS)
    words = ["trainer=ddp_cpu", "model._target_=breaks.Breaks", *SLURM, "hydra.launcher.tasks_per_node=2"]
    training = Training({**cluster, "PYTHONPATH": str(tmp_path)}, tmp_path / "sweep", *words)
    assert "rank 1: RuntimeError: rank one is unwell" in training.finish(code=1)
