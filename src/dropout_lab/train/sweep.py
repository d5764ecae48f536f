"""A sweep, or a single run, from a checked plan to its exit code: Hydra starts the jobs, failures are summed up.

Torch is imported once the plan has been checked.
"""

import logging
import sys
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from dropout_lab.cli import UserError, full_errors, root_cause
from dropout_lab.jobs.composition import ROOT, PlannedLoader
from dropout_lab.jobs.devices import planned, rank, together
from dropout_lab.jobs.forkserver import import_beforehand, server
from dropout_lab.jobs.plan import Plan
from dropout_lab.jobs.workers import free_cores
from dropout_lab.runs.folder import read_status, require_writable
from dropout_lab.runs.identity import Fingerprints, fingerprints, label
from dropout_lab.runs.lease import alone_in, why_running
from dropout_lab.runs.longer import require_goes_on
from dropout_lab.runs.replicates import replicate_words
from dropout_lab.runs.resume import is_done
from dropout_lab.runs.wandb_files import warn_of_losses
from dropout_lab.train.interrupts import telling_what_was_done
from dropout_lab.train.plugins import require_direction, try_plugins
from dropout_lab.train.runtime import close_wandb

OURS = ("hydra_plugins.dropout_lab_launchers.", "hydra._internal.core_plugins.basic_launcher.")  # run what was planned

import_beforehand(f"{__package__}.job")


class Known(NamedTuple):
    """What is known of a job before it runs: its fingerprints, its names, how many processes it has."""

    prints: Fingerprints
    label: str
    name: str
    processes: int


@lru_cache(maxsize=2)
def known(job_plan: Plan) -> list[Known]:
    """What is known of the jobs of a plan; what all jobs of a sweep have in common is not in their names.

    Raises:
        UserError: devices that there are not, or a batch that can't be split over them.
    """
    hydra, found = job_plan.base.hydra, []
    for job in job_plan.known:
        of_job = {"sweeper": hydra.sweeper, "overrides": {"task": job.words}, "runtime": {"choices": job.choices}}
        called = label(job.alike, of_job, leave_out=job_plan.shared)
        name = f"{called} {replicate_words(job.alike, job.varied.get('seed', job.alike['seed']), job.words)}"
        found.append(Known(fingerprints(job), called, name, _processes(job.alike, hydra.launcher)))
    return found


def require_feasible(job_plan: Plan) -> None:
    """Refuse a plan whose folders hold something else or can't be written, absent devices, and broken plugins.

    Raises:
        UserError: the first thing that is in the way.
    """
    group = together()
    if group > 1 and (job_plan.multirun or not job_plan.names_folder):
        raise UserError(f"{group} processes were started together: they train one run, in a hydra.run.dir you name")
    require_writable(job_plan.folder)
    if job_plan.multirun:
        try_plugins(job_plan.base.hydra)
        require_direction(job_plan)
    for folder, job, its in zip(job_plan.folders, job_plan.jobs, known(job_plan), strict=False):
        require_goes_on(folder, job, its.prints.run)


def refusals(job_plan: Plan) -> dict[int, str]:
    """Build what the jobs of a plan need, as far as that can be done before they start.

    Returns:
        number of a job -> why its dropout can't be installed in its model or trained as asked.

    Raises:
        UserError: data, loss, loggers, callbacks or Trainer cannot be built.
    """
    if _forks(job_plan):
        if job_plan.base.hydra.launcher.get("n_jobs", 1) is None:
            free_cores()  # before that keeps one busy which comes next
        server()  # it imports while this process does
    from dropout_lab.train import preflight

    return preflight.refusals(job_plan.known)


def execute(job_plan: Plan) -> int:
    """Run the jobs of a plan and sum up what failed.

    Returns:
        the exit code: 0 or 1.

    Raises:
        KeyboardInterrupt: after Ctrl-C; it says where that lies which was done.
        UserError: no job has started, or another start is at work in the folder.
    """
    with telling_what_was_done(job_plan), alone_in(job_plan.folder):
        names = _names(job_plan)
        broken = _run_all(job_plan, names)
        if rank():  # the first process of the run does it
            return int(broken)
        return max(_sum_up(job_plan, names), int(broken))


