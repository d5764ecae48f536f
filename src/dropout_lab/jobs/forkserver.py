"""Processes that start in a moment: forks of a server that has imported torch and Lightning once and computes nothing.

A process that is started by itself takes 5 s of CPU time to import them. A fork of this process would have a copy of
every lock that one of its threads holds just then, such as those of a group of processes, and wait for it for ever.
"""

import atexit
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import ForkServerContext

from dropout_lab.cli import UserError

_imports: list[str] = []


def import_beforehand(module: str) -> None:
    """Have the server import a module, by its name, when it starts: its forks need not then."""
    if module not in _imports:
        _imports.append(module)


def server() -> ForkServerContext:
    """The context of processes that are forks of the server, which starts with the first call.

    It ends when they and this process have ended.

    A fork that calls this starts a server of its own. Ctrl-C, and what a cluster sends to all processes of a job that
    it preempts, are for this process: its forks don't hear of them.

    Raises:
        UserError: the folder for temporary files has too long a path for a socket.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_imports)
    resource_tracker.ensure_running()  # which would let Ctrl-C through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGUSR2])
    try:
        forkserver.ensure_running()
    except OSError as error:
        place = tempfile.gettempdir()
        raise UserError(f"TMPDIR={place}: no socket can be made there ({error}); give a shorter path") from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


@atexit.register
def stop() -> None:
    """End the server at once, if this process has started one: it would first import what it has begun to."""
    if (number := forkserver._forkserver._forkserver_pid) is not None:  # type: ignore[attr-defined]
        os.kill(number, signal.SIGKILL)
        forkserver._forkserver._stop()  # type: ignore[attr-defined]


def begin(environment: Mapping[str, str], command: Sequence[str]) -> None:
    """Give a new fork the environment and the command line of its parent, and let it end with it.

    Args:
        environment: the server's is as it was when it started.
        command: as ``sys.orig_argv``.
    """
    import torch

    end_with_parent()
    os.environ.clear()
    os.environ.update(environment)
    sys.orig_argv[:] = command
    if (threads := environment.get("OMP_NUM_THREADS", "")).isdecimal():
        torch.set_num_threads(int(threads))


def end_with_parent(number: int = 0) -> None:
    """End this fork when the process that asked for it was killed: it would work on, for nobody.

    Args:
        number: of the fork; not used. A ``DataLoader`` calls this with that of its worker.
    """

    def watch() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)  # a job notes it
        time.sleep(10)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
