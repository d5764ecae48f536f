"""Launchers: jobs of a sweep side by side on this machine, or as jobs of a cluster.

conf/hydra/launcher/ holds their settings. Imports nothing heavy: Hydra loads every plugin at start-up.
"""

import json
import logging
import os
import pickle
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from dropout_lab.jobs.workers import Worker, at_a_time, end_workers, share, usable_cores, visible_gpus, without_result


class Job:
    """Runs one job in a process that knows nothing yet, as Hydra's own launcher does in this one.

    Of several processes of a job only the first writes its configuration and its log. Started a second time by a
    cluster, a job goes on in its folder.

    Args:
        context: of the sweep; that of the job has a loader of its own, as ours holds the whole plan.
        task: what runs the configuration.
    """

    def __init__(self, context: HydraContext, task: TaskFunction) -> None:
        loader = ConfigLoaderImpl(context.config_loader.get_search_path())
        self.context, self.task = HydraContext(config_loader=loader, callbacks=context.callbacks), task
        self.singletons = Singleton.get_state()
        self.singletons["instances"][GlobalHydra].hydra.config_loader = loader  # of the copy
        self.again = False

    def __call__(self, composed: bytes, number: int) -> JobReturn:
        """Run the job with this pickled configuration, as the one with this number."""
        from dropout_lab.jobs.devices import rank

        setup_globals()
        Singleton.set_state(self.singletons)
        config: DictConfig = pickle.loads(composed)
        first = rank() == 0
        with open_dict(config):
            config.hydra.job.id = f"{config.hydra.job.name}_{number}"
            config.hydra.job.num = number
            if not first:
                config.hydra.output_subdir = None
            if self.again or int(os.environ.get("SLURM_RESTART_COUNT", 0)):
                config.resume = "auto"
        keys = {"job_dir_key": "hydra.sweep.dir", "job_subdir_key": "hydra.sweep.subdir"}
        return run_job(self.task, config, hydra_context=self.context, configure_logging=first, **keys)

    def checkpoint(self, *arguments: Any) -> Any:
        """What submitit leaves in the queue when a job is preempted: the same again."""
        import submitit

        self.again = True
        return submitit.helpers.DelayedSubmission(self, *arguments)


class _Elsewhere(Launcher):
    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.task, self.config = hydra_context, task_function, config
        self.folder = Path(str(config.hydra.sweep.dir)).absolute()
        self.folder.mkdir(parents=True, exist_ok=True)

    def composed(self, overrides: Sequence[str]) -> bytes:
        """The configuration of a job, pickled: those of a thousand are many."""
        return pickle.dumps(self.context.config_loader.load_sweep_config(self.config, list(overrides)))


