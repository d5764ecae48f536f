"""The Trainer of a job: built for it, and tried before any job starts."""

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning
from hydra.utils import get_class
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, ProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy
from omegaconf import DictConfig
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.nn.parallel import DistributedDataParallel

from dropout_lab.activations.callback import ActivationStats
from dropout_lab.cli import UserError, nearest
from dropout_lab.jobs.build import instantiate, module_class
from dropout_lab.jobs.build_errors import arguments_of, telling, unknown_key
from dropout_lab.jobs.devices import environment, together
from dropout_lab.jobs.job import Job
from dropout_lab.modules.columns import Column
from dropout_lab.runs.checkpoints import AtomicCheckpointIO, Best, Checkpoint, EndOfEpoch, WithinEpoch, in_order
from dropout_lab.runs.continuing import Resume
from dropout_lab.runs.loggers import Csv, TensorBoard, require_places
from dropout_lab.runs.wandb_logger import Wandb
from dropout_lab.train import progress
from dropout_lab.train.recipes.divergence import Divergence
from dropout_lab.train.recipes.max_norm import MaxNorm
from dropout_lab.train.recipes.sync_batchnorm import SyncBatchNorm
from dropout_lab.train.recipes.weight_averaging import WeightAveraging
from dropout_lab.train.runtime import quieten_lightning
from dropout_lab.train.sigterm import EndAtOnce

# Loggers that do nothing before something is logged; constructors of others start runs, or make folders.
PATIENT = (Csv, TensorBoard, Wandb)
# Callbacks that have no metrics of their own.
SILENT = (
    *(ActivationStats, Best, Checkpoint, Divergence, EndOfEpoch, MaxNorm),
    *(progress.ProgressBar, WeightAveraging, WithinEpoch),
)

# What a strategy with a _target_ must leave as it is: who starts the processes, and that a checkpoint is one file.
DESCRIBED = {"start_method": "popen", "state_dict_type": "full"}


def build_trainer(cfg: DictConfig, loggers: Sequence[Logger], watched: bool) -> lightning.Trainer:
    """The Trainer of a job; with a progress bar only where a person watches a single run."""
    callbacks = [Resume(Path(cfg.run.dir)), *(instantiate(callback) for callback in cfg.callbacks.values())]
    if not watched:
        callbacks = [callback for callback in callbacks if not isinstance(callback, ProgressBar)]
    if together() > 1:
        callbacks.append(EndAtOnce())
    plugins: list[Any] = [AtomicCheckpointIO(), environment()]
    if cfg.trainer.sync_batchnorm:
        plugins.append(SyncBatchNorm())
    trainer: lightning.Trainer = instantiate(
        cfg.trainer,
        logger=loggers,
        callbacks=in_order(callbacks),
        plugins=plugins,
        default_root_dir=cfg.run.dir,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        enable_progress_bar=watched and cfg.trainer.get("enable_progress_bar", True),
    )
    return trainer


def try_trainer(planned: Job) -> None:
    """Build a job's Trainer, loggers and callbacks, for one process on the CPU: nothing starts, no GPU is taken.

    What it would set for all of this process, ``deterministic`` and ``benchmark``, the schema has checked.
    """
    quieten_lightning()
    job = planned.blank
    with telling(job):
        callbacks = {str(name): instantiate(callback) for name, callback in job.callbacks.items()}
        loggers = [logger for name in job.logger if (logger := _logger(job, str(name)))]
    require_places(planned.alike["logger"], planned.written["logger"])
    for name, callback in callbacks.items():
        if type(callback) is ModelCheckpoint:
            raise UserError(
                f"callbacks.{name}: Lightning's ModelCheckpoint does not know the run folder, where evaluate, fold and "
                "resuming look; dropout_lab.runs.checkpoints.Checkpoint does, and takes the same options but dirpath"
            )
    _require_logged(callbacks, module_class(job).monitored())
    _require_direction(callbacks, module_class(job).columns)
    with telling(job, "trainer"):
        if isinstance(job.trainer.strategy, DictConfig):
            _try_strategy(job.trainer.strategy)
        here = {"accelerator": "cpu", "devices": 1, "num_nodes": 1, "strategy": "auto"}
        own = {"deterministic": None, "benchmark": None, "plugins": [LightningEnvironment()]}
        given = {"default_root_dir": "", "logger": loggers, "callbacks": [*callbacks.values()]}
        instantiate(job.trainer, **here, **own, **given, enable_progress_bar=True)


def _try_strategy(node: DictConfig) -> None:
    """Make a strategy that is described; what it hands on to torch, it would have refused in training."""
    for key, value in DESCRIBED.items():
        if (other := node.get(key, value)) != value:
            raise ValueError(f"trainer.strategy.{key}={other}: must be {value}")
    handed_on: dict[type, type] = {DDPStrategy: DistributedDataParallel, FSDPStrategy: FullyShardedDataParallel}
    if wraps := handed_on.get(type(instantiate(node))):
        known = arguments_of(get_class(node["_target_"])) | arguments_of(wraps)
        for name in node:
            if not str(name).startswith("_") and name not in known:
                raise ValueError(f"trainer.strategy.{unknown_key(str(name), node['_target_'], known)}")


def _logger(job: DictConfig, name: str) -> Logger | None:
    node = job.logger[name]
    later = instantiate(node, _partial_=True)
    with telling(job, f"logger.{name}"):
        if later.func in PATIENT:
            return later()  # type: ignore[no-any-return]
        signature = inspect.signature(later.func)
        signature.bind_partial(**later.keywords)  # first, as a key that is missing may be one with a typo
        signature.bind(**later.keywords)
    return None


def _require_logged(callbacks: Mapping[str, Callback], logged: Sequence[str]) -> None:
    """Refuse to monitor a metric that nothing logs: known only where no callback is a fork's own, which may log any."""
    for callback in callbacks.values():
        ours = type(callback) in SILENT or type(callback).__module__.startswith("lightning.pytorch.callbacks.")
        if not ours or isinstance(callback, lightning.pytorch.callbacks.LearningRateMonitor):
            return
    for name, callback in callbacks.items():
        monitor = getattr(callback, "monitor", None)
        if monitor is not None and monitor not in logged:
            raise UserError(
                f"callbacks.{name}.monitor={monitor}: nothing logs that; {nearest(monitor, logged)}"
                f"allowed: {', '.join(logged)} (train/loss, and the columns of the module)"
            )


def _require_direction(callbacks: Mapping[str, Callback], columns: Sequence[Column]) -> None:
    """Refuse a callback that takes the worst value of a number for the best."""
    modes = {"more": "max", "less": "min", None: None}
    better = {f"{part}/{column.key}": column.better for column in columns for part in ("val", "train_eval")}
    for name, callback in callbacks.items():
        monitor, mode = getattr(callback, "monitor", None), getattr(callback, "mode", None)
        wanted = modes[better.get(str(monitor))]
        if mode in ("min", "max") and wanted not in (None, mode):
            raise UserError(
                f"callbacks.{name}.mode={mode}: {better[str(monitor)]} of {monitor} is better; "
                f"set callbacks.{name}.mode={wanted}"
            )
