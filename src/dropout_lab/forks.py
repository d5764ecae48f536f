"""Processes that start in a moment: forks of a server that has imported torch and Lightning once and has no threads.

A process that is started by itself takes 5 s of CPU time to import them. A fork of this process would have a copy of
every lock that one of its threads holds just then, such as those of a group of processes, and wait for it for ever.
"""

import multiprocessing
import os
import signal
import threading
import time
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext

PRELOAD = [
    f"dropout_lab.{name}" for name in ("build", "checkpoints", "classifier", "data", "loggers", "sync_batchnorm")
]


def server() -> ForkServerContext:
    """The context of its processes; the server is started with the first call and ends with this process.

    A cluster tells all processes of a job that it is preempted: this one acts on it, its forks don't hear of it.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


def end_with_parent() -> None:
    """Called in a fork: end it when the process that asked for it was killed. It would train on, for nobody."""

    def watch() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)  # the job notes it
        time.sleep(10)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