class Joblib(_Elsewhere):
    """Several jobs side by side on this machine, as with Hydra's launcher of that name.

    Each process has its share of the CPUs and of the GPUs, and starts in a moment: see ``dropout_lab.jobs.workers``.

    Args:
        n_jobs: processes; None: one for each GPU, or for each free core where there are no GPUs.
    """

    def __init__(self, n_jobs: int | None = None) -> None:
        self.n_jobs = n_jobs
        self.workers: list[Worker] = []  # they stay for the next trials of a search

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs and wait for them."""
        gpus, (places, _) = visible_gpus(), at_a_time(self.n_jobs)
        count = min(places, len(job_overrides))
        for number in range(len(self.workers), count):
            self.workers.append(Worker(share(gpus, number, places), max(1, usable_cores() // count)))
        free: SimpleQueue[Worker] = SimpleQueue()
        for worker in self.workers[:count]:
            free.put(worker)
        job, composing = Job(self.context, self.task), Lock()

        def run(overrides: Sequence[str], number: int) -> JobReturn:
            worker = free.get()
            try:
                with composing:
                    config = self.composed(overrides)
                return worker.run(job, config, number)
            finally:
                free.put(worker)

        threads = ThreadPoolExecutor(count)
        try:
            return list(threads.map(run, job_overrides, range(initial_job_idx, initial_job_idx + len(job_overrides))))
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            end_workers(self.workers)
            raise


class Submitit(_Elsewhere):
    """Each job through submitit: as a job of SLURM, or as a process that stands for one.

    The jobs run the code and the configuration as they are now, from a copy in the sweep's folder.

    Args:
        cluster: "slurm" or "local".
        max_num_timeout: how often a job that ran into its time limit goes back into the queue.
        settings: of the job, see conf/hydra/launcher/submitit_slurm.yaml.
    """

    def __init__(self, cluster: str, max_num_timeout: int = 0, **settings: Any) -> None:
        self.cluster, self.max_num_timeout = cluster, max_num_timeout
        self.settings = {key: value for key, value in settings.items() if value is not None}
        self.code: Path | None = None

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Submit the jobs and wait for them."""
        import submitit

        logging.getLogger("submitit").setLevel(logging.ERROR)  # it warns of every cluster without a database
        self.code = self.code or snapshot(self.folder)
        executor = submitit.AutoExecutor(
            self.folder / ".submitit" / "%j", self.cluster, **{f"{self.cluster}_max_num_timeout": self.max_num_timeout}
        )
        job = Job(self.context, self.task)
        configs = [self.composed(overrides) for overrides in job_overrides]
        numbers = range(initial_job_idx, initial_job_idx + len(job_overrides))
        with _importing_from(self.code) as exports:
            settings = {**self.settings, "setup": [*exports, *self.settings.get("setup", ())]}
            if self.cluster == "local":
                del settings["setup"]  # the processes inherit what is exported
            executor.update_parameters(**{_parameter(key, self.cluster): value for key, value in settings.items()})
            submitted = _submit(executor, job, configs, numbers)
        if self.cluster == "slurm":
            self._tell(submitted)
        try:
            return [_result(one) for one in submitted]
        except KeyboardInterrupt:
            if self.cluster == "local":
                for one in submitted:
                    one.cancel()
            raise

    def _tell(self, submitted: Sequence[Any]) -> None:
        number = str(submitted[0].job_id).partition("_")[0]
        print(f"SLURM job {number}: goes on after Ctrl-C here, scancel {number} ends it", file=sys.stderr)
        if OmegaConf.select(self.config, "logger.wandb"):
            print(f"nodes without network: wandb sync {self.folder}/wandb/offline-run-* afterwards", file=sys.stderr)


def snapshot(folder: Path) -> Path:
    """Copy what a job imports and composes into ``folder/code``, so that it runs this however late it starts."""
    from dropout_lab.jobs.conf import ORIGIN, REPOSITORY
    from dropout_lab.runs.provenance import provenance

    target, fresh = folder / "code", folder / "code.new"
    shutil.rmtree(fresh, ignore_errors=True)
    for name in ("src", "conf"):
        shutil.copytree(REPOSITORY / name, fresh / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copy(REPOSITORY / "pyproject.toml", fresh)
    git = {key: value for key, value in provenance().items() if key.startswith("git_")}
    (fresh / ORIGIN.name).write_text(json.dumps({"repository": str(REPOSITORY), **git}, indent=1))
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)
    return target


@contextmanager
def _importing_from(code: Path) -> Iterator[list[str]]:
    """Let processes that are started now import from there; the same as lines of a shell script."""
    before = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([str(code / "src"), *([before] if before else [])])
    os.environ["PYTHONPATH"] = path
    try:
        yield [f"export PYTHONPATH={shlex.quote(path)}"]
    finally:
        del os.environ["PYTHONPATH"]
        if before is not None:
            os.environ["PYTHONPATH"] = before


COMMON = (
    *("name", "nodes", "tasks_per_node", "cpus_per_task", "gpus_per_node", "mem_gb", "timeout_min"),
    "stderr_to_stdout",
)


def _parameter(key: str, cluster: str) -> str:
    """What submitit calls a setting: those that not every cluster has bear its name."""
    return key if key in COMMON else f"{cluster}_{key}"


def _submit(executor: Any, job: Job, configs: Sequence[bytes], numbers: Sequence[int]) -> list[Any]:
    """Hand jobs to submitit, whose complaint would stand twice, as it prints what it raises."""
    from submitit.core.utils import FailedJobError

    try:
        with redirect_stderr(StringIO()):
            return executor.map_array(job, configs, numbers)  # type: ignore[no-any-return]
    except FailedJobError as error:
        raise ChildProcessError(str(error)) from error  # words of sbatch, which need no kind of error in front


def _result(job: Any) -> JobReturn:
    """What the first process of a job has returned; NaN where the job ended without: the others go on."""
    try:
        returned: JobReturn = job.task(0).result()
        return returned
    except Exception as error:
        print(f"failed: job {job.job_id} ended without a result, its output is in {job.paths.folder}", file=sys.stderr)
        logging.getLogger(__name__).debug("%s", error)
        return without_result()
