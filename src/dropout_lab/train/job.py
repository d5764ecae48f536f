"""A job: one run from its configuration to what its folder holds, top to bottom in `train`."""

import logging
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import lightning
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig
from torch import nn
from torch.optim import Optimizer

from dropout_lab.cli import UserError, full_errors, root_cause
from dropout_lab.data import DataModule
from dropout_lab.dropout import Dropout
from dropout_lab.dropout.placement.install import site_table
from dropout_lab.dropout.placement.other_noise import other_noise, shortened
from dropout_lab.jobs.build import (
    Network,
    build_data,
    build_lr_scheduler,
    build_module,
    build_network,
    build_optimizer,
    build_rates,
    instantiate,
)
from dropout_lab.jobs.devices import needed, rank
from dropout_lab.jobs.job import resolved
from dropout_lab.jobs.processes import launch, leaving_nothing
from dropout_lab.modules.base import Module
from dropout_lab.modules.divergence import DivergenceError
from dropout_lab.runs.checkpoints import Best, newest
from dropout_lab.runs.failures import failing_as_one, first_failure_told, note_failure
from dropout_lab.runs.folder import LOG, RunFolder, read_config, read_status
from dropout_lab.runs.identity import describe
from dropout_lab.runs.lease import alone_in
from dropout_lab.runs.provenance import provenance
from dropout_lab.runs.resume import is_done, resumed_by_name, start_point
from dropout_lab.runs.settings import summary
from dropout_lab.runs.start_from import start
from dropout_lab.train import progress
from dropout_lab.train.length import planned_length
from dropout_lab.train.runtime import close_wandb, quieten_lightning, set_threads
from dropout_lab.train.trainer import build_trainer

log = logging.getLogger(__name__)

_told: set[str] = set()  # warnings of this process, so that a sweep gives each once


def run(cfg: DictConfig, label: str | None = None, planned: str | None = None) -> float:
    """Run a job, as Hydra calls it: never raises, so that the sweep goes on; its folder says how it ended.

    Args:
        cfg: its configuration.
        label: its name without the seed, where that was planned.
        planned: the fingerprint that its configuration has to have; None: any.

    Returns:
        the best validation loss, NaN when the job failed.
    """
    folder = RunFolder(Path(HydraConfig.get().runtime.output_dir), planned or "", writes=rank() == 0)
    name = label or str(folder.path)
    try:
        with alone_in(folder.path):
            with folder.beginning():
                describe(cfg, HydraConfig.get(), label)
                folder.config_hash, name = cfg.run.config_hash, cfg.run.name
                if progress.current is not None:
                    progress.current.start(name)
                if cfg.resume != "never" and is_done(folder.path, folder.config_hash):
                    log.warning("%s is done already, with this configuration and this code", folder.path)
                    objective = read_status(folder.path)["objective"]
                    return float("nan") if objective is None else float(objective)
                checkpoint = start_point(folder.path, folder.config_hash, cfg.resume, folder.writes)
                if checkpoint is not None:  # at W&B, too, it stays the run that it was
                    cfg.run.id = read_config(folder.path).run.id
                    folder.go_on()
            with folder.recording(), failing_as_one(folder.path), leaving_nothing():
                if planned not in (None, folder.config_hash):
                    raise UserError("its launcher brought another configuration than was planned; use one in conf/")
                if (count := needed(cfg.trainer)) > 1:
                    folder.objective = _on_several(cfg, folder, count)
                else:
                    folder.objective = train(cfg, folder, checkpoint)
        return folder.objective
    except SystemExit:  # Lightning's answer to Ctrl-C and SIGTERM; in a sweep it must not look like the end of one job
        raise KeyboardInterrupt from None
    except Exception as error:
        if full_errors():
            log.exception("job failed")
        how = "diverged" if isinstance(error, DivergenceError) else "failed"
        print(f"{how}: {name}: {root_cause(error)}", file=sys.stderr)
        return float("nan")
    finally:
        if progress.current is None:  # this process may be ended at any time
            close_wandb()
        elif not isinstance(sys.exception(), KeyboardInterrupt):
            progress.current.done()


def train(cfg: DictConfig, folder: RunFolder, checkpoint: Path | None = None) -> float:
    """Train a run: build, fit, and test the best checkpoint.

    Args:
        cfg: the job's configuration, ``run`` filled in.
        folder: its folder.
        checkpoint: go on from here; None: from the beginning.

    Returns:
        the best value of what the checkpoints monitor; the last validation loss where they monitor nothing.
    """
    quieten_lightning()
    set_threads(cfg.threads)
    folder.write_config(resolved(cfg))
    module, data, network = assemble(cfg)
    loggers = [instantiate(logger) for logger in cfg.logger.values()]
    trainer = build_trainer(cfg, loggers, watched=_is_alone(cfg) and sys.stdout.isatty())
    noise = noise_of(network, cfg)
    columns = _columns(module, trainer.callbacks)  # type: ignore[attr-defined]
    config = {**resolved(cfg), "layers": network.layers, "columns": columns, "noise": noise}
    if digest := getattr(data, "digest", None):  # of a file whose name says little
        config["data_digest"] = digest
    folder.write_config(config)
    tells_all = _is_alone(cfg) and folder.writes
    if folder.writes:
        _tell(config, module.net, noise, in_full=tells_all)
    with _finishing(loggers, module):
        for logger in loggers:
            logger.log_hyperparams({**config, **provenance(), "overrides": config["run"]["overrides"]})
        trainer.fit(module, data, ckpt_path=checkpoint)
        best: Any = min(trainer.checkpoint_callbacks, key=lambda each: not isinstance(each, Best), default=None)
        if best and not best.best_model_path:
            log.warning("no validation has run, so that no checkpoint is the best: the last weights are tested")
        trainer.test(module, data, ckpt_path=(best and best.best_model_path) or None, verbose=False)
        if tells_all:
            print("  ".join(f"{key} {value:.4f}" for key, value in module.tested.items()))
    return float(module.last_val_loss if best is None or best.best_model_score is None else best.best_model_score)


