"""Failures of a run on several processes: what failed first, and not what only saw that the others were gone."""

import json
import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dropout_lab.cli import root_cause
from dropout_lab.jobs.devices import rank, together
from dropout_lab.jobs.processes import KilledError, ProcessError, leave
from dropout_lab.modules.divergence import DivergenceError
from dropout_lab.runs.atomic import write_whole

_NOTES = "failure-*.json"  # one for each process that failed


@contextmanager
def first_failure_told(folder: Path) -> Iterator[None]:
    """While this process waits for those of a job: their failure is told as the one that failed first has noted it.

    One that was killed has noted nothing, and what the others have is that it was gone.

    Raises:
        ProcessError, DivergenceError: a process has failed.
    """
    _forget(folder)
    try:
        yield
    except ProcessError as error:
        if isinstance(error, KilledError) and not _note(folder, error.number).exists():
            raise
        raise _first(folder) or error from error


@contextmanager
def failing_as_one(folder: Path) -> Iterator[None]:
    """Among processes that SLURM or torchrun has started: one that fails ends, the first one for what failed first.

    These end the others with SIGTERM, also when the first process has yet to write down why the job failed.

    Raises:
        ProcessError, DivergenceError: in the first process.
        SystemExit: in every other one, so that those that wait for it are ended.
    """
    if together() == 1:
        yield
        return
    if rank() == 0:
        _forget(folder)
    before = signal.getsignal(signal.SIGTERM)
    if before == signal.SIG_DFL:  # and not what a launcher has chosen
        signal.signal(signal.SIGTERM, leave)
    try:
        yield
    except BaseException as error:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # for what is left to do
        if isinstance(error, Exception):
            note_failure(folder, error)
            if rank() > 0:
                raise SystemExit(1) from error
        raise (_first(folder) if rank() == 0 else None) or error from error
    signal.signal(signal.SIGTERM, before)


def note_failure(folder: Path, error: Exception) -> None:
    """Write down why this process has failed, for the one that tells it."""
    failure = {"error": f"rank {rank()}: {root_cause(error)}", "traceback": traceback.format_exc()}
    if isinstance(error, DivergenceError):  # in all processes at the same time
        failure = {"diverged": str(error)}
    with suppress(OSError):  # which is told all the same
        write_whole(_note(folder, rank()), json.dumps(failure).encode())


def _note(folder: Path, number: int) -> Path:
    """Where a process writes down why it failed."""
    return folder / _NOTES.replace("*", str(number))


def _first(folder: Path) -> ProcessError | DivergenceError | None:
    """The failure that was noted first."""
    noted = sorted(folder.glob(_NOTES), key=lambda path: path.stat().st_mtime_ns)
    if not noted:
        return None
    failure = json.loads(noted[0].read_text())
    if "diverged" in failure:
        return DivergenceError(failure["diverged"])
    return ProcessError(failure["error"], failure["traceback"])


def _forget(folder: Path) -> None:
    for path in folder.glob(_NOTES):
        path.unlink(missing_ok=True)
