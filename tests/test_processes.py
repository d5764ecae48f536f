"""A job on several devices: the same run as on one, started as processes of its own."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from dropout_lab import processes
from dropout_lab.config import plan
from dropout_lab.errors import UserError
from dropout_lab.run_folder import read_status

QUICK = ["trainer=ddp_cpu", "trainer.max_epochs=3", "data.train_size=256", "logger=csv"]


def run(*words, env=()):
    command = [sys.executable, "-m", "dropout_lab.train", *QUICK, *words]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1", **dict(env)}
    )


def weights(folder):
    return torch.load(folder / "checkpoints" / "last.ckpt")["state_dict"]


def gap(first, second):
    """The largest difference of two sets of weights."""
    ours, theirs = weights(first), weights(second)
    return max(float((ours[key] - theirs[key]).abs().max()) for key in theirs if ours[key].is_floating_point())


@pytest.fixture
def alone(monkeypatch):
    for name in ("RANK", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def needed(*words):
    return processes.needed(plan(words).jobs[0])


def test_one_device_needs_no_other_process(alone):
    assert needed() == 1
    assert needed("trainer=cpu") == 1


def test_every_device_is_a_process(alone):
    assert needed("trainer=ddp_cpu") == 2
    assert needed("trainer=ddp_cpu", "trainer.devices=4") == 4


def test_processes_that_are_started_already_start_no_others(alone):
    alone.setenv("RANK", "1")
    assert needed("trainer=ddp_cpu", "trainer.devices=4") == 1
    assert processes.rank() == 1
    alone.delenv("RANK")
    alone.setenv("SLURM_STEP_NUM_TASKS", "2")
    alone.setenv("SLURM_PROCID", "1")
    assert needed("trainer=ddp_cpu") == 1
    assert processes.rank() == 1


def test_a_batch_script_is_no_group_of_processes(alone):
    alone.setenv("SLURM_NTASKS", "2")
    alone.setenv("SLURM_PROCID", "0")
    assert needed("trainer=ddp_cpu") == 2
    alone.setenv("SLURM_STEP_NUM_TASKS", "1")
    assert needed("trainer=ddp_cpu") == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trainer=ddp", "trainer.devices=64"], "trainer.devices=64: this machine has"),
        (["trainer=ddp_cpu", "trainer.num_nodes=2"], "trainer.num_nodes=2: on several machines torchrun or SLURM"),
    ],
)
def test_devices_that_are_not_there_are_named(words, message, alone):
    with pytest.raises(UserError, match=message):
        needed(*words)


def test_the_batch_must_be_divisible_by_the_devices(tmp_path):
    done = run("trainer.devices=3", f"hydra.run.dir={tmp_path / 'run'}")
    assert done.returncode == 2
    assert "data.batch_size=64 is the batch over all devices and must be divisible by their number, 3" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_training_with_ddp_on_one_device_leaves_nothing_in_the_process(tmp_path, alone):
    """Else the next job of a sweep, and whatever it starts, inherits the port of this one."""
    from dropout_lab import train

    before = dict(os.environ)
    with pytest.raises(SystemExit) as ended:
        train.main([*QUICK, "trainer.devices=1", "trainer.max_epochs=1", f"hydra.run.dir={tmp_path}"])
    assert ended.value.code == 0
    assert {name: os.environ.get(name) for name in processes.GROUP} == {
        name: before.get(name) for name in processes.GROUP
    }
    assert not torch.distributed.is_initialized()


@pytest.mark.slow
def test_a_sweep_over_devices_gives_a_right_folder_for_each_job(tmp_path):
    done = run("-m", "trainer.devices=2,1", "seed=0,1", f"hydra.sweep.dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    folders = [tmp_path / str(job) for job in range(4)]
    for folder, (devices, seed) in zip(folders, [(2, 0), (2, 1), (1, 0), (1, 1)], strict=True):
        config = yaml.safe_load((folder / "config.yaml").read_text())
        assert (config["trainer"]["devices"], config["seed"]) == (devices, seed)
        status = read_status(folder)
        assert status["status"] == "ok"
        assert status["objective"] == pytest.approx(pd.read_csv(folder / "metrics.csv")["val/loss"].min(), rel=1e-6)
    assert {path.name for path in tmp_path.iterdir()} <= {"0", "1", "2", "3", "multirun.yaml", "wandb"}
    for two, one in ((0, 2), (1, 3)):
        assert gap(folders[two], folders[one]) < 1e-5
        ours, theirs = (pd.read_csv(folders[job] / "metrics.csv") for job in (two, one))
        # The probe takes some of the first images of each process, so these differ.
        probe = [name for name in ours if name.startswith(("activation_shift", "activation_ratio"))]
        pd.testing.assert_frame_equal(ours.drop(columns=probe), theirs.drop(columns=probe), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["inverted", "classic", "spatial", "gaussian", "unscaled", "none"])
def test_the_number_of_processes_does_not_change_the_result(strategy, tmp_path):
    words = [f"dropout={strategy}", "trainer.precision=64-true", "trainer.accumulate_grad_batches=2"]
    for devices in (1, 2, 4) if strategy == "inverted" else (1, 2):
        folder = tmp_path / str(devices)
        done = run(*words, f"trainer.devices={devices}", f"hydra.run.dir={folder}")
        assert done.returncode == 0, done.stderr + (folder / processes.LOG).read_text()
        assert gap(folder, tmp_path / "1") < 1e-12
        counted = [pd.read_csv(where / "activations.csv") for where in (folder, tmp_path / "1")]
        pd.testing.assert_frame_equal(*(table[table["mode"] != "probe"].reset_index(drop=True) for table in counted))


BREAKING = """
import os, signal, time
from torch import nn
from dropout_lab.models import CNN

