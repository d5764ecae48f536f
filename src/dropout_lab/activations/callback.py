"""The Lightning callback that logs statistics of activations, in train and in eval and on the same inputs."""

import time
from collections.abc import Sequence
from math import inf
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.strategies import FSDPStrategy
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from dropout_lab.activations import records
from dropout_lab.activations.caveats import caveats, switched_off
from dropout_lab.activations.meter import Meter
from dropout_lab.activations.probe import KeptBatch
from dropout_lab.activations.taps import chosen_for_loggers, model_of, taps_of

APART = 30.0  # seconds between pictures


class ActivationStats(L.Callback):
    """A callback that logs, at the end of every validation (or training) epoch, for each watched layer:

    =====================================  ===============================================================
    ``activation_mean_train/<layer>``      mean over all elements of the sampled training batches
    ``activation_mean_eval/<layer>``       the same over the whole validation set (its first loader)
    ``activation_std_<mode>/<layer>``      standard deviation
    ``activation_zeros_<mode>/<layer>``    fraction of exact zeros
    ``dropout_gain_<mode>/<layer>``        mean out / mean in; NaN where that is the ratio of noise
    ``activation_shift/<layer>``           (mean_train - mean_eval) / std_eval, on the same inputs (the probe)
    ``activation_ratio/<layer>``           mean_train / mean_eval on the same inputs, where never negative
    ``activation_variance_ratio/<layer>``  var_train / var_eval on the same inputs, where a BatchNorm reads it
    ``dropout_p/<layer>``                  drop probability of a dropout layer at that moment
    =====================================  ===============================================================

    ``<layer>`` is ``03_block1_dropout``, and ``03_block1_dropout_in`` for the input of a dropout layer, which alone has
    a gain; a second call of a module in one forward pass is a layer of its own. All processes are counted together.
    That is 7 to 9 keys for each tensor (12 for the output of a dropout layer) and at most 1000 keys in all: of more
    than ``max_layers`` tensors the loggers get the dropout layers and evenly spaced others.

    The same numbers of every tensor, with their standard errors, go to the file at ``path``. W&B also gets two pictures
    of them at the end and after each quarter of the epochs (which take 0.2 s, so not more often than every 30 s), and
    in its summary ``final/gain_train``, ``final/gain_eval`` and ``final/ratio`` of the last dropout layer. Batches of
    the sanity check, of ``trainer.test`` and of further validation loaders are not counted.

    Args:
        every_n_steps: count one in so many training batches, beginning with the first of each epoch.
        probe_masks: dropout masks of the probe, which runs the first validation batch with and without dropout after
            each validation; 0 turns it off. It needs batches that are a tensor or begin with one, ``(x, y)``.
        probe_size: how many samples of that batch. Processes share it as they share batches of this package's data,
            contiguous rows each: the probe is the same at any number of them.
        layers: shell patterns on names or module paths, ``["*relu*", "features.3"]``; default: dropout layers,
            activations, convolutions and Linear.
        max_layers: how many tensors go to the loggers (a dropout layer has two, its input and its output); None: all.
        path: of the CSV file with all numbers; None: none is written, and W&B gets no pictures.

    Raises:
        ValueError: ``every_n_steps`` or ``probe_size`` is no integer >= 1, ``max_layers`` none >= 2, ``probe_masks``
            none >= 0; at the start of the trainer, a pattern that matches no layer.
    """

    def __init__(
        self,
        every_n_steps: int = 50,
        probe_masks: int = 4,
        probe_size: int = 64,
        layers: Sequence[str] | None = None,
        max_layers: int | None = 100,
        path: str | Path | None = None,
    ) -> None:
        for key, value, least in (
            ("every_n_steps", every_n_steps, 1),
            ("probe_masks", probe_masks, 0),
            ("probe_size", probe_size, 1),
            ("max_layers", max_layers, 2),
        ):
            null = key == "max_layers"
            fits = null if value is None else isinstance(value, int) and not isinstance(value, bool) and value >= least
            if not fits:
                raise ValueError(f"{key}={value}: must be an integer >= {least}" + ", or null" * null)
        self.every_n_steps, self.probe_masks, self.probe_size = every_n_steps, probe_masks, probe_size
        self.layers, self.max_layers, self.path = layers, max_layers, Path(path) if path else None
        self.meter = Meter([])
        self._for_loggers: set[str] = set()
        self._kept = KeptBatch(probe_masks, probe_size, self._warn)
        self._warned: set[str] = set()
        self._drawn = -inf  # when the last pictures were, by time.monotonic()
        self._final: dict[str, float] = {}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Attach the hooks: before the first call of a compiled model, so before the sanity check."""
        if stage in ("fit", "validate"):
            self._attach(trainer, pl_module)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Attach the hooks to models that were built in their own ``setup`` or ``configure_model``."""
        if not self.meter.taps:
            self._attach(trainer, pl_module)

    on_validation_start = on_fit_start

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Warn of what is not logged, and of dropout that is off: Lightning trains modules in the mode they are in."""
        self._drawn = time.monotonic()
        if not self.meter.taps:
            self._warn("the model has no dropout, activation, convolution or Linear module, so nothing is logged")
        if len(self._for_loggers) < len(self.meter.taps):
            self._warn(
                f"of {len(self.meter.taps)} watched tensors the loggers get {len(self._for_loggers)} (max_layers): "
                "dropout layers and evenly spaced others" + (f"; {self.path.name} has all" if self.path else "")
            )
        if off := switched_off(self.meter.taps):
            rank_zero_warn(
                f"training starts with dropout off: {', '.join(off)} in eval mode; "
                "call model.train() before trainer.fit, or set p=0 if that is what you want"
            )

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Count one training batch in N; of several passes in a step (``passes``) the first."""
        if batch_idx % self.every_n_steps == 0:
            self.meter.start("train", until=model_of(pl_module) if getattr(pl_module, "passes", 1) > 1 else None)

    def on_train_batch_end(self, *_: Any) -> None:
        """Add up what the batch gave."""
        self.meter.stop()

    def on_validation_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Count every batch of the first loader, and keep the first one for the probe."""
        if trainer.sanity_checking or dataloader_idx != 0:
            return
        if batch_idx == 0 and self.probe_masks:
            self._kept.keep(batch)
        self.meter.start("eval")

    def on_validation_batch_end(self, *_: Any) -> None:
        """Add up what the batch gave."""
        self.meter.stop()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log both modes and the probe."""
        if not trainer.sanity_checking:
            self._flush(trainer, pl_module, self._probe(trainer, pl_module) if self.probe_masks else None)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log training alone, where no validation has done it; pictures after each quarter of the epochs."""
        if self.meter.batches["train"]:
            self._flush(trainer, pl_module, None)
        done, total = trainer.current_epoch + 1, trainer.max_epochs or 0
        quarter = done < total and 4 * done // total > 4 * (done - 1) // total
        if quarter and time.monotonic() - self._drawn >= APART:
            self._draw(trainer)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save what was counted and not yet logged, for checkpoints within an epoch, and the summary's last numbers."""
        checkpoint["activation_stats"] = self.meter.state()
        checkpoint["activation_final"] = self._final

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Go on counting from a checkpoint where training goes on; validating or testing one begins at nothing."""
        state = checkpoint.get("activation_stats")
        if state and trainer.state.fn == TrainerFn.FITTING:
            self.meter.load_state(state)
            self._final = dict(checkpoint.get("activation_final", {}))

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Give W&B pictures of the whole run and its last numbers."""
        self._draw(trainer)
        for logger in self._wandb(trainer) if self._final else ():
            logger.experiment.summary.update(self._final)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Leave the model without hooks after an error, too: Lightning calls no teardown then."""
        self.meter.detach()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Leave the model without hooks."""
        self.meter.detach()

    def _attach(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        taps = taps_of(model_of(pl_module), self.layers)
        # The same meter as before where nothing has changed: a compiled model knows that one's hooks.
        if taps != self.meter.taps:
            self.meter.detach()
            self.meter = Meter(taps, device=trainer.strategy.root_device)
            self._for_loggers = chosen_for_loggers(taps, self.max_layers)
        self.meter.attach()

    def _flush(self, trainer: L.Trainer, pl_module: L.LightningModule, probed: Tensor | None) -> None:
        readings = self.meter.flush(probed)
        if not trainer.is_global_zero:
            return
        rows = records.rows(readings, trainer.global_step, trainer.current_epoch)
        if not rows:
            return
        if readings.batches["train"]:
            rows += records.rates(self.meter.taps, trainer.global_step, trainer.current_epoch)
        if self.path:
            records.append(self.path, rows)
        before_norm = {tap.name for tap in self.meter.taps if tap.before_norm}
        logged = [row for row in rows if row.layer in self._for_loggers]
        metrics = {key: row.value for row in logged if (key := records.key(row, before_norm))}
        metrics["epoch"] = trainer.current_epoch
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=trainer.global_step)
        self._final |= records.final(rows)
        for caveat in caveats(self.meter, readings, pl_module):
            self._warn(caveat)

    def _probe(self, trainer: L.Trainer, pl_module: L.LightningModule) -> Tensor:
        """The sums of the probe of the batch that was kept, in the precision of training."""
        model = pl_module if type(pl_module).forward is not L.LightningModule.forward else model_of(pl_module)
        if isinstance(trainer.strategy, FSDPStrategy):  # only the wrapper puts sharded weights together
            model = trainer.strategy.model or model
        first = _rows_before(trainer, self._kept.rows)
        with trainer.precision_plugin.forward_context():
            return self._kept.probe(self.meter, model, trainer.global_step, first)

    def _draw(self, trainer: L.Trainer) -> None:
        """Give W&B pictures of what was written to the file so far."""
        loggers = self._wandb(trainer)
        if not (loggers and self.path and self.path.exists()):
            return
        from dropout_lab.activations import pictures

        self._drawn = time.monotonic()
        drawn = {
            "activation_pictures/profile": pictures.profile(self.path),
            "activation_pictures/shift": pictures.heatmap(self.path),
        }
        for logger in loggers:
            try:
                logger.experiment.log({**drawn, "trainer/global_step": trainer.global_step})
            except OSError as error:  # a full disk is no reason to lose the run
                self._warn(f"W&B cannot store the pictures: {error.strerror or error}")

    def _wandb(self, trainer: L.Trainer) -> list[WandbLogger]:
        """The W&B loggers of the first process; none in the others."""
        loggers = trainer.loggers if trainer.is_global_zero else []
        return [logger for logger in loggers if isinstance(logger, WandbLogger)]

    def _warn(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            rank_zero_warn(f"ActivationStats: {text}")


def _rows_before(trainer: L.Trainer, rows: int) -> int:
    """The number of rows that the processes before this one have; a collective call."""
    counts = torch.zeros(trainer.world_size, dtype=torch.int64, device=trainer.strategy.root_device)
    counts[trainer.global_rank] = rows
    return int(trainer.strategy.reduce(counts, reduce_op="sum")[: trainer.global_rank].sum())
