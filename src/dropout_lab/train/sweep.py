"""A sweep, or a single run, from a checked plan to its exit code: Hydra starts the jobs, failures are summed up.

Torch is imported once the plan has been checked.
"""

import logging
import sys
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import hydra
from hydra.core.plugins import Plugins
from omegaconf import DictConfig

from dropout_lab.cli import UserError, root_cause
from dropout_lab.jobs.conf import CONF, VERSION_BASE
from dropout_lab.jobs.devices import needed, planned, rank, together
from dropout_lab.jobs.forkserver import import_beforehand, server
from dropout_lab.jobs.overrides import options_last
from dropout_lab.jobs.plan import Plan
from dropout_lab.runs.folder import read_status, require_writable
from dropout_lab.runs.identity import fingerprints, label
from dropout_lab.runs.resume import is_done, require_own_run
from dropout_lab.runs.wandb_files import warn_of_losses
from dropout_lab.train.runtime import close_wandb

import_beforehand(f"{__package__}.job")


def answer(arguments: Sequence[str]) -> None:
    """Let Hydra answer a command line that only asks: --help, --cfg job, ..."""
    _through_hydra(lambda _: None, arguments)


def require_feasible(job_plan: Plan) -> None:
    """Refuse a plan whose folders hold something else or can't be written, absent devices, and broken plugins.

    Raises:
        UserError: the first thing that is in the way.
    """
    group = together()
    if group > 1 and (job_plan.multirun or not any("hydra.run.dir=" in word for word in job_plan.arguments)):
        raise UserError(f"{group} processes were started together: they train one run, in a hydra.run.dir you name")
    require_writable(job_plan.folder)
    if job_plan.multirun:
        _try_plugins(job_plan.known[0].hydra)
    for number, job in enumerate(job_plan.known):
        folder = job_plan.folder / str(number) if job_plan.multirun else job_plan.folder
        if job_plan.jobs:
            require_own_run(folder, fingerprints(job).run, job.resume)
        count = max(planned(job), group)
        if job.data.batch_size % count:
            raise UserError(
                f"data.batch_size={job.data.batch_size} is the batch over all devices and must be divisible by their "
                f"number, {count}"
            )
        if job.data.get("mixup") and job.data.batch_size % (2 * count):
            raise UserError(
                f"data.mixup={job.data.mixup} mixes pairs of a device's images: data.batch_size={job.data.batch_size} "
                f"must be divisible by twice the number of devices, {2 * count}"
            )


def refusals(job_plan: Plan) -> dict[int, str]:
    """Build what the jobs of a plan need, as far as that can be done before they start.

    Returns:
        number of a job -> why its dropout can't be installed in its model or trained as asked.

    Raises:
        UserError: data, loss, loggers, callbacks or Trainer cannot be built.
    """
    if any(map(_forks, job_plan.known)):
        server()  # it imports while this process does
    from dropout_lab.train import preflight

    return preflight.refusals(job_plan.known)


def execute(job_plan: Plan) -> int:
    """Run the jobs of a plan and sum up what failed.

    Returns:
        the exit code: 0, 1 or 130.
    """
    from dropout_lab.train import progress
    from dropout_lab.train.job import run
    from dropout_lab.train.preflight import outline

    names = _names(job_plan)
    counting: AbstractContextManager[None] = nullcontext()
    if job_plan.multirun:
        print(outline(job_plan), file=sys.stderr)
        progress.current = progress.SweepProgress(len(names))
        if job_plan.elsewhere:
            counting = progress.counting_from_folders(progress.current, names, _done(job_plan))
    broken = False
    try:
        with counting:
            _through_hydra(run, job_plan.hydra_arguments)
    except SystemExit as end:  # Hydra has said why
        broken = end.code != 0
    except KeyboardInterrupt:
        print(f"\ninterrupted; what was done is in {job_plan.folder}", file=sys.stderr)
        return 130
    finally:
        if progress.current is not None:
            progress.current.close()
            progress.current = None
        close_wandb()
        _close_logs(job_plan.folder)
    if rank():  # the first process of the run does it
        return int(broken)
    return max(_sum_up(job_plan, names), int(broken))


