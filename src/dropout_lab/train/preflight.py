"""Preflight: what every job needs is built before the first one starts, so that what fails is one line.

Each part is built as the job will, but what is for its own processes is left alone: devices, groups, files.
"""

import copy
import inspect
import json
import operator
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import reduce
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.accelerators import AcceleratorRegistry
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import StrategyRegistry
from omegaconf import DictConfig
from torch import nn

from dropout_lab.activations.callback import ActivationStats
from dropout_lab.cli import UserError, nearest
from dropout_lab.data import ImageData
from dropout_lab.jobs.build import build_data, build_network, build_optimizer, build_rates, instantiate
from dropout_lab.jobs.build_errors import diagnose
from dropout_lab.jobs.job import Job
from dropout_lab.modules.classification import MONITORED
from dropout_lab.runs.checkpoints import Checkpoint, EndOfEpoch, WithinEpoch
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

NETWORK = "data model channels_last dropout placement"  # what a network with its dropout depends on
TRAINING = "optimizer lr_scheduler trainer.max_epochs"  # what its training depends on besides

_batches: dict[str, int] = {}  # of an epoch, by data and model; known once the data was built


def refusals(jobs: Sequence[Job]) -> dict[int, str]:
    """Build all that the jobs of a sweep will.

    Each part is built once for all the jobs in which what it depends on is the same but for p, learning rate and seed;
    a dropout layer is made for each p. Of the networks there is one at a time.

    Returns:
        number of a job -> why its dropout can't be installed in its model or trained as asked.

    Raises:
        UserError: data, loss, loggers, callbacks or Trainer cannot be built.
    """
    once = _Once()
    found: dict[int, str] = {}
    networks: dict[str, list[int]] = {}
    for number, job in enumerate(jobs):
        data = once(data_of, job, "data model")
        once(try_trainer, job, "trainer callbacks logger")
        once(try_loss, job, "loss data model", data)
        if reason := once(why_no_layer, job, "dropout placement", p=job.varied.get("dropout.p")):
            found[number] = reason
        else:
            networks.setdefault(_key(job, NETWORK), []).append(number)
    for numbers in networks.values():
        data = once(data_of, jobs[numbers[0]], "data model")
        net = network_of(jobs[numbers[0]], data)
        for number in numbers:
            if reason := net if isinstance(net, str) else _why_not(jobs[number], once, data, net):
                found[number] = reason
    return dict(sorted(found.items()))


def _why_not(job: Job, once: "_Once", data: ImageData, net: nn.Module) -> str | None:
    """Why a job's network can't be trained as asked; None where it can."""
    reason: str | None = once(why_no_schedule, job, f"{NETWORK} dropout_schedule", net)
    return reason or once(why_untrainable, job, f"{NETWORK} {TRAINING}", data, net)


def batches_of(job: Job) -> int:
    """How many batches an epoch of a job has, whose data was built."""
    return _batches[_key(job, "data model")]


class _Once:
    """The answers of a question about a job, by the parts of a configuration that it looks at."""

    def __init__(self) -> None:
        self._answers: dict[str, Any] = {}

    def __call__(self, check: Callable[..., Any], job: Job, parts: str, *arguments: Any, p: object = None) -> Any:
        key = f"{check.__name__} {_key(job, parts)} {p}"
        if key not in self._answers:
            self._answers[key] = check(job, *arguments)
        return self._answers[key]


def _key(job: Job, parts: str) -> str:
    """Parts of a job's configuration, but for what changes from job to job more than anything else."""
    keys = [part.split(".") for part in parts.split()]
    return json.dumps([reduce(operator.getitem, key, job.alike) for key in keys], default=str)


def _config(job: Job) -> DictConfig:
    config = job.own
    config.run = dict.fromkeys(config.run, "")  # filled in when the job starts
    return config


def data_of(planned: Job) -> ImageData:
    """The data module of a job, set up."""
    job = _config(planned)
    with _telling(job, "data"):
        data: ImageData = build_data(job)
        data.setup("fit")
        _batches[_key(planned, "data model")] = len(data.train_dataloader())
    return data


def try_trainer(planned: Job) -> None:
    """Build a job's Trainer, loggers and callbacks, for one process on the CPU: nothing starts, no GPU is taken.

    What it would set for all of this process, ``deterministic`` and ``benchmark``, the schema has checked.
    """
    quieten_lightning()
    job = _config(planned)
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


def try_loss(planned: Job, data: ImageData) -> None:
    """Build a job's loss and try it on a batch."""
    job = _config(planned)
    logits = torch.zeros(2, data.num_classes, requires_grad=True)
    classes = torch.zeros(2, data.num_classes) if data.mixup else torch.zeros(2, dtype=torch.int64)
    with _telling(job, "loss"):
        value = instantiate(job.loss)(logits, classes)
        if value.ndim or not value.requires_grad:
            raise ValueError("must be one number for a batch, which depends on the logits")


def network_of(planned: Job, data: ImageData) -> nn.Module | str:
    """The network of a job with its dropout; or why it can't be built."""
    job = _config(planned)
    try:
        with _telling(job):
            return build_network(job, data)[0]
    except UserError as error:
        return str(error)


def why_no_layer(planned: Job) -> str | None:
    """Why no dropout layer can be made with a job's p; None where it can."""
    job = _config(planned)
    try:
        with _telling(job, "dropout"):
            instantiate(job.dropout)(p=job.dropout.p)
        with _telling(job, "placement"):
            instantiate(job.placement)
    except UserError as error:
        return str(error)
    return None


def why_no_schedule(planned: Job, net: nn.Module) -> str | None:
    """Why a job's network can't have other rates as time goes on; None where it can."""
    job = _config(planned)
    try:
        with _telling(job, "dropout_schedule"):
            build_rates(job, net)
    except UserError as error:
        return str(error)
    return None


def why_untrainable(planned: Job, data: ImageData, net: nn.Module) -> str | None:
    """Why a job's network can't be trained as asked; None where it can."""
    job = _config(planned)
    net = copy.deepcopy(net) if job.optimizer.get("match") else net  # which changes it
    try:
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
