"""Processes of a job on several devices: one for each, all of them one run.

Lightning's own launcher would start the command line of the whole sweep again in every process. Here each process gets
the finished configuration of its one job from the run folder.
"""

import logging
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from dropout_lab.cli import undisturbed
from dropout_lab.jobs.devices import together
from dropout_lab.jobs.forkserver import begin, server

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess


LEFT = (  # what Lightning sets in the environment: for DDP, and for the seed
    *("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "NODE_RANK", "LOCAL_RANK"),
    *("TORCHELASTIC_USE_AGENT_STORE", "GLOO_SOCKET_IFNAME"),  # and our environment
    *("PL_GLOBAL_SEED", "PL_SEED_WORKERS"),
)


class ProcessError(ChildProcessError):
    """The failure of one process of a job; ``trace`` is its traceback."""

    def __init__(self, text: str, trace: str | None) -> None:
        super().__init__(text)
        self.trace = trace


class KilledError(ProcessError):
    """A process of a job was killed, or aborted: it has the ``number``, and may have had no time to say anything."""

    def __init__(self, text: str, number: int) -> None:
        super().__init__(text, None)
        self.number = number


def launch(count: int, function: Callable[..., None], *arguments: Any, log: Path | None = None) -> None:
    """Call a function in each of ``count`` new processes, which can form a group as those of torchrun do, and wait.

    Args:
        count: number of processes.
        function: to be found by its name.
        arguments: of the function.
        log: a file for what they print.

    Raises:
        ProcessError: a process has failed, or was killed (KilledError); all have ended then.
        KeyboardInterrupt: interrupted; all have ended then, too.
    """
    from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException, start_processes

    from dropout_lab.jobs.meeting import store
    from dropout_lab.jobs.meeting import variables as of_store

    server()
    meeting = store()
    variables = {
        **{"OMP_NUM_THREADS": "1", **os.environ},  # as torchrun has it
        **{"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)},
        **of_store(meeting),
    }
    given = (variables, sys.orig_argv, log, function, *arguments)
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)  # it tells whom it ends
    before, group = set(multiprocessing.active_children()), None
    try:
        group = start_processes(_process, given, count, join=False, start_method="forkserver")  # type: ignore[no-untyped-call]
        while not group.join():
            pass
    except (ProcessExitedException, ProcessRaisedException) as error:
        where = f"; its output is in {log}" if log else ""
        if killed := _killed(group.processes if group else []):
            number, how = killed
            raise KilledError(f"a process of the job was killed ({how}){where}", number) from error
        if isinstance(error, ProcessExitedException):
            raise ProcessError(f"a process of the job was killed ({error}){where}", None) from error
        raise ProcessError(str(error).split("\n")[-2], str(error)) from error
    finally:  # interrupted while it starts them, there is no group yet
        end(group.processes if group else set(multiprocessing.active_children()) - before)


def _killed(processes: "Sequence[BaseProcess]") -> tuple[int, str] | None:
    """Tell which process was killed, and how: others often fail for want of it, and may be seen first."""
    for number, process in enumerate(processes):
        code = process.exitcode or 0
        if code < 0 and -code != signal.SIGTERM:  # that is how the others are ended
            return number, f"process {number} terminated with signal {signal.Signals(-code).name}"
    return None


def _process(
    number: int,
    variables: dict[str, str],
    command: Sequence[str],
    log: Path | None,
    function: Callable[..., None],
    *arguments: Any,
) -> None:
    """Call a function as one process of a group."""
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
    """End this process on a signal, as its handler, with the exit code that a shell would give."""
    raise SystemExit(128 + number)


def end(processes: "Collection[BaseProcess]") -> None:
    """End processes that are left, with what they have started: first kindly, then for good."""
    for kind, patience in ((signal.SIGTERM, 30), (signal.SIGKILL, 30)):
        deadline = time.monotonic() + patience
        with undisturbed():
            for process in processes:
                try:
                    os.killpg(process.pid or 0, kind)
                except (ProcessLookupError, PermissionError):  # it has ended (macOS: PermissionError), or just begun
                    if process.is_alive():
                        os.kill(process.pid or 0, kind)
            for process in processes:
                process.join(max(deadline - time.monotonic(), 0))