def assemble(cfg: DictConfig) -> tuple[Module, DataModule, Network]:
    """Build everything that is trained, the random numbers of its initial weights drawn from the run's seed.

    Returns:
        the module, its data, and its network with dropout installed.
    """
    lightning.seed_everything(cfg.seed, verbose=False)
    data = build_data(cfg)
    network = build_network(cfg, data)
    module = build_module(cfg, network.net)
    if cfg.get("start_from"):  # runs of before there was the key are replayed, too
        start(module, cfg, data)
    if cfg.compile:
        network.net.compile()
    module.optimizer = build_optimizer(cfg, module, data)
    module.lr_scheduler = partial(_lr_scheduler, cfg, data)
    module.rates = build_rates(cfg, network.net)
    return module, data, network


def _lr_scheduler(cfg: DictConfig, data: DataModule, optimizer: Optimizer) -> dict[str, Any]:
    """The scheduler of a training whose data is set up, so that its steps can be counted."""
    length = planned_length(cfg.trainer, len(data.train_dataloader()))
    return build_lr_scheduler(cfg, optimizer, length.epochs, length.steps)


def one_of_several(path: Path) -> None:
    """Train as one process of several, as the configuration in the run folder says."""
    cfg = read_config(path)
    folder = RunFolder(path, cfg.run.config_hash, writes=rank() == 0)
    try:
        folder.hand_over(train(cfg, folder, newest(path)))
    except Exception as error:
        note_failure(path, error)
        raise
    finally:
        close_wandb()


def _columns(module: Module, callbacks: Iterable[Callback]) -> list[dict[str, Any]]:
    """The numbers that a job will measure: those of its module, and those that its callbacks declare."""
    return [each._asdict() for source in (module, *callbacks) for each in getattr(source, "columns", ())]


@contextmanager
def _finishing(loggers: Sequence[Logger], module: Module) -> Iterator[None]:
    """End the loggers' runs when what is inside ends, with the exit code that W&B shows; diverged, with 1."""
    exit_code = 1
    try:
        yield
        if module.diverged:
            raise DivergenceError(module.diverged)
        exit_code = 0
    finally:
        for logger in loggers:
            if hasattr(logger, "finish"):
                logger.finish(exit_code)


def _on_several(cfg: DictConfig, folder: RunFolder, count: int) -> float:
    """Have so many new processes train the job, and wait for them; its objective."""
    folder.write_config(resolved(cfg))
    with first_failure_told(folder.path):
        launch(count, one_of_several, folder.path, log=None if sys.stdout.isatty() else folder.path / LOG)
    return folder.take_objective()


def noise_of(network: Network, cfg: DictConfig) -> dict[str, list[str]]:
    """What is to be told of the noise in a network besides that of its strategy's layers.

    Args:
        network: with dropout installed.
        cfg: its configuration.

    Returns:
        ``elsewhere``: at how many sites, which it does not fit, a layer has which other mask; ``more``: strategies at
        other sites; ``off``, ``on``: noise of the network's own that was switched off, and that is left on. Lists of
        words, empty where there is none.
    """
    layers = [layer for layer in network.net.modules() if isinstance(layer, Dropout)]
    others = Counter(layer.mask for layer in layers if layer.mask != layer.given_mask)
    elsewhere = [f"{other} {count}/{len(layers)}" for other, count in others.items()]
    on = (
        other_noise(network.net) if cfg.get("other_noise") != "remove" else []
    )  # to look takes two traces of the network
    parts = (cfg.get("more_dropout") or {}).items()
    more = [f"{name} (p={part.dropout.p}, placement.where={part.placement.where})" for name, part in parts]
    return {"elsewhere": elsewhere, "more": more, "off": shortened(network.switched_off), "on": shortened(on)}


def _tell(config: dict[str, Any], net: nn.Module, noise: dict[str, list[str]], in_full: bool) -> None:
    """Tell the configuration and the sites of dropout; in a sweep only what is done about noise of another kind."""
    if in_full:
        print(f"{summary(config)}\n\n{site_table(net)}\n", file=sys.stderr)
    lines = [f"switched off in the network ({line}); other_noise=keep leaves it on" for line in noise["off"]]
    lines += [f"left on in the network, where no strategy and no keyed mask reaches it: {line}" for line in noise["on"]]
    for line in lines:
        if line not in _told:
            _told.add(line)
            log.warning("%s", line)


def _is_alone(cfg: DictConfig) -> bool:
    """Whether a job does not run as part of a sweep, so that it may talk."""
    return bool(cfg.run.root == cfg.run.dir or resumed_by_name(cfg.resume))
