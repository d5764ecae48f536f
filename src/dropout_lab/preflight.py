"""Build what every job needs before the first one starts: what only building shows is then one line, not a failure."""

import math
from collections.abc import Iterable, Sequence

from omegaconf import DictConfig

from dropout_lab.config import Plan, fingerprints
from dropout_lab.errors import UserError
from dropout_lab.forks import server
from dropout_lab.processes import needed, planned
from dropout_lab.run_folder import root_cause

_batches: dict[str, int] = {}  # of an epoch, by fingerprint of the configuration; known once its data was built


def refusals(jobs: Sequence[DictConfig]) -> dict[int, str]:
    """Build data, network and optimizer of every job, each distinct configuration once.

    Returns:
        number of a job -> why its dropout can't be installed in its model or trained as asked.

    Raises:
        UserError: data or model cannot be built.
    """
    if any(map(_forks, jobs)):
        server()  # it imports while this process does

    from dropout_lab.build import build_data, build_network, build_optimizer, build_rates

    why: dict[str, str | None] = {}
    found: dict[int, str] = {}
    for number, job in enumerate(jobs):
        key = fingerprints(job).group
        if key not in why:
            try:
                data = build_data(job)
                data.setup("fit")
                _batches[key] = len(data.train_dataloader())
                _build_callbacks(job)
            except Exception as error:
                raise UserError(root_cause(error)) from error
            try:
                net, _ = build_network(job, data)
                build_rates(job, net)
                build_optimizer(job, net, data)
                why[key] = None
            except Exception as error:
                why[key] = root_cause(error)
        if reason := why[key]:
            found[number] = reason
    return found


def outline(job_plan: Plan) -> str:
    """One line about a sweep: how many jobs, devices and optimizer steps of each, where they will lie."""
    jobs = job_plan.known
    trials = jobs[0].hydra.sweeper.get("n_trials")
    count = _amount([len(jobs)], "job") if job_plan.jobs else f"{trials or 'unknown number of'} jobs"
    devices = _amount(map(planned, jobs), "device")
    steps = _amount(map(_steps, jobs), "step")
    launcher = jobs[0].hydra.runtime.choices["hydra/launcher"]
    through = "" if launcher == "basic" else f" through {launcher}"
    return f"{count}{through}, each {devices} and {steps}, in {job_plan.folder}"


def _forks(job: DictConfig) -> bool:
    """Whether this process will have others run the job: beside others, or on several devices."""
    launcher = job.hydra.launcher
    return "n_jobs" in launcher or ("tasks_per_node" not in launcher and needed(job) > 1)


def _build_callbacks(job: DictConfig) -> None:
    from dropout_lab.build import instantiate

    job = job.copy()
    job.run = dict.fromkeys(job.run, "")  # filled in when the job starts
    for callback in job.callbacks.values():
        instantiate(callback)


def _steps(job: DictConfig) -> int:
    """Optimizer steps of a job whose data was built."""
    batches: int = _batches[fingerprints(job).group]
    limit = job.trainer.get("limit_train_batches", 1.0)
    batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    steps = int(job.trainer.max_epochs) * math.ceil(batches / job.trainer.accumulate_grad_batches)
    most = job.trainer.get("max_steps", -1)
    return int(min(steps, most)) if most >= 0 else steps


def _amount(numbers: Iterable[int], thing: str) -> str:
    found = sorted(set(numbers))
    if len(found) == 1:
        return f"{found[0]} {thing}{'s' * (found[0] != 1)}"
    return f"{found[0]} to {found[-1]} {thing}s"
