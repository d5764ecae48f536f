"""Leases on folders: while one start of the package writes into a folder, another one is refused."""

import fcntl
import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dropout_lab.cli import UserError
from dropout_lab.jobs.devices import rank
from dropout_lab.runs.folder import require_writable

NAME = ".lease"
BEAT, STALE = 15.0, 60.0  # seconds between two signs of life, and without one until a lease has ended
SETTLES = 1.0  # seconds until what two machines have written at once is one or the other

_held: set[Path] = set()  # by this process


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other starts out of a folder within; the processes of one job, of which the first asks, are one start.

    A lock of the file system tells on one machine, and ends with its process. What the file says tells where there are
    no locks or where they reach no further than a machine: it is renewed all the time, and a job that SLURM starts
    again takes over what it wrote itself.

    Args:
        folder: of a run or of a sweep, whose jobs have leases of their own; made when missing.

    Raises:
        UserError: another start is at work there.
    """
    path = folder.resolve() / NAME
    if rank() or path in _held:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    file, locked = _opened(path)
    ended = threading.Event()
    try:
        if holder := _holder(file, locked, path):
            raise UserError(f"{folder} {holder}; wait, or choose another hydra.run.dir (or hydra.sweep.dir)")
        _write(file)
        if locked is None:
            time.sleep(SETTLES)
            if _read(file) != _own():
                raise UserError(f"{folder}: another start has begun there at this moment")
        threading.Thread(target=_beat, args=(file, ended), daemon=True).start()
        _held.add(path)
        try:
            yield
        finally:
            _held.discard(path)
            with suppress(OSError):  # of a disk that can't be written any more
                path.unlink()
    finally:
        ended.set()
        os.close(file)


def why_running(folder: Path) -> str:
    """Why the status of a job says that it runs, when its sweep has ended."""
    path = folder.resolve() / NAME
    try:
        require_writable(folder)
        if path.exists() and path not in _held:
            file, locked = _opened(path)
            try:
                if holder := _holder(file, locked, path):
                    return holder
            finally:
                os.close(file)
    except UserError as error:
        return f"its end could not be written: {error}"
    return "its process was killed"


def _opened(path: Path) -> tuple[int, bool | None]:
    """The file, and whether it could be locked: None where the file system has no locks."""
    while True:
        file, locked = os.open(path, os.O_RDWR | os.O_CREAT, 0o666), None
        with suppress(OSError):  # no locks
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                locked = True
            except BlockingIOError:
                locked = False
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), path.stat()):
                return file, locked
        os.close(file)  # its holder has ended just now, and taken the file away


def _holder(file: int, locked: bool | None, path: Path) -> str | None:
    """Who holds a file that was opened, in words; None: nobody does any more."""
    theirs, own = _read(file), _own()
    here = theirs.get("boot") == own["boot"]
    again = bool(own["slurm_job"]) and theirs.get("slurm_job") == own["slurm_job"]
    if locked is False:
        held = here or not again
    elif not theirs or again or (here and locked):
        held = False
    else:
        held = _age(file, path) < STALE and not (here and _has_ended(theirs["process"]))
    if not held:
        return None
    who = f"process {theirs['process']} on {theirs['host']}" if theirs else "another process"
    return f"is in use by {who}" + ("" if here or not theirs else f" (if that was killed, for another {STALE:.0f} s)")


def _own() -> dict[str, Any]:
    """What this process writes into its leases."""
    return {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "boot": _boot(),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
    }


def _boot() -> str:
    """What tells this machine, since it was started, from any other one."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:  # no Linux
        return socket.gethostname()


def _read(file: int) -> dict[str, Any]:
    """What a lease says; nothing where it is new, or was not written to its end."""
    try:
        said = json.loads(os.pread(file, 2**12, 0))
        return said if isinstance(said, dict) and said.keys() == _own().keys() else {}
    except ValueError:
        return {}


def _write(file: int) -> None:
    content = json.dumps(_own()).encode()
    os.pwrite(file, content, 0)
    os.ftruncate(file, len(content))


def _beat(file: int, ended: threading.Event) -> None:
    """Give signs of life until the end."""
    while not ended.wait(BEAT):
        with suppress(OSError):
            os.utime(file)


def _age(file: int, path: Path) -> float:
    """Seconds since the last sign of life, by the clock of the disk that the folder is on."""
    with tempfile.TemporaryFile(dir=path.parent) as now:
        return os.fstat(now.fileno()).st_mtime - os.fstat(file).st_mtime


def _has_ended(process: int) -> bool:
    """Whether there is no such process on this machine."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
