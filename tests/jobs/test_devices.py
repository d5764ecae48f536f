"""Laws of devices: how many processes a job needs, and which devices there are not."""

import pytest

from dropout_lab.cli import UserError
from dropout_lab.jobs.devices import needed as needed_devices
from dropout_lab.jobs.devices import planned, rank
from dropout_lab.jobs.plan import plan


def needed(*words):
    return needed_devices(plan(words).jobs[0].alike["trainer"])


def test_one_device_needs_no_other_process(alone):
    assert needed() == 1
    assert needed("trainer=cpu") == 1


def test_every_device_is_a_process(alone):
    assert needed("trainer=ddp_cpu") == 2
    assert needed("trainer=ddp_cpu", "trainer.devices=4") == 4


def test_processes_that_are_started_already_start_no_others(alone):
    alone.setenv("RANK", "1")
    assert needed("trainer=ddp_cpu", "trainer.devices=4") == 1
    assert rank() == 1
    alone.delenv("RANK")
    alone.setenv("SLURM_STEP_NUM_TASKS", "2")
    alone.setenv("SLURM_PROCID", "1")
    assert needed("trainer=ddp_cpu") == 1
    assert rank() == 1


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
        (["trainer=gpu", "trainer.devices=64"], "trainer.devices=64: this machine has"),
        (["trainer=ddp_cpu", "trainer.num_nodes=2"], "trainer.num_nodes=2: on several machines torchrun or SLURM"),
    ],
)
def test_devices_that_are_not_there_are_named(words, message, alone):
    with pytest.raises(UserError, match=message):
        needed(*words)


def test_a_gpu_that_is_not_there_is_refused_before_anything_starts(alone, monkeypatch):
    monkeypatch.setattr("torch.accelerator.device_count", lambda: 0)
    for words in (["trainer=gpu"], ["trainer=ddp", "trainer.devices=auto"], ["trainer=gpu", "trainer.devices=1"]):
        with pytest.raises(UserError, match="this machine has no GPUs; trainer=cpu"):
            needed(*words)
    monkeypatch.setattr("torch.accelerator.device_count", lambda: 2)
    assert [needed("trainer=gpu", f"trainer.devices={devices}") for devices in (1, 2, "auto")] == [1, 2, 2]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("devices", "n_jobs", "fits"),
    [
        (1, "null", 1),
        (2, "null", None),
        (2, 2, 2),
        (2, 3, None),
        (1, 8, 1),
        (4, 1, 4),
        ("auto", "null", 1),
        ("auto", 2, 2),
    ],
)
def test_jobs_side_by_side_share_the_gpus_out(devices, n_jobs, fits, alone, monkeypatch):
    monkeypatch.setattr("torch.accelerator.device_count", lambda: 4)
    words = ["-m", "seed=0,1", "trainer=gpu", f"trainer.devices={devices}", "hydra/launcher=joblib"]
    job_plan = plan([*words, f"hydra.launcher.n_jobs={n_jobs}"])
    asked = job_plan.jobs[0].alike["trainer"], job_plan.base.hydra.launcher
    if fits is None:
        with pytest.raises(UserError, match=r"has 1 of the 4 GPUs; hydra\.launcher\.n_jobs=2 gives each enough"):
            planned(*asked)
    else:
        assert planned(*asked) == fits
