"""The base of modules: keyed masks, scheduled rates, penalties, exact sums over processes, one log call a flush."""

from abc import abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import lightning
import torch
from torch import Tensor, nn

from dropout_lab.dropout import MASKS_VERSION, ScheduledRates, mask_keys, rates_of, require_same_rates

Batch = tuple[Tensor, Tensor]


class Module(lightning.LightningModule):
    """A network in training and evaluation; a subclass says what is minimised (``loss``) and measured (``sums``).

    Logs, for each name in ``measured``:

        train/loss             ``loss`` and penalties of layers, dropout on, over the steps since it was last logged
        val/<name>             validation part, eval mode
        train_eval/<name>      a fixed part of the training set, eval mode
        gap/<name>             val - train_eval: what the network does worse on samples that it has not seen
        test/<name>            test part, eval mode

    Args:
        net: network with dropout installed.
        optimizer: of the network's parameters; needed for training only.
        lr_scheduler: makes the learning-rate scheduler from the optimizer; stepped once an epoch.
        rates: sets the drop probabilities before each training step; None: they stay.
        seed: of the masks.
        keyed: draw masks as a function of (seed, layer, step, row); otherwise from torch's generator.
        monte_carlo_samples: average the predictions of so many dropout masks in evaluation (Gal and Ghahramani 2016);
            0: dropout off.
    """

    measured: ClassVar[tuple[str, ...]]  # names of what `sums` adds up; "loss" is among them

    def __init__(
        self,
        net: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        lr_scheduler: Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler] | None = None,
        rates: ScheduledRates | None = None,
        seed: int = 0,
        keyed: bool = True,
        monte_carlo_samples: int = 0,
    ) -> None:
        super().__init__()
        self.net = net
        self._optimizer, self._lr_scheduler, self._rates = optimizer, lr_scheduler, rates
        self._seed, self._keyed, self._monte_carlo_samples = seed, keyed, monte_carlo_samples
        self._penalties: list[Any] = [layer.penalty for layer in net.modules() if hasattr(layer, "penalty")]
        self._train_loss = _Mean()
        self._eval_sums: dict[int, Tensor] = {}
        self.last_val_loss = float("nan")
        self.tested: dict[str, float] = {}  # of the last test; Lightning's own copy is rounded to float32

    @abstractmethod
    def loss(self, batch: Batch) -> Tensor:
        """What a training step minimises: one number for a micro-batch, dropout on, without penalties of layers."""

    @abstractmethod
    def sums(self, batch: Batch) -> Tensor:
        """What is measured of a batch in eval mode: a sum over its rows for each of ``measured``, and their number."""

    def forward(self, x: Tensor) -> Tensor:
        """The network's output for a batch."""
        return self.net(x)  # type: ignore[no-any-return]

    def configure_optimizers(self) -> tuple[list[torch.optim.Optimizer], list[torch.optim.lr_scheduler.LRScheduler]]:
        """The optimizer and its scheduler, as Lightning wants them."""
        assert self._optimizer is not None, "training needs an optimizer"
        return [self._optimizer], [self._lr_scheduler(self._optimizer)] if self._lr_scheduler else []

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save what the weights were trained with, and within an epoch the loss of steps that is not logged yet."""
        checkpoint["dropout_rates"] = rates_of(self.net)
        checkpoint["masks_version"] = MASKS_VERSION
        if self._train_loss.count:
            mean = self.trainer.strategy.reduce(self._train_loss.sum, reduce_op="mean")
            checkpoint["train_loss"] = {"sum": mean.cpu(), "count": self._train_loss.count}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on adding up where the checkpoint was made.

        Raises:
            ValueError: the weights belong to another p of classic dropout.
        """
        require_same_rates(self.net, checkpoint.get("dropout_rates", rates_of(self.net)))
        kept = checkpoint.get("train_loss", {"sum": None, "count": 0})
        self._train_loss.sum, self._train_loss.count = kept["sum"], kept["count"]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of one micro-batch, dropout on, with the penalties of layers."""
        steps = int(self.trainer.num_training_batches)
        step = self.trainer.current_epoch * steps + batch_idx
        if self._rates is not None and self.trainer.max_epochs is not None:
            self._rates.set(step, self.trainer.max_epochs * steps)
        with self._masks(step, len(batch[0])):
            loss = self.loss(batch)
        for penalty in self._penalties:
            loss = loss + penalty()
        self._train_loss.add(loss.detach())
        if (batch_idx + 1) % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self._write(self._take_train_loss())
        return loss

    def on_train_epoch_end(self) -> None:
        """Log the rest of the epoch's training loss, where no validation did."""
        self._write(self._take_train_loss())

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Add a batch of the validation part (loader 0) or of the training set (loader 1)."""
        self._add(batch, self.trainer.val_dataloaders[dataloader_idx], batch_idx, dataloader_idx)  # type: ignore[index]

    def on_validation_epoch_end(self) -> None:
        """Log what was measured of both parts, and the gap between them."""
        val, train = self._take_metrics(0), self._take_metrics(1)
        if self.trainer.sanity_checking:
            return
        metrics = self._take_train_loss()
        for key in val:
            metrics |= {f"val/{key}": val[key], f"train_eval/{key}": train[key], f"gap/{key}": val[key] - train[key]}
        self.last_val_loss = val["loss"]
        self.log_dict(metrics, logger=False, sync_dist=True)  # for callbacks; Lightning warns unless told to sync
        self._write(metrics)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch of the test part."""
        self._add(batch, self.trainer.test_dataloaders, batch_idx, 0)

    def on_test_epoch_end(self) -> None:
        """Log what was measured of the test part."""
        self.tested = {f"test/{key}": value for key, value in self._take_metrics(0).items()}
        self.log_dict(self.tested, logger=False, sync_dist=True)
        self._write(self.tested)

    def _masks(self, step: int, rows: int) -> AbstractContextManager[None]:
        """Keys of the masks of this process's rows of a batch."""
        if not self._keyed:
            return nullcontext()
        first = self.trainer.global_rank * rows
        return mask_keys(self._seed, step, range(first, first + rows))

    def _write(self, metrics: dict[str, float]) -> None:
        """One row for every logger. ``self.log`` would cost 0.4 ms in every step, logged or not."""
        if metrics:
            for logger in self.loggers:
                logger.log_metrics({"epoch": self.current_epoch, **metrics}, step=self.trainer.global_step)

    def _take_train_loss(self) -> dict[str, float]:
        """Mean over the steps since the last call, nothing if there were none."""
        if not self._train_loss.count:
            return {}
        return {"train/loss": float(self.trainer.strategy.reduce(self._train_loss.take(), reduce_op="mean"))}

    def _add(self, batch: Batch, loader: Any, batch_idx: int, part: int) -> None:
        """Add up what is measured of a batch."""
        # A sample has the masks of its place in the data, whatever batch of whatever process it is in.
        keyed = self._keyed and self._monte_carlo_samples
        with mask_keys(self._seed, 0, loader.sampler[batch_idx]) if keyed else nullcontext():
            sums = self.sums(batch)
        self._eval_sums[part] = self._eval_sums[part] + sums if part in self._eval_sums else sums

    def _take_metrics(self, part: int) -> dict[str, float]:
        """Means over every sample of a part on all processes; the sums start anew."""
        *sums, count = self.trainer.strategy.reduce(self._eval_sums.pop(part), reduce_op="sum").tolist()
        return {name: value / count for name, value in zip(self.measured, sums, strict=True)}


class _Mean:
    """A mean that stays on the device until it is asked for."""

    def __init__(self) -> None:
        self.sum: Tensor | None = None
        self.count = 0

    def add(self, value: Tensor) -> None:
        """Count a value."""
        self.sum = value if self.sum is None else self.sum.to(value.device) + value
        self.count += 1

    def take(self) -> Tensor:
        """The mean of the values so far, which are forgotten."""
        assert self.sum is not None
        mean = self.sum / self.count
        self.sum, self.count = None, 0
        return mean
