"""Workers: processes that run one job of a sweep after another, each with its share of the CPUs and GPUs."""

import atexit
import os
import pickle
import signal
import sys
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn, JobStatus

from dropout_lab.cli import root_cause
from dropout_lab.jobs.forkserver import begin, server
from dropout_lab.jobs.processes import end

if TYPE_CHECKING:
    from multiprocessing.connection import Connection


Task = Callable[[bytes, int], JobReturn]  # of the pickled configuration of a job, and its number


class Worker:
    """A process that runs one job after another; another process takes its place when it is killed.

    Args:
        gpus: what it may see of them, as CUDA can't leave a device once started.
        threads: its share of the CPUs, where the environment does not say.
    """

    def __init__(self, gpus: Sequence[str], threads: int) -> None:
        self.environment = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}
        if gpus:
            self.environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        self.process: Any = None
        self.ended = False

    def run(self, job: Task, config: bytes, number: int) -> JobReturn:
        """Run a job; one that is killed has no result, and the others go on."""
        import cloudpickle  # the resolvers of OmegaConf are local functions

        if self.process is None:
            self._start()
        try:
            self.pipe.send((cloudpickle.dumps(job), config, number))
            returned = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            if not self.ended:
                ending = _ending(self.process.exitcode)
                print(f"failed: job {number}: its process was killed: {ending}", file=sys.stderr)
            self.process = None
            return without_result()
        if isinstance(returned, BaseException):
            raise returned
        return returned  # type: ignore[no-any-return]

    def end(self) -> None:
        """Kill the process and the job that it runs."""
        self.ended = True
        if self.process is not None:
            self.process.kill()

    def _start(self) -> None:
        context = server()
        self.pipe, theirs = context.Pipe()
        # Not a daemon, since a job may have processes of its own; so it has to be ended before Python waits for it.
        process = context.Process(target=_work, args=(theirs, {**os.environ, **self.environment}, sys.orig_argv))
        process.start()
        self.process = process
        theirs.close()
        atexit.register(self.end)
        if self.ended:  # meanwhile
            self.end()


def end_workers(workers: Collection[Worker]) -> None:
    """End workers and wait for them; their jobs note that they were interrupted."""
    for worker in workers:
        worker.ended = True
    end([worker.process for worker in workers if worker.process is not None])


def _work(pipe: "Connection", environment: dict[str, str], command: Sequence[str]) -> None:
    """Work as a process of a worker: run a job, send its result, wait for the next one."""
    begin(environment, command)
    with suppress(EOFError, KeyboardInterrupt):  # the latter is the answer of a job to SIGTERM
        while True:
            job, config, number = pipe.recv()
            try:
                pipe.send(pickle.loads(job)(config, number))
            except Exception as error:
                pipe.send(_portable(error))


def _portable(error: Exception) -> Exception:
    """An error that can be sent to another process: itself, or what it says."""
    try:
        return pickle.loads(pickle.dumps(error))  # type: ignore[no-any-return]
    except Exception:
        return RuntimeError(root_cause(error))


def _ending(code: int) -> str:
    """The exit code of a process in words."""
    return f"{signal.Signals(-code).name}({code})" if code < 0 else f"exit code {code}"


def without_result() -> JobReturn:
    """The result that Hydra is told of a job that ended without telling any."""
    return JobReturn(status=JobStatus.COMPLETED, _return_value=float("nan"))


def at_a_time(n_jobs: int | None) -> tuple[int, str]:
    """How many jobs run side by side on this machine, and why: so many as asked for, or one a GPU or free core.

    Args:
        n_jobs: asked for; None: as many as there is room for.
    """
    if n_jobs:
        return n_jobs, f"n_jobs={n_jobs}"
    if gpus := len(visible_gpus()):
        return gpus, f"{gpus} GPU{'s' * (gpus > 1)}"
    free = free_cores()
    return free, f"{free} of {usable_cores()} cores {'is' if free == 1 else 'are'} free"


def usable_cores() -> int:
    """How many cores this process may use: those that its affinity and the limits of its container leave."""
    import joblib

    return joblib.cpu_count()  # type: ignore[no-any-return]


@cache
def free_cores() -> int:
    """How many cores this process may use and nobody else does just now, at least 1; asked once, before it starts any.

    A quarter of a second of Linux's own count tells how much of them is idle. Where there is no such count, all are
    taken for idle.
    """
    usable = usable_cores()
    before, start = _idle_seconds(), time.monotonic()
    if before is None:
        return usable
    time.sleep(0.25)
    idle = ((_idle_seconds() or 0.0) - before) / (time.monotonic() - start)
    return max(1, min(usable, round(idle)))


def _idle_seconds() -> float | None:
    """For how long the cores of this process have been idle since the machine started, all together."""
    try:
        lines = [line.split() for line in Path("/proc/stat").read_text().splitlines() if line.startswith("cpu")]
    except OSError:
        return None
    own = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    ticks = sum(int(idle) + int(waiting) for core, _, _, _, idle, waiting, *_ in lines if core in own)
    return ticks / os.sysconf("SC_CLK_TCK")


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES spells them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [gpu for gpu in visible.split(",") if gpu.strip() not in ("", "-1")]
    import torch

    return [str(gpu) for gpu in range(torch.cuda.device_count())]


def share(gpus: Sequence[str], worker: int, workers: int) -> Sequence[str]:
    """The GPUs of one of several workers, as many for each; where there are fewer GPUs than workers, some share one."""
    own = max(len(gpus) // workers, 1)
    return [gpus[(worker * own + number) % len(gpus)] for number in range(own)] if gpus else []
