"""One line about a sweep, before it starts: what it will take, and where it will lie."""

from collections.abc import Iterable

from dropout_lab.jobs.job import Job
from dropout_lab.jobs.plan import Plan
from dropout_lab.jobs.workers import at_a_time
from dropout_lab.train.length import planned_length
from dropout_lab.train.preflight import batches_of


def outline(job_plan: Plan, processes: Iterable[int]) -> str:
    """One line about a sweep: how many jobs, and at a time, devices and steps of each, where they will lie.

    Args:
        job_plan: the sweep.
        processes: how many each of its known jobs will have.
    """
    trials = job_plan.base.hydra.sweeper.get("n_trials")
    count = _amount([len(job_plan.jobs)], "job") if job_plan.jobs else f"{trials or 'unknown number of'} jobs"
    devices, steps = _amount(processes, "device"), _amount(map(_steps, job_plan.known), "step")
    through = "" if job_plan.launcher == "basic" else f" through {job_plan.launcher}"
    return f"{count}{through}{_side_by_side(job_plan)}, each {devices} and {steps}, in {job_plan.folder}"


def _side_by_side(job_plan: Plan) -> str:
    """How many jobs run at a time, where that is up to this machine and not to a sweeper or a cluster."""
    launcher = job_plan.base.hydra.launcher
    if "n_jobs" not in launcher or not job_plan.jobs:
        return ""
    places, why = at_a_time(launcher["n_jobs"])
    return f", {min(places, len(job_plan.jobs))} at a time ({why})"


def _steps(job: Job) -> int:
    """Optimizer steps of a job whose data was built."""
    return planned_length(job.alike["trainer"], batches_of(job)).steps


def _amount(numbers: Iterable[int], thing: str) -> str:
    found = sorted(set(numbers))
    if len(found) == 1:
        return f"{found[0]} {thing}{'s' * (found[0] != 1)}"
    return f"{found[0]} to {found[-1]} {thing}s"
