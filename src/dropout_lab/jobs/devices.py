"""Devices of a job: how many processes it needs for them, how many there are already, and which of them this one is."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from dropout_lab.cli import UserError

if TYPE_CHECKING:
    from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment


def rank() -> int:
    """The number of this process among those of its job: 0 where there is only one."""
    if "RANK" in os.environ:  # of torchrun, or launch
        return int(os.environ["RANK"])
    return int(os.environ["SLURM_PROCID"]) if _in_slurm_step() else 0


def together() -> int:
    """How many processes share the job of this one already: 1 where it is alone."""
    if "RANK" in os.environ:
        return int(os.environ.get("WORLD_SIZE", 1))
    return _slurm_tasks()


def needed(trainer: Mapping[str, Any] | DictConfig, beside: int | None = 1) -> int:
    """How many processes to start for a job: 1 where it uses one device, or where its processes are started already.

    Args:
        trainer: the section of that name of the job's configuration.
        beside: among so many jobs at a time the GPUs are shared out; None: one for each GPU.

    Raises:
        UserError: several machines, which only a cluster's own launcher can start; more devices than there are.
    """
    if "RANK" in os.environ or _in_slurm_step():
        return 1
    if trainer.get("num_nodes", 1) > 1:
        raise UserError(
            f"trainer.num_nodes={trainer['num_nodes']}: on several machines torchrun or SLURM has to start one "
            "process a device; see conf/README.md, Several GPUs"
        )
    devices, accelerator = trainer["devices"], trainer["accelerator"]
    if accelerator == "cpu" or (accelerator == "auto" and devices == 1):
        return 1 if devices == "auto" else int(devices)
    import torch

    there = torch.accelerator.device_count()
    own = max(there // (there if beside is None else beside), 1) if there else 0
    wanted = max(own, 1) if devices == "auto" else int(devices)
    if own < wanted <= there:
        raise UserError(
            f"trainer.devices={devices}: each process of hydra/launcher=joblib has {own} of the {there} GPUs; "
            f"hydra.launcher.n_jobs={there // wanted} gives each enough"
        )
    if wanted > there and (accelerator, wanted) != ("auto", 1):
        raise UserError(
            f"trainer.accelerator={accelerator} trainer.devices={devices}: this machine has {there or 'no'} "
            f"GPU{'s' * (there != 1)}; trainer=cpu and trainer=ddp_cpu need none"
        )
    return wanted


def planned(trainer: Mapping[str, Any], launcher: DictConfig) -> int:
    """How many processes a job of a plan will have, wherever its launcher runs it.

    Args:
        trainer: the section of that name of the job's configuration.
        launcher: of its sweep.

    Raises:
        UserError: as ``needed``; a cluster's tasks that are not the job's devices.
    """
    tasks = launcher.get("tasks_per_node")
    if tasks is None:
        return needed(trainer, launcher.get("n_jobs", 1))
    devices, nodes = trainer["devices"], trainer.get("num_nodes", 1)
    if tasks == 1 and launcher.nodes == 1 and isinstance(devices, int) and nodes == 1:
        return devices  # the job starts them itself
    if (devices, nodes) != (tasks, launcher.nodes):
        raise UserError(
            f"trainer.devices={devices} trainer.num_nodes={nodes} with hydra.launcher.tasks_per_node={tasks} "
            f"hydra.launcher.nodes={launcher.nodes}: SLURM starts one task a device, so the two pairs must be equal "
            "(on one node tasks_per_node=1 will also do)"
        )
    return int(tasks * nodes)


def environment() -> "ClusterEnvironment":
    """The environment that Lightning is to believe in; left alone it takes every job of SLURM for a task of several."""
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    from dropout_lab.jobs.meeting import Alone

    if "RANK" in os.environ:
        return TorchElasticEnvironment()
    if _in_slurm_step():
        return SLURMEnvironment(auto_requeue=False)  # the launcher requeues
    return Alone()


def _in_slurm_step() -> bool:
    """Whether srun has started several tasks of which this is one."""
    return _slurm_tasks() > 1


def _slurm_tasks() -> int:
    """How many tasks this step of SLURM has: a batch script has SLURM_NTASKS and SLURM_PROCID as well, but is alone."""
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) if "SLURM_PROCID" in os.environ else 1
