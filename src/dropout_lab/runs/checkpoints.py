"""Checkpoints that a kill cannot break, and the newest one of a run that is whole."""

import inspect
import logging
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn

from dropout_lab.models.weights import why_unread
from dropout_lab.runs.atomic import replacing, write_whole
from dropout_lab.runs.folder import CHECKPOINTS, TABLES, checkpoints

log = logging.getLogger(__name__)

NAMES = ("best", "last")  # of the checkpoints that every run has


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, forces it onto the disk and renames it.

    Lightning writes to the temporary folder and moves the file, which is a copy where that folder is another file
    system: a kill then leaves a part of it and nothing of the old one.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint; the old file is there until the new one is whole."""
        try:
            with replacing(Path(path)) as file:
                torch.save(checkpoint, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # torch says "unexpected pos" where the disk is full
                raise error.__context__ from None
            raise


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
        if "filename" in self.FREE and options.get("filename") in NAMES:
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

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """What is known of each file holds for the one of that name in the folder as it is called now."""
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


class EndOfEpoch(Checkpoint):
    """Lightning's checkpoints at the end of each epoch, and at the end of training where that epoch's is missing.

    A run that was killed after its last validation, and before this checkpoint, goes on from the best one: Lightning
    sees nothing left to train, and calls no hook of an epoch's end.
    """

    FREE: ClassVar = frozenset({"every_n_epochs", "verbose"})
    FIXED: ClassVar = {"filename": "last", "save_on_train_epoch_end": True, "enable_version_counter": False}
    WHY: ClassVar = "last.ckpt is one file, from which an interrupted run goes on; it takes every_n_epochs and verbose"

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save, unless that was done at this step."""
        if not self._should_skip_saving_checkpoint(trainer):
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))


class WithinEpoch(Checkpoint):
    """Lightning's checkpoints every so many minutes or steps, but for the last step of an epoch.

    Lightning takes a run that goes on from there to be past the epoch, and leaves out its validation. Nor between two
    steps: gradients that were accumulated are not in a checkpoint. For the minutes all processes ask the first one's
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


class Resume(L.Callback):
    """Puts into each checkpoint how long the run's tables are, and cuts them to that length when training goes on.

    What was logged after the checkpoint is logged again. Steps can't tell the two apart: an epoch's last row and the
    next epoch's first may have the same.

    Lightning takes up its loops with ``max_steps`` in another way than without, and wrongly: an epoch that was complete
    counts twice, so that the next has the batches of the one after it. Until training starts there is no such limit.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._max_steps = -1

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the limit of steps away while the loops are taken up."""
        self._max_steps, trainer.fit_loop.epoch_loop.max_steps = trainer.max_steps, -1

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Give the limit back."""
        trainer.fit_loop.epoch_loop.max_steps = self._max_steps

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Lines of each table."""
        checkpoint["lines"] = {name: _lines(self.folder / name) for name in TABLES}

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Cut the tables; only the process that writes them has to.

        Not when the best checkpoint is loaded to be tested: what was logged after it stands.
        """
        if trainer.state.fn == TrainerFn.FITTING and trainer.is_global_zero:
            for name, count in checkpoint["lines"].items():
                _cut(self.folder / name, count)


def newest(folder: Path) -> Path | None:
    """The checkpoint of a run folder with the most steps among those that can be read; None: there is none.

    One that can't be read is named in a warning: it is truncated, or no checkpoint. One of weights only is none.
    """
    whole: list[tuple[int, bool, Path]] = []
    for path in checkpoints(folder):
        try:
            checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            # Of two with equally many steps the last was written later: it knows how the epoch ended.
            if "optimizer_states" in checkpoint:
                whole.append((int(checkpoint["global_step"]), path.stem == "last", path))
        except Exception as error:  # whatever a broken file makes of the reader
            log.warning("%s cannot be read and is left out: %s", path, why_unread(error))
    return max(whole)[2] if whole else None


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
