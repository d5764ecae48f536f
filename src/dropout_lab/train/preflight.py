"""Preflight: what every job needs is built before the first one starts, so that what fails is one line.

Each part is built as the job will, but what is for its own processes is left alone: devices, groups, files.
"""

import inspect
import json
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.accelerators import AcceleratorRegistry
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import StrategyRegistry
from omegaconf import DictConfig, OmegaConf

from dropout_lab.activations.callback import ActivationStats
from dropout_lab.cli import UserError, nearest
from dropout_lab.data import ImageData
from dropout_lab.jobs.build import build_data, build_network, build_optimizer, build_rates, instantiate
from dropout_lab.jobs.build_errors import diagnose
from dropout_lab.jobs.devices import planned
from dropout_lab.jobs.plan import Plan
from dropout_lab.modules.classification import MONITORED
from dropout_lab.runs.checkpoints import Checkpoint, EndOfEpoch, WithinEpoch
from dropout_lab.runs.identity import fingerprints
from dropout_lab.runs.loggers import Csv, TensorBoard
from dropout_lab.runs.wandb_logger import Wandb
from dropout_lab.train.progress import ProgressBar
from dropout_lab.train.recipes.max_norm import MaxNorm
from dropout_lab.train.recipes.weight_averaging import WeightAveraging
from dropout_lab.train.runtime import quieten_lightning

# Loggers that do nothing before something is logged; constructors of others start runs, or make folders.
PATIENT = (Csv, TensorBoard, Wandb)
# Callbacks that have no metrics of their own.
SILENT = (ActivationStats, Checkpoint, EndOfEpoch, MaxNorm, ProgressBar, WeightAveraging, WithinEpoch)

_batches: dict[str, int] = {}  # of an epoch, by fingerprint of the configuration; known once its data was built


def refusals(jobs: Sequence[DictConfig]) -> dict[int, str]:
    """Build all that the jobs of a sweep will.

    Each part is built once for all the jobs in which what it depends on is the same.

    Returns:
        number of a job -> why its dropout can't be installed in its model or trained as asked.

    Raises:
        UserError: data, loss, loggers, callbacks or Trainer cannot be built.
    """
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


class _Once:
    """The answers of a question about a job, by the parts of a configuration that it looks at."""

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
    job = job.copy()
    job.run = dict.fromkeys(job.run, "")  # filled in when the job starts
    data = data_of(job)
    _batches[key] = once(batches_of, job, "data model", data)
    once(try_trainer, job, "trainer callbacks logger")
    once(try_loss, job, "loss data model", data)
    parts = "data model channels_last dropout placement dropout_schedule optimizer lr_scheduler trainer.max_epochs"
    reason: str | None = once(why_untrainable, job, parts, data)
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


def data_of(job: DictConfig) -> ImageData:
    """The data module of a job, not set up yet."""
    with _telling(job, "data"):
        return build_data(job)  # type: ignore[no-any-return]


def batches_of(job: DictConfig, data: ImageData) -> int:
    """How many training batches a job's epoch has."""
    with _telling(job, "data"):
        data.setup("fit")
        return len(data.train_dataloader())


def try_trainer(job: DictConfig) -> None:
    """Build a job's Trainer, loggers and callbacks, for one process on the CPU: nothing starts, no GPU is taken.

    What it would set for all of this process, ``deterministic`` and ``benchmark``, the schema has checked.
    """
    quieten_lightning()
    with _telling(job):
        callbacks = {str(name): instantiate(callback) for name, callback in job.callbacks.items()}
        loggers = [logger for name in job.logger if (logger := _logger(job, str(name)))]
    _require_logged(callbacks)
    _require_known(job, "strategy", ["auto", *StrategyRegistry.available_strategies()])
    _require_known(job, "accelerator", ["auto", "gpu", *AcceleratorRegistry.available_accelerators()])
    with _telling(job, "trainer"):
        if isinstance(job.trainer.strategy, DictConfig):
            instantiate(job.trainer.strategy)
        here = {"accelerator": "cpu", "devices": 1, "num_nodes": 1, "strategy": "auto"}
        own = {"deterministic": None, "benchmark": None, "plugins": [LightningEnvironment()]}
        given = {"default_root_dir": "", "logger": loggers, "callbacks": [*callbacks.values()]}
        instantiate(job.trainer, **here, **own, **given, enable_progress_bar=True)


def try_loss(job: DictConfig, data: ImageData) -> None:
    """Build a job's loss and try it on a batch."""
    logits = torch.zeros(2, data.num_classes, requires_grad=True)
    classes = torch.zeros(2, data.num_classes) if data.mixup else torch.zeros(2, dtype=torch.int64)
    with _telling(job, "loss"):
        value = instantiate(job.loss)(logits, classes)
        if value.ndim or not value.requires_grad:
            raise ValueError("must be one number for a batch, which depends on the logits")


def why_untrainable(job: DictConfig, data: ImageData) -> str | None:
    """Why a job's network can't be built or trained; None where it can."""
    try:
        with _telling(job, "dropout"):
            instantiate(job.dropout)(p=job.dropout.p)
        with _telling(job):
            net, _ = build_network(job, data)
        with _telling(job, "dropout_schedule"):
            build_rates(job, net)
        with _telling(job, "optimizer"):
            optimizer = build_optimizer(job, net, data)
        with _telling(job, "lr_scheduler"):
            scheduler = instantiate(job.lr_scheduler)(optimizer)
            for _ in range(min(job.trainer.max_epochs, 1000)):  # what is wrong with its values shows only then
                scheduler.step()
    except UserError as error:
        return str(error)
    return None


@contextmanager
def _telling(job: DictConfig, section: str | None = None) -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the job will give them
            yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(diagnose(job, error, section)) from error


def _logger(job: DictConfig, name: str) -> Logger | None:
    node = job.logger[name]
    later = instantiate(node, _partial_=True)
    if later.func in PATIENT:
        return later()  # type: ignore[no-any-return]
    with _telling(job, f"logger.{name}"):
        signature = inspect.signature(later.func)
        signature.bind_partial(**later.keywords)  # first, as a key that is missing may be one with a typo
        signature.bind(**later.keywords)
    return None


def _require_logged(callbacks: Mapping[str, Callback]) -> None:
    """Refuse to monitor a metric that nothing logs: known only where no callback is a fork's own, which may log any."""
    for callback in callbacks.values():
        ours = type(callback) in SILENT or type(callback).__module__.startswith("lightning.pytorch.callbacks.")
        if not ours or isinstance(callback, lightning.pytorch.callbacks.LearningRateMonitor):
            return
    for name, callback in callbacks.items():
        monitor = getattr(callback, "monitor", None)
        if monitor is not None and monitor not in MONITORED:
            raise UserError(
                f"callbacks.{name}.monitor={monitor}: nothing logs that; {nearest(monitor, MONITORED)}"
                f"allowed: {', '.join(MONITORED)} (MONITORED in dropout_lab.modules.classification)"
            )


def _require_known(job: DictConfig, key: str, allowed: Sequence[str]) -> None:
    name: Any = job.trainer[key]
    if isinstance(name, str) and name.lower() not in allowed:
        meant = nearest(name, allowed).strip() or f"allowed: {', '.join(allowed)}"
        raise UserError(f"trainer.{key}={name}: Lightning has none of that name; {meant}")
