"""A job on several devices: one process for each, all of them one run.

Lightning's own launcher would start the command line of the whole sweep again in every process. Here each process gets
the finished configuration of its one job from the run folder.
"""

import json
import logging
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from omegaconf import DictConfig, OmegaConf

from dropout_lab.errors import UserError
from dropout_lab.forks import begin, server
from dropout_lab.run_folder import RunFolder, root_cause

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment

LOG = "processes.log"  # what the processes of a job in a sweep print
RESULT = "objective.txt"
LEFT = (  # what Lightning sets in the environment: for DDP, and for the seed
    *("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "NODE_RANK", "LOCAL_RANK"),
    *("PL_GLOBAL_SEED", "PL_SEED_WORKERS"),
)


class ProcessError(ChildProcessError):
    """One process of a job has failed; ``trace`` is its traceback."""

    def __init__(self, text: str, trace: str | None) -> None:
        super().__init__(text)
        self.trace = trace


def rank() -> int:
    """This process's number among those of its job: 0 where there is only one."""
    if "RANK" in os.environ:  # of torchrun, or as_group
        return int(os.environ["RANK"])
    return int(os.environ["SLURM_PROCID"]) if _in_slurm_step() else 0


def together() -> int:
    """How many processes share this one's job already: 1 where it is alone."""
    if "RANK" in os.environ:
        return int(os.environ.get("WORLD_SIZE", 1))
    return _slurm_tasks()


def needed(cfg: DictConfig, beside: int | None = 1) -> int:
    """How many processes to start for a job: 1 where it uses one device, or where its processes are started already.

    Args:
        cfg: the job's configuration.
        beside: among so many jobs at a time the GPUs are shared out; None: one for each GPU.

    Raises:
        UserError: several machines, which only a cluster's own launcher can start; more devices than there are.
    """
    if "RANK" in os.environ or _in_slurm_step():
        return 1
    if cfg.trainer.get("num_nodes", 1) > 1:
        raise UserError(
            f"trainer.num_nodes={cfg.trainer.num_nodes}: on several machines torchrun or SLURM has to start one "
            "process a device; see the README, Several GPUs"
        )
    devices, accelerator = cfg.trainer.devices, cfg.trainer.accelerator
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


def planned(job: DictConfig) -> int:
    """How many processes a job of a plan will have, wherever its launcher runs it.

    Args:
        job: composed together with its ``hydra`` node.

    Raises:
        UserError: as ``needed``; a cluster's tasks that are not the job's devices.
    """
    launcher = job.hydra.launcher
    tasks = launcher.get("tasks_per_node")
    if tasks is None:
        return needed(job, launcher.get("n_jobs", 1))
    devices, nodes = job.trainer.devices, job.trainer.get("num_nodes", 1)
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
    """What Lightning is to believe about this process's group; left alone it takes every job of SLURM for a task."""
    from lightning.fabric.plugins.environments.lightning import LightningEnvironment
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    if "RANK" in os.environ:
        return TorchElasticEnvironment()
    if _in_slurm_step():
        return SLURMEnvironment(auto_requeue=False)  # the launcher requeues
    return LightningEnvironment()


def launch(folder: Path, count: int) -> float:
    """Run the job whose configuration lies in a folder on ``count`` processes.

    Returns:
        the objective: the best value of what the checkpoints monitor.

    Raises:
        ProcessError: a process has failed, or was killed.
        KeyboardInterrupt: interrupted; all processes have ended then.
    """
    from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

    _forget_failures(folder)
    (folder / RESULT).unlink(missing_ok=True)
    try:
        as_group(count, main, folder, log=None if sys.stdout.isatty() else folder / LOG)
    except ProcessExitedException as error:
        told = f"a process of the job was killed ({error}); its output is in {folder / LOG}"
        raise _first_failure(folder) or ProcessError(told, None) from error
    except ProcessRaisedException as error:
        raise _first_failure(folder) or ProcessError(str(error).split("\n")[-2], str(error)) from error
    objective = float((folder / RESULT).read_text())
    (folder / RESULT).unlink()
    return objective


def as_group(count: int, function: Callable[..., None], *arguments: Any, log: Path | None = None) -> None:
    """Call a function in each of ``count`` new processes, which can form a group as those of torchrun do.

    Args:
        count: number of processes.
        function: to be found by its name.
        arguments: of the function.
        log: a file for what they print.

    Raises:
        ProcessExitedException, ProcessRaisedException: (torch's) one has failed, or was killed; all have ended then.
    """
    from torch.distributed import TCPStore  # type: ignore[attr-defined]
    from torch.multiprocessing.spawn import start_processes

    server()
    meeting = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # at whatever port is free
    variables = {
        **{"OMP_NUM_THREADS": "1", **os.environ},  # as torchrun has it
        **{"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)},
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(meeting.port), "TORCHELASTIC_USE_AGENT_STORE": "True"},
    }
    given = (variables, sys.orig_argv, log, function, *arguments)
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)  # it tells whom it ends
    before, group = set(multiprocessing.active_children()), None
    try:
        group = start_processes(_process, given, count, join=False, start_method="forkserver")  # type: ignore[no-untyped-call]
        while not group.join():
            pass
    finally:  # interrupted while it starts them, there is no group yet
        _end(group.processes if group else set(multiprocessing.active_children()) - before)