def _try_plugins(node: DictConfig) -> None:
    """Try to make the plugins that Hydra will make to run a sweep: it would say later, in many lines, why it can't."""
    for part in ("sweeper", "launcher"):
        try:
            Plugins.instance()._instantiate(node[part])
        except Exception as error:
            name = node.runtime.choices[f"hydra/{part}"]
            raise UserError(f"hydra/{part}={name}: it can't be made: {root_cause(error)}") from error


def _forks(job: DictConfig) -> bool:
    """Whether this process will have others run the job: beside others, or on several devices."""
    launcher = job.hydra.launcher
    return "n_jobs" in launcher or ("tasks_per_node" not in launcher and needed(job) > 1)


def _through_hydra(task: Callable[[DictConfig], object], arguments: Sequence[str]) -> None:
    """Have Hydra read a command line and call a task for each of its jobs."""
    program, before = sys.argv[0], sys.argv
    logging.raiseExceptions = False  # Hydra's log on a full disk would be a traceback a line
    silent = ["hydra.output_subdir=null", "hydra/job_logging=none"] if rank() else []
    sys.argv = [program, *options_last([*arguments, *silent])]
    try:
        hydra.main(version_base=VERSION_BASE, config_path=str(CONF), config_name="train")(task)()
    finally:
        sys.argv = before


def _close_logs(folder: Path) -> None:
    """Close the logs of the last job, which Hydra leaves open: what this process logs later would go into them."""
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if isinstance(handler, logging.FileHandler) and Path(handler.baseFilename).is_relative_to(folder.absolute()):
            root.removeHandler(handler)
            handler.close()


def _names(job_plan: Plan) -> dict[Path, str]:
    """The run folders that a command line will leave, as far as that is known, and what to call their jobs."""
    if not job_plan.multirun:
        return {job_plan.folder: "run"}
    if job_plan.jobs:
        names = [f"{label(job, job.hydra)} seed={job.seed}" for job in job_plan.jobs]
    else:
        names = [f"trial {number}" for number in range(job_plan.known[0].hydra.sweeper.get("n_trials", 0))]
    return {job_plan.folder / str(number): name for number, name in enumerate(names)}


def _done(job_plan: Plan) -> set[Path]:
    """The run folders of the jobs that have nothing to do, as they are done already."""
    folders = {job_plan.folder / str(number): job for number, job in enumerate(job_plan.jobs)}
    return {at for at, job in folders.items() if job.resume != "never" and is_done(at, fingerprints(job).run)}


def _sum_up(job_plan: Plan, expected: Collection[Path]) -> int:
    """Print a table of the jobs that did not end well.

    Returns:
        the exit code.
    """
    warn_of_losses(job_plan.folder)
    folders = set(expected)
    if job_plan.multirun and job_plan.folder.is_dir():
        folders |= {path for path in job_plan.folder.iterdir() if path.name.isdigit()}
    statuses = {folder: read_status(folder) for folder in sorted(folders, key=lambda path: (len(path.name), path.name))}
    failed = {folder: status for folder, status in statuses.items() if status["status"] != "ok"}
    if not failed:
        print(f"run folder{'s are in' if job_plan.multirun else ':'} {job_plan.folder}", file=sys.stderr)
        return 0
    print(f"\n{len(failed)} of {len(folders)} jobs did not end well:", file=sys.stderr)
    for folder, status in failed.items():
        why = "its process was killed" if status["status"] == "running" else status.get("error")
        print(f"  {status['status']}  {folder}  {why or ''}", file=sys.stderr)
    print("tracebacks are in their status.json; HYDRA_FULL_ERROR=1 prints them", file=sys.stderr)
    return 1
