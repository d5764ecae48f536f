"""Checkpoints that a kill cannot break, and the newest one of a run that is whole."""

import inspect
import logging
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint

from dropout_lab.cli import UserError
from dropout_lab.runs.atomic import replacing
from dropout_lab.runs.continuing import STARTS, stops
from dropout_lab.runs.folder import CHECKPOINTS, checkpoints
from dropout_lab.runs.network import load_checkpoint

log = logging.getLogger(__name__)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, forces it onto the disk and renames it.

    Lightning writes to the temporary folder and moves the file, which is a copy where that folder is another file
    system: a kill then leaves a part of it and nothing of the old one.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint; the old file is there until the new one is whole."""
        with replacing(Path(path)) as file:
            torch.save(checkpoint, file)


class Checkpoint(ModelCheckpoint):
    """Lightning's checkpoints beside the best and the last, in the run folder, under any name.

    The folder may have been moved since they were written: Lightning would forget how good the best one was, and
    overwrite it with the next. In names ``{val/loss}`` becomes ``val_loss=0.31``, as a slash would make a folder.

    Args:
        options: as of Lightning's ModelCheckpoint, but for ``dirpath``.

    Raises:
        ValueError: an option that is not to be chosen.
    """

    FREE: ClassVar = frozenset(inspect.signature(ModelCheckpoint).parameters) - {"dirpath", "save_last"}
    FIXED: ClassVar[dict[str, Any]] = {}  # what the others are, where that is not Lightning's default
    WHY: ClassVar = "checkpoints lie in the run folder, and last.ckpt is what callbacks.last writes"

    def __init__(self, **options: Any) -> None:
        usual = {name: each.default for name, each in inspect.signature(ModelCheckpoint).parameters.items()}
        for name, value in options.items():
            if name not in self.FREE and name in usual and value != self.FIXED.get(name, usual[name]):
                raise ValueError(f"{name}={value}: must be left out: {self.WHY}")
        if "filename" in self.FREE and options.get("filename") in STARTS:
            raise ValueError(f"filename={options['filename']}: must be another: callbacks.checkpoint and last have it")
        super().__init__(**{**self.FIXED, **options})

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Find the folder: the Trainer's own is that of the run."""
        self.dirpath = str(Path(trainer.default_root_dir, CHECKPOINTS).resolve())
        super().setup(trainer, pl_module, stage)

    def format_checkpoint_name(self, *arguments: Any, **options: Any) -> str:
        """The path of a checkpoint, whose name has no slash."""
        path = super().format_checkpoint_name(*arguments, **options)
        folder = f"{self.dirpath}/" if self.dirpath else ""
        return folder + path.removeprefix(folder).replace("/", "_")

    def state_dict(self) -> dict[str, Any]:
        """What Lightning keeps, and the step of the last file: batches of one step don't write it anew."""
        return {**super().state_dict(), "saved_at": self._last_global_step_saved}

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """What goes on from the file itself need not write it again."""
        if Path(trainer.ckpt_path or "").stem == self.filename:
            self._last_global_step_saved = checkpoint["global_step"]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """What is known of each file holds for the one of that name in the folder as it is called now."""
        self._last_global_step_saved = max(self._last_global_step_saved, state_dict.get("saved_at", 0))
        self.current_score = state_dict["current_score"]
        here = {key: self._here(state_dict[key]) for key in state_dict if key.endswith("_path")}
        best = {self._here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict({**state_dict, **here, "best_k_models": best, "dirpath": self.dirpath})

    def _here(self, path: str) -> str:
        return str(Path(self.dirpath or "", Path(path).name)) if path else path


class Best(Checkpoint):
    """The checkpoint that is tested: ``best.ckpt``, the best of all validations by one metric."""

    FREE: ClassVar = frozenset({"monitor", "mode", "verbose", "save_weights_only"})
    FIXED: ClassVar = {"filename": "best", "enable_version_counter": False}
    WHY: ClassVar = (
        "best.ckpt is one file, the best of all validations; to keep more of them add a callback, +callbacks.more="
        "{_target_: dropout_lab.runs.checkpoints.Checkpoint, filename: '{epoch}', monitor: val/loss, save_top_k: 3}"
    )


class Last(Checkpoint):
    """What writes ``last.ckpt``: of all callbacks the last, so that what it goes on from is complete."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing, so that it does not matter whether the first one was written before a kill."""
        return {}


class EndOfEpoch(Last):
    """Lightning's checkpoints at the end of each epoch, and at the end of training where that epoch's is missing.

    Of a run that goes on from there and has nothing left to train Lightning calls no hook of an epoch's end.
    """

    FREE: ClassVar = frozenset({"every_n_epochs", "verbose"})
    FIXED: ClassVar = {"filename": "last", "save_on_train_epoch_end": True, "enable_version_counter": False}
    WHY: ClassVar = "last.ckpt is one file, from which an interrupted run goes on; it takes every_n_epochs and verbose"

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """What goes on from the end of an epoch need not write that again; within one, the end is yet to come."""
        progress = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]
        if progress["processed"] > progress["completed"]:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save, unless that was done at this step."""
        if not self._should_skip_saving_checkpoint(trainer):
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))


class WithinEpoch(Last):
    """Lightning's checkpoints every so many minutes or steps, but for the last step of an epoch.

    Lightning takes a run that goes on from there to be past the epoch, and leaves out its validation; where one is due
    within an epoch, the checkpoint comes after it. Nor between two steps: gradients that were accumulated are not in a
    checkpoint. For the minutes all processes ask the first one's
    clock, which takes longer than a short step: they do so every tenth step.
    """

    FREE: ClassVar = frozenset({"train_time_interval", "every_n_train_steps", "verbose"})
    FIXED: ClassVar = {"filename": "last", "enable_version_counter": False}
    WHY: ClassVar = (
        "last.ckpt is one file, from which an interrupted run goes on; within epochs it takes train_time_interval, "
        "every_n_train_steps and verbose"
    )

    def on_train_batch_end(
        self, trainer: Any, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save, after a step and where the epoch goes on."""
        steps, left = divmod(batch_idx + 1, trainer.accumulate_grad_batches)
        if not trainer.is_last_batch and left == 0 and (self._train_time_interval is None or steps % 10 == 0):
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def _save_topk_checkpoint(self, trainer: Any, monitor_candidates: dict[str, Any]) -> None:
        loops = trainer.fit_loop
        due = trainer.training and loops.epoch_loop._should_check_val_fx(loops._data_fetcher)
        self._defer_save_until_validation = due  # Lightning's, which looks at it there
        if not due and not stops(trainer):
            super()._save_topk_checkpoint(trainer, monitor_candidates)