class Breaks(CNN):
    def forward(self, x):
        if self.training and os.environ.get("RANK") == "1" and {condition}:
            {action}
        return super().forward(x)
"""


def write_model(tmp_path, action, condition="True"):
    (tmp_path / "breaks.py").write_text(BREAKING.format(action=action, condition=condition))
    return {"PYTHONPATH": str(tmp_path)}, "model._target_=breaks.Breaks"


@pytest.mark.slow
def test_a_failing_rank_ends_its_job_and_not_the_sweep(tmp_path):
    env, model = write_model(tmp_path, 'raise RuntimeError("rank one is unwell")')
    done = run("-m", model, "trainer.devices=1,2", "seed=0", f"hydra.sweep.dir={tmp_path / 's'}", env=env.items())
    assert done.returncode == 1
    assert [read_status(tmp_path / "s" / job)["status"] for job in "01"] == ["ok", "failed"]
    status = read_status(tmp_path / "s" / "1")
    assert status["error"] == "rank 1: RuntimeError: rank one is unwell"
    assert "breaks.py" in status["traceback"]
    assert "rank one is unwell" in done.stderr


@pytest.mark.slow
def test_a_killed_rank_ends_its_job_and_leaves_no_process(tmp_path):
    env, model = write_model(tmp_path, "os.kill(os.getpid(), signal.SIGKILL)")
    done = run("-m", model, "trainer.devices=2,1", "seed=0", f"hydra.sweep.dir={tmp_path / 's'}", env=env.items())
    assert done.returncode == 1
    assert [read_status(tmp_path / "s" / job)["status"] for job in "01"] == ["failed", "ok"]
    assert "a process of the job was killed" in read_status(tmp_path / "s" / "0")["error"]
    assert left_over(tmp_path) == []


@pytest.mark.slow
def test_a_killed_sweep_leaves_no_process(tmp_path):
    command = [sys.executable, "-m", "dropout_lab.train", *QUICK, "trainer.max_epochs=1000"]
    running = subprocess.Popen([*command, f"hydra.run.dir={tmp_path / 'run'}"], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "metrics.csv").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left_over(tmp_path)
    running.kill()
    running.wait()
    while left_over(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left_over(tmp_path) == []


def left_over(folder):
    """Command lines of running processes that name the folder."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode()
        except OSError:  # it has ended
            continue
        if "dropout_lab.processes" in line and str(folder) in line:
            lines.append(line)
    return lines


def test_the_first_failure_is_the_one_that_is_told(tmp_path, monkeypatch):
    class Group:
        pid = 2**22 + 1

        def __init__(self, *args, **kwargs):
            for rank, error in ((1, "first"), (0, "connection closed by peer")):
                text = json.dumps({"error": f"rank {rank}: {error}", "traceback": f"trace of {rank}"})
                (tmp_path / f"failure-{rank}.json").write_text(text)
                os.utime(tmp_path / f"failure-{rank}.json", ns=(10 - rank, 10 - rank))

        def wait(self, timeout=None):
            return 1

    monkeypatch.setattr(subprocess, "Popen", Group)
    with pytest.raises(processes.ProcessError, match=r"^rank 1: first$") as caught:
        processes.launch(tmp_path, 2)
    assert caught.value.trace == "trace of 1"
