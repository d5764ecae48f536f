"""Ctrl-C while jobs run: what was done is told, and a folder in which none has begun is taken away again."""

import re
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dropout_lab.cli import interruptible
from dropout_lab.jobs.overrides import quoted
from dropout_lab.jobs.plan import Plan
from dropout_lab.runs.resume import resumed_by_name


@contextmanager
def telling_what_was_done(job_plan: Plan) -> Iterator[None]:
    """Let Ctrl-C within end the jobs in order, and say where that lies which they have done and how to go on.

    Args:
        job_plan: of the jobs.

    Raises:
        KeyboardInterrupt: after Ctrl-C, with that line.
    """
    folder = job_plan.folder
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        with interruptible():
            yield
    except KeyboardInterrupt:
        if not (new and _nothing_begun(folder)):
            raise KeyboardInterrupt(f"interrupted; what was done is in {folder}{_way_on(job_plan)}") from None
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # others have come into being within
            for path in new[1:]:
                path.rmdir()
        raise


def _way_on(job_plan: Plan) -> str:
    """How the jobs of a plan are gone on with, as the end of a line; nothing where the same words would start anew."""
    rules = {job.alike["resume"] for job in job_plan.jobs}  # none are known of a search, which would search anew
    on_a_cluster = job_plan.base.hydra.launcher.get("cluster") == "slurm"  # where they go on by themselves
    if not rules or "never" in rules or on_a_cluster:
        return ""
    if any(resumed_by_name(rule) for rule in rules):
        return "; the same command goes on"
    key = "hydra.sweep.dir" if job_plan.multirun else "hydra.run.dir"
    folder = str(job_plan.folder)
    plain = re.fullmatch(r"[\w./-]+", folder)  # to Hydra and to a shell
    word = f"{key}={folder}" if plain else shlex.quote(f"{key}={quoted(folder)}")
    return f"; to go on: the same command with {word}"


def _nothing_begun(folder: Path) -> bool:
    """Whether a folder holds nothing but what Hydra writes before a job begins."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size]
    return all(path.name == "multirun.yaml" or path.parent.name == ".hydra" for path in files)
