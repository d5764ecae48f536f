"""Build what every job needs before the first one starts: what only building shows is then one line, not a failure."""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dropout_lab.config import Plan, fingerprints
from dropout_lab.forks import server
from dropout_lab.processes import needed, planned

_batches: dict[str, int] = {}  # of an epoch, by fingerprint of the configuration; known once its data was built


def refusals(jobs: Sequence[DictConfig]) -> dict[int, str]:
    """Build all that every job will, but for what only its own processes may: devices, groups, files.

    Each part is built once for all the jobs in which what it depends on is the same.

    Returns:
        number of a job -> why its dropout can't be installed in its model or trained as asked.

    Raises:
        UserError: data, loss, loggers, callbacks or Trainer cannot be built.
    """
    if any(map(_forks, jobs)):
        server()  # it imports while this process does

    once = _Once()
    why: dict[str, str | None] = {}
    found: dict[int, str] = {}
    for number, job in enumerate(jobs):
        key = fingerprints(job).group
        if key not in why:
            why[key] = _why_not(job, key, once)
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


class _Once:
    """Answers of a check, by the parts of a configuration that it looks at."""

    def __init__(self) -> None:
        self._answers: dict[str, Any] = {}

    def __call__(self, check: Callable[..., Any], job: DictConfig, parts: str, *arguments: Any) -> Any:
        values = [OmegaConf.select(job, part) for part in parts.split()]
        plain = [OmegaConf.to_container(v, resolve=True) if OmegaConf.is_config(v) else v for v in values]
        key = json.dumps([check.__name__, plain], default=str)
        if key not in self._answers:
            self._answers[key] = check(job, *arguments)
        return self._answers[key]


def _why_not(job: DictConfig, key: str, once: _Once) -> str | None:
    from dropout_lab import rehearsal

    job = job.copy()
    job.run = dict.fromkeys(job.run, "")  # filled in when the job starts
    data = rehearsal.data_of(job)
    _batches[key] = once(rehearsal.batches_of, job, "data model", data)
    once(rehearsal.check_trainer, job, "trainer callbacks logger")
    once(rehearsal.check_loss, job, "loss data model", data)
    parts = "data model channels_last dropout placement dropout_schedule optimizer lr_scheduler trainer.max_epochs"
    reason: str | None = once(rehearsal.untrainable, job, parts, data)
    return reason


def _steps(job: DictConfig) -> int:
    """Optimizer steps of a job whose data was built."""
    batches: int = _batches[fingerprints(job).group]
    limit = job.trainer.get("limit_train_batches")
    limit = 1.0 if limit is None else limit
    batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    steps = int(job.trainer.max_epochs) * math.ceil(batches / job.trainer.accumulate_grad_batches)
    most = job.trainer.get("max_steps", -1)
    return int(min(steps, most)) if most >= 0 else steps


def _amount(numbers: Iterable[int], thing: str) -> str:
    found = sorted(set(numbers))
    if len(found) == 1:
        return f"{found[0]} {thing}{'s' * (found[0] != 1)}"
    return f"{found[0]} to {found[-1]} {thing}s"
