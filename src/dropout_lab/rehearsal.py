"""Build each part of a job, as the job will, but leave alone what is for its own processes: devices, groups, files."""

import inspect
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.accelerators import AcceleratorRegistry
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import StrategyRegistry
from omegaconf import DictConfig

from dropout_lab.build import build_data, build_network, build_optimizer, build_rates, instantiate
from dropout_lab.classifier import MONITORED
from dropout_lab.data import ImageData
from dropout_lab.errors import UserError, nearest
from dropout_lab.misfit import misfit

PATIENT = tuple(  # loggers that do nothing before something is logged; constructors of others start runs, make folders
    f"dropout_lab.loggers.{kind}" for kind in ("Csv", "TensorBoard", "Wandb")
)
SILENT = tuple(  # where the callbacks are that have no metrics of their own
    f"dropout_lab.{module}" for module in ("activations.callback", "averaging", "bar", "checkpoints", "max_norm")
)


def data_of(job: DictConfig) -> ImageData:
    """The data module, not set up yet."""
    with _telling(job, "data"):
        return build_data(job)


def batches_of(job: DictConfig, data: ImageData) -> int:
    """Training batches of an epoch."""
    with _telling(job, "data"):
        data.setup("fit")
        return len(data.train_dataloader())


def check_trainer(job: DictConfig) -> None:
    """The Trainer, its loggers and its callbacks: for one process on the CPU, where nothing starts and no GPU is taken.

    What it would set for all of this process, ``deterministic`` and ``benchmark``, the schema has checked.
    """
    from dropout_lab.train import quieten_lightning

    quieten_lightning()
    with _telling(job):
        callbacks = {str(name): instantiate(callback) for name, callback in job.callbacks.items()}
        loggers = [logger for name in job.logger if (logger := _logger(job, str(name)))]
    _check_monitored(callbacks)
    _check_name(job, "strategy", ["auto", *StrategyRegistry.available_strategies()])
    _check_name(job, "accelerator", ["auto", "gpu", *AcceleratorRegistry.available_accelerators()])
    with _telling(job, "trainer"):
        if isinstance(job.trainer.strategy, DictConfig):
            instantiate(job.trainer.strategy)
        here = {"accelerator": "cpu", "devices": 1, "num_nodes": 1, "strategy": "auto"}
        own = {"deterministic": None, "benchmark": None, "plugins": [LightningEnvironment()]}
        given = {"default_root_dir": "", "logger": loggers, "callbacks": [*callbacks.values()]}
        instantiate(job.trainer, **here, **own, **given, enable_progress_bar=True)


def check_loss(job: DictConfig, data: ImageData) -> None:
    """The loss of a batch as training has it."""
    logits = torch.zeros(2, data.num_classes, requires_grad=True)
    classes = torch.zeros(2, data.num_classes) if data.mixup else torch.zeros(2, dtype=torch.int64)
    with _telling(job, "loss"):
        value = instantiate(job.loss)(logits, classes)
        if value.ndim or not value.requires_grad:
            raise ValueError("must be one number for a batch, which depends on the logits")


def untrainable(job: DictConfig, data: ImageData) -> str | None:
    """Why the network can't be built or trained, if so."""
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
        raise UserError(misfit(job, error, section)) from error


def _logger(job: DictConfig, name: str) -> Logger | None:
    node = job.logger[name]
    if node["_target_"] in PATIENT:
        return instantiate(node)  # type: ignore[no-any-return]
    later = instantiate(node, _partial_=True)
    with _telling(job, f"logger.{name}"):
        signature = inspect.signature(later.func)
        signature.bind_partial(**later.keywords)  # first, as a key that is missing may be one with a typo
        signature.bind(**later.keywords)
    return None


def _check_monitored(callbacks: Mapping[str, Callback]) -> None:
    """Refuse a name that nothing logs: known only where no callback is a fork's own, which may log any."""
    for callback in callbacks.values():
        module = type(callback).__module__
        ours = module in SILENT or module.startswith("lightning.pytorch.callbacks.")
        if not ours or isinstance(callback, lightning.pytorch.callbacks.LearningRateMonitor):
            return
    for name, callback in callbacks.items():
        monitor = getattr(callback, "monitor", None)
        if monitor is not None and monitor not in MONITORED:
            raise UserError(
                f"callbacks.{name}.monitor={monitor}: nothing logs that; {nearest(monitor, MONITORED)}"
                f"allowed: {', '.join(MONITORED)} (dropout_lab.classifier.MONITORED)"
            )


def _check_name(job: DictConfig, key: str, allowed: Sequence[str]) -> None:
    name: Any = job.trainer[key]
    if isinstance(name, str) and name.lower() not in allowed:
        meant = nearest(name, allowed).strip() or f"allowed: {', '.join(allowed)}"
        raise UserError(f"trainer.{key}={name}: Lightning has none of that name; {meant}")
