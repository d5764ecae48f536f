"""The callback that lets a run go on from a checkpoint as if it had never stopped."""

import logging
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.trainer.states import TrainerFn

from dropout_lab.modules.base import Module
from dropout_lab.modules.sums import of_each_process
from dropout_lab.runs.atomic import write_whole
from dropout_lab.runs.folder import TABLES

STARTS = ("last", "best")  # what a run goes on from, unless it writes neither

log = logging.getLogger(__name__)


class Resume(L.Callback):
    """Puts into each checkpoint what Lightning leaves out, so that what goes on from there ends as the whole run.

    That is how long the run's tables are, to which they are cut: what was logged after the checkpoint is logged again.
    Steps can't tell the two apart: an epoch's last row and the next epoch's first may have the same. The states of
    torch's generators, from which masks without keys are drawn. And whether a callback has ended the training.

    Lightning takes up its loops with ``max_steps`` in another way than without, and wrongly: an epoch that was complete
    counts twice, so that the next has the batches of the one after it. Until training starts there is no such limit.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._max_steps = -1
        self._generators: dict[str, torch.Tensor] = {}  # of a checkpoint within an epoch

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Make the module what it will be before others copy it, to average weights, and before weights are loaded.

        Lightning converts it to a true precision later, so that weights would pass through float32.
        """
        if isinstance(pl_module, Module):
            pl_module.adapt_to(trainer.datamodule)  # type: ignore[attr-defined]
        if str(trainer.precision).endswith("-true"):
            trainer.precision_plugin.convert_module(pl_module)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the limit of steps away while the loops are taken up; say what will follow the clock."""
        self._max_steps, trainer.fit_loop.epoch_loop.max_steps = trainer.max_steps, -1
        clocks = {"trainer.max_time": any(isinstance(each, Timer) for each in trainer.callbacks)}  # type: ignore[attr-defined]
        clocks["trainer.val_check_interval"] = trainer._val_check_time_interval is not None  # type: ignore[attr-defined]
        for key in (key for key, set_ in clocks.items() if set_ and trainer.is_global_zero):
            log.warning("%s follows the clock: an interrupted run will end near the whole one, not bit for bit", key)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Give the limit back."""
        trainer.fit_loop.epoch_loop.max_steps = self._max_steps

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Draw on from where the checkpoint was made: a loader that is taken up within an epoch has drawn a seed."""
        if self._generators and batch_idx > 0:
            _set_states(self._generators, trainer.strategy.root_device)
        self._generators = {}

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Count an epoch that was at its end with nothing left to train; Lightning does by ``max_epochs`` alone."""
        epochs: Any = trainer.fit_loop.epoch_progress.current
        epochs.completed = epochs.processed

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Lines of each table, generators of each process, whether training ends here."""
        checkpoint["lines"] = {name: _lines(self.folder / name) for name in TABLES}
        device = trainer.strategy.root_device  # which processes talk by
        every = {kind: of_each_process(state.to(device)) for kind, state in _states(device).items()}
        checkpoint["generators"] = every
        names = {getattr(each, "filename", None) for each in trainer.checkpoint_callbacks}
        checkpoint["alone"] = names.isdisjoint(STARTS)
        checkpoint["should_stop"] = trainer.should_stop
        epochs: Any = trainer.fit_loop.epoch_progress.current
        checkpoint["goes_on"] = not stops(trainer) or epochs.processed > epochs.completed

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take up what was put there; the tables are cut by the process that writes them.

        Not when the best checkpoint is loaded to be tested: what was logged after it stands.
        """
        if trainer.state.fn != TrainerFn.FITTING:
            return
        trainer.should_stop = checkpoint.get("should_stop", False)
        if every := checkpoint.get("generators"):
            self._draw_on(trainer, pl_module, every)
        if trainer.is_global_zero:
            for name, count in checkpoint["lines"].items():
                _cut(self.folder / name, count)

    def _draw_on(self, trainer: L.Trainer, pl_module: L.LightningModule, every: dict[str, torch.Tensor]) -> None:
        """Set the generators of this process to its states in a checkpoint, if there were as many processes then."""
        if len(every["cpu"]) == trainer.world_size:
            own = {kind: each[trainer.global_rank] for kind, each in every.items()}
            self._generators = {kind: state.clone() for kind, state in own.items()}  # torch reads a view wrongly
            _set_states(self._generators, trainer.strategy.root_device)
        elif trainer.is_global_zero and not getattr(pl_module, "keyed", True):
            counts = len(every["cpu"]), trainer.world_size
            log.warning(
                "keyed=false: of %d processes, now %d: it will end near the whole run, not bit for bit", *counts
            )


def stops(trainer: Any) -> bool:
    """Whether a callback ends the training at this step; what is left of the epoch's end no checkpoint can tell."""
    return bool(trainer.should_stop and trainer.fit_loop._can_stop_early)


def _states(device: torch.device) -> dict[str, torch.Tensor]:
    """The states of the generators that this process draws from: kind of device -> uint8 (n,)."""
    found = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        found[device.type] = torch.get_device_module(device).get_rng_state()
    return found


def _set_states(kept: dict[str, torch.Tensor], device: torch.device) -> None:
    """Let generators go on from these states; those of a kind of device that is not used here are left out."""
    torch.set_rng_state(kept["cpu"])
    if device.type != "cpu" and device.type in kept:
        torch.get_device_module(device).set_rng_state(kept[device.type])


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _cut(path: Path, count: int) -> None:
    if not path.exists():
        return
    lines = path.read_bytes().splitlines(keepends=True)[:count]
    if not lines:
        path.unlink()
        return
    write_whole(path, b"".join(lines))