def in_order(callbacks: Iterable[L.Callback]) -> list[L.Callback]:
    """Callbacks such that what a run goes on from is written when every other checkpoint of that step is."""
    return sorted(callbacks, key=lambda each: isinstance(each, Best) + 2 * isinstance(each, Last))


def newest(folder: Path) -> Path | None:
    """The checkpoint of a run folder that it goes on from; None: there is none.

    That is ``last.ckpt``, which is written after all else of its step, or ``best.ckpt``, the last but one. A run
    that writes one of these and has written none has hardly begun. Where one can't be read, a warning says so, and any
    other file will do. One of weights only is none.
    """
    whole: list[tuple[bool, bool, int, Path]] = []
    damaged = False
    for path in checkpoints(folder):
        try:
            checkpoint = load_checkpoint(path)
            if "optimizer_states" in checkpoint and checkpoint.get("goes_on", True):
                first = path.stem in STARTS or checkpoint.get("alone", False)
                whole.append((first, path.stem == "last", int(checkpoint["global_step"]), path))
        except UserError as error:
            damaged = damaged or path.stem in STARTS
            log.warning("left out: %s", error)
    first, *_, path = max(whole, default=(False, Path()))
    return path if first or (damaged and whole) else None


def forget_later(folder: Path, start: Path) -> None:
    """Remove checkpoints of steps after that of another one, from which their run goes on: it will write them again.

    Under another name, as long as they were there. ``best.ckpt`` has one name, and stays until then.
    """
    steps = load_checkpoint(start)["global_step"]
    others = [path for path in checkpoints(folder) if path.stem not in STARTS]
    for path in others:
        with suppress(Exception):  # what can't be read has been told
            if load_checkpoint(path)["global_step"] > steps:
                path.unlink()