def _run_all(job_plan: Plan, names: Mapping[Path, str]) -> bool:
    """Run the jobs of a plan; whether something other than a job has failed."""
    from dropout_lab.train import progress
    from dropout_lab.train.outline import outline

    counting: AbstractContextManager[None] = nullcontext()
    if job_plan.multirun:
        print(outline(job_plan, [its.processes for its in known(job_plan)]), file=sys.stderr)
        progress.current = progress.SweepProgress(len(names))
        if job_plan.launcher != "basic":
            counting = progress.counting_from_folders(progress.current, names, _done(job_plan))
    broken = False
    try:
        with counting:
            _through_hydra(job_plan)
    except SystemExit as end:
        broken = end.code != 0
    except Exception as error:  # of Hydra, its launcher or its sweeper: a job notes its own
        if full_errors():
            raise
        broken = True
        _tell(job_plan, names, root_cause(error))
    finally:
        if progress.current is not None:
            progress.current.close()
            progress.current = None
        close_wandb()
        _close_logs(job_plan.folder)
    return broken


def _processes(config: Mapping[str, Any], launcher: DictConfig) -> int:
    """How many processes a job will have; refuses devices that there are not, and a batch that can't be split."""
    count = max(planned(config["trainer"], launcher), together())
    batch, mixup = config["data"]["batch_size"], config["data"].get("mixup")
    if batch % count:
        raise UserError(
            f"data.batch_size={batch} is the batch over all devices and must be divisible by their number, {count}"
        )
    if mixup and batch % (2 * count):
        raise UserError(
            f"data.mixup={mixup} mixes pairs of a device's images: data.batch_size={batch} must be divisible by twice "
            f"the number of devices, {2 * count}"
        )
    return count


def _forks(job_plan: Plan) -> bool:
    """Whether this process will have others run the jobs: beside others, or on several devices."""
    launcher = job_plan.base.hydra.launcher
    several = any(its.processes > together() for its in known(job_plan))
    return "n_jobs" in launcher or ("tasks_per_node" not in launcher and several)


def _through_hydra(job_plan: Plan) -> None:
    """Have Hydra call each job of a plan, with its logs, its folders and its callbacks."""
    logging.raiseExceptions = False  # Hydra's log on a full disk would be a traceback a line
    planned = [job.words for job in job_plan.jobs] or None
    hydra = Hydra(ROOT, PlannedLoader(job_plan.base, planned, job_plan.composer))
    GlobalHydra.instance().initialize(hydra)
    try:
        (hydra.multirun if job_plan.multirun else hydra.run)(ROOT, _task(job_plan), [])
    finally:
        GlobalHydra.instance().clear()


def _task(job_plan: Plan) -> Callable[[DictConfig], float]:
    """What Hydra calls for each job of a plan, wherever its launcher does; foreign launchers may bring another job."""
    from dropout_lab.train.job import run

    expected = known(job_plan) if job_plan.jobs else []
    multirun = job_plan.multirun
    foreign = not str(job_plan.base.hydra.launcher._target_).startswith(OURS)

    def task(cfg: DictConfig) -> float:
        its = expected[HydraConfig.get().job.num if multirun else 0] if expected else None
        return run(cfg, its and its.label, its.prints.run if its and foreign else None)

    return task


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
        names = [its.name for its in known(job_plan)]
    else:
        names = [f"trial {number}" for number in range(job_plan.base.hydra.sweeper.get("n_trials", 0))]
    return {job_plan.folder / str(number): name for number, name in enumerate(names)}


def _done(job_plan: Plan) -> set[Path]:
    """The run folders of the jobs that have nothing to do, as they are done already."""
    jobs = zip(job_plan.folders, job_plan.jobs, known(job_plan), strict=False)
    return {at for at, job, its in jobs if job.alike["resume"] != "never" and is_done(at, its.prints.run)}


def _tell(job_plan: Plan, expected: Collection[Path], trouble: str) -> None:
    """Say what has ended all jobs; with a UserError if none has started."""
    what = f"hydra/launcher={job_plan.launcher}: " if job_plan.multirun else ""
    if all(read_status(folder)["status"] == "missing" for folder in expected):
        raise UserError(f"{what}no job has started: {trouble}")
    print(f"error: {what}{trouble}", file=sys.stderr)


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
        why = why_running(folder) if status["status"] == "running" else status.get("error")
        print(f"  {status['status']}  {folder}  {why or ''}", file=sys.stderr)
    if any(status.get("traceback") for status in failed.values()):
        print("tracebacks are in their status.json; HYDRA_FULL_ERROR=1 prints them", file=sys.stderr)
    if any(status["status"] == "diverged" for status in failed.values()):
        print("what diverged may need a lower optimizer.lr, or trainer.gradient_clip_val", file=sys.stderr)
    return 1