def _process(
    number: int,
    variables: dict[str, str],
    command: Sequence[str],
    log: Path | None,
    function: Callable[..., None],
    *arguments: Any,
) -> None:
    """One process of a group."""
    from lightning.fabric.utilities.rank_zero import rank_zero_only

    os.setsid()  # so that it is ended with all that it has started
    begin({**variables, "RANK": str(number), "LOCAL_RANK": str(number)}, command)
    rank_zero_only.rank = number  # type: ignore[attr-defined]  # Lightning has asked the server's environment
    if log:
        with log.open("ab") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
    with leaving_nothing():
        function(*arguments)


def main(folder: Path) -> None:
    """One process of several: train as the configuration in the folder says."""
    from dropout_lab.checkpoints import newest
    from dropout_lab.train import close_wandb, train

    cfg = OmegaConf.load(folder / "config.yaml")
    assert isinstance(cfg, DictConfig)
    try:
        objective = train(cfg, RunFolder(folder, cfg.run.config_hash, writes=rank() == 0), newest(folder))
        if rank() == 0:
            (folder / RESULT).write_text(repr(objective))
    except Exception as error:
        _note_failure(folder, error)
        raise
    finally:
        close_wandb()


@contextmanager
def failing_as_one(folder: Path) -> Iterator[None]:
    """Among processes that SLURM or torchrun has started: one that fails ends, the first one for what failed first.

    These end the others with SIGTERM, also when the first process has yet to write down why the job failed.

    Raises:
        ProcessError: in the first process.
        SystemExit: in every other one, so that those that wait for it are ended.
    """
    if together() == 1:
        yield
        return
    if rank() == 0:
        _forget_failures(folder)
    before = signal.getsignal(signal.SIGTERM)
    if before == signal.SIG_DFL:  # and not what a launcher has chosen
        signal.signal(signal.SIGTERM, leave)
    try:
        yield
    except BaseException as error:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # for what is left to do
        if isinstance(error, Exception):
            _note_failure(folder, error)
            if rank() > 0:
                raise SystemExit(1) from error
        raise (_first_failure(folder) if rank() == 0 else None) or error from error
    signal.signal(signal.SIGTERM, before)


@contextmanager
def leaving_nothing() -> Iterator[None]:
    """Leave the group of processes that training opens, and take back what it writes to the environment.

    A process that ends while its group is open is sometimes aborted by a thread of gloo's that nobody joined; in one
    that goes on, the next job has another seed, and is not of the group of DDP on one device, whose variables name a
    port that is still open.
    """
    alone, well = together() == 1, False
    before = {name: os.environ.get(name) for name in LEFT} if alone else {}
    try:
        yield
        well = True
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if (alone or well) and "torch" in sys.modules:  # in a group that failed, others may be waited for in vain
            distributed = sys.modules["torch"].distributed
            if distributed.is_available() and distributed.is_initialized():
                distributed.destroy_process_group()


def leave(number: int, frame: object) -> NoReturn:
    """Handler of a signal: end with the exit code that a shell would give."""
    raise SystemExit(128 + number)


def _note_failure(folder: Path, error: Exception) -> None:
    failure = {"error": f"rank {rank()}: {root_cause(error)}", "traceback": traceback.format_exc()}
    (folder / f"failure-{rank()}.json").write_text(json.dumps(failure))


def _first_failure(folder: Path) -> ProcessError | None:
    """What the process that failed first has noted: the others only saw that it was gone."""
    noted = sorted(folder.glob("failure-*.json"), key=lambda path: path.stat().st_mtime_ns)
    if not noted:
        return None
    failure = json.loads(noted[0].read_text())
    return ProcessError(failure["error"], failure["traceback"])


def _forget_failures(folder: Path) -> None:
    for path in folder.glob("failure-*.json"):
        path.unlink(missing_ok=True)


def _in_slurm_step() -> bool:
    """Whether srun has started several tasks of which this is one."""
    return _slurm_tasks() > 1


def _slurm_tasks() -> int:
    """Of this step: a batch script has SLURM_NTASKS and SLURM_PROCID as well, but is alone."""
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) if "SLURM_PROCID" in os.environ else 1


def _end(processes: "Iterable[BaseProcess]") -> None:
    """End whatever is left, with what it has started: first kindly, then for good."""
    for kind, patience in ((signal.SIGTERM, 30), (signal.SIGKILL, 30)):
        deadline = time.monotonic() + patience
        for process in processes:
            try:
                os.killpg(process.pid or 0, kind)
            except (ProcessLookupError, PermissionError):  # it has ended (macOS: PermissionError), or just begun
                if process.is_alive():
                    os.kill(process.pid or 0, kind)
        for process in processes:
            process.join(max(deadline - time.monotonic(), 0))
