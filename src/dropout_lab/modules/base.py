"""The base of modules: keyed masks, scheduled rates, penalties, exact sums over processes, one log call a flush."""

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, ClassVar

import lightning
import torch
from torch import Tensor, nn

from dropout_lab.dropout import MASKS_VERSION, ScheduledRates, mask_keys, rates_of, require_same_rates
from dropout_lab.dropout.graph.modes import dropout_only
from dropout_lab.modules.columns import Column
from dropout_lab.modules.divergence import DivergenceError, why_diverged
from dropout_lab.modules.length import length_of
from dropout_lab.modules.passes import first_counts
from dropout_lab.modules.penalties import Penalties
from dropout_lab.modules.sums import Mean, RowMeans, of_each_process, own_of

Loss = Tensor | tuple[Tensor, Mapping[str, Tensor]]  # what is minimised; other numbers of the step
Batch = Any  # what the data gives: most often (inputs, targets), a row a sample


class Module(lightning.LightningModule):
    """A network in training and evaluation; a subclass says what is minimised, predicted and measured.

    It overrides ``loss``, ``predict``, ``scores`` and ``columns``; what is below, all share. Logs, for each column:

        train/loss             ``loss`` and penalties of layers, dropout on, over the steps since it was last logged
        train/<name>           what else ``loss`` returns; ``penalty``: what of the loss is penalties
        val/<key>              validation part, eval mode
        train_eval/<key>       a fixed part of the training set, eval mode
        gap/<key>              val - train_eval: what the network does worse on samples that it has not seen
        test/<key>             test part, eval mode

    ``net`` alone has dropout installed, is watched, folded, and evaluated from a checkpoint. A subclass may have other
    children, as a noise scale, which are trained and saved, too; a teacher is ``Frozen``, and is not.

    Args:
        net: network with dropout installed.
        seed, keyed: draw masks as a function of (seed, layer, step, row); not keyed: from torch's generator.
        monte_carlo_samples: evaluate the mean over so many masks (Gal and Ghahramani 2016); 0: dropout off.

    Attributes:
        optimizer: of all parameters that are trained; it is set before training.
        lr_scheduler: makes a scheduler of the optimizer, or Lightning's ``{"scheduler": ..., "interval": "step"}``.
        rates: sets the drop probabilities before each training step; None: they stay.
        diverged: which loss was NaN or infinite first, and when (``ends_diverged``: raise); None: all are finite.
    """

    columns: ClassVar[tuple[Column, ...]]  # what is measured; one of them has the key "loss"
    passes = 1  # how often `loss` calls `net`; the first call alone is watched, and counts in BatchNorm's averages

    def __init__(self, net: nn.Module, seed: int = 0, keyed: bool = True, monte_carlo_samples: int = 0) -> None:
        super().__init__()
        self.net = net
        self.optimizer: torch.optim.Optimizer | None = None
        self.lr_scheduler: Callable[[torch.optim.Optimizer], Any] | None = None
        self.rates: ScheduledRates | None = None
        self._seed, self.keyed, self._monte_carlo_samples = seed, keyed, monte_carlo_samples
        self._penalties = Penalties(net)
        self._train_means: dict[str, Mean] = {}
        self._scored: defaultdict[int, RowMeans] = defaultdict(RowMeans)  # by the number of the loader
        self.last_val_loss = float("nan")
        self.diverged: str | None = None
        self.ends_diverged = False
        self.tested: dict[str, float] = {}  # of the last test; Lightning's own copy is rounded to float32

    @staticmethod
    @abstractmethod
    def outputs(data: Any) -> int:
        """How many outputs the network needs for a data set, as the class says before there is a network."""

    @abstractmethod
    def loss(self, batch: Batch) -> Loss:
        """What a training step minimises: one number for a micro-batch, dropout on, without penalties of layers.

        A dictionary of other numbers may come with it, as ``train/<name>``. Each call of the network has its own masks.
        """

    @abstractmethod
    def predict(self, x: Any) -> Any:
        """The predictive distribution for inputs, of one pass through the network."""

    @abstractmethod
    def mix(self, passes: Iterable[Any]) -> Any:
        """The predictive distribution that averages those of several passes."""

    @abstractmethod
    def scores(self, prediction: Any, batch: Batch) -> Mapping[str, Tensor]:
        """What is measured of a prediction, a row a sample: name -> (N,) or (N, k)."""

    def summarize(self, means: Mapping[str, Any]) -> Mapping[str, float]:
        """The numbers of the columns, from the mean of each score over all rows (a list where a row has several)."""
        return means

    def inputs(self, batch: Batch) -> Any:
        """What of a batch is predicted from; its length is the number of rows."""
        return batch[0]

    def monte_carlo(self, x: Any, samples: int) -> Any:
        """The predictive distribution over so many dropout masks."""
        with dropout_only(self.net, on=True):
            return self.mix([self.predict(x) for _ in range(samples)])

    def samples(self, data: Any) -> int:
        """How many the training part of a data set has, each of which counts as much in the loss."""
        return len(data.train.targets)

    def adapt_to(self, data: Any) -> None:
        """Take from a data set that is set up what the module needs to know, as the units of its targets."""

    def begin(self, data: Any) -> None:
        """Get what training alone needs, as a teacher: after ``adapt_to``, also where an interrupted run goes on."""

    def setup(self, stage: str) -> None:
        """Lightning's hook, before training or a test."""
        self.adapt_to(data := self.trainer.datamodule)  # type: ignore[attr-defined]
        if stage == "fit":
            self.begin(data)
        if self._penalties.terms:
            self._penalties.samples = self.samples(data)

    @property
    def watched(self) -> nn.Module:
        """The network whose layers are watched, and whose names they have."""
        return self.net

    @classmethod
    def monitored(cls) -> list[str]:
        """The numbers that callbacks can monitor: known after each validation."""
        return ["train/loss", *(f"{part}/{each.key}" for part in ("val", "train_eval", "gap") for each in cls.columns)]

    @contextmanager
    def masks(self, batch_idx: int, rows: int) -> Iterator[None]:
        """Train within this context: drop probabilities and masks are those of a micro-batch.

        For a ``training_step`` of one's own. What is noted within is logged where it ends, one step in so many.

        Args:
            batch_idx: as Lightning counts, in the epoch.
            rows: how many of the batch this process has.
        """
        steps = int(self.trainer.num_training_batches)
        step, first = self.trainer.current_epoch * steps + batch_idx, self.trainer.global_rank * rows
        if self.rates is not None:
            total = length_of(self.trainer).batches
            self.rates.set(min(step, total), total)  # steps of one's own may come less often than batches
        counted = first_counts(self.net) if self.passes > 1 else nullcontext()
        with mask_keys(self._seed, step, range(first, first + rows)) if self.keyed else nullcontext(), counted:
            yield
        if (batch_idx + 1) % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self._write(self._take_train_means())

    def note(self, **numbers: Tensor) -> None:
        """Log numbers of a step as ``train/<name>``: their means since they were last logged."""
        for name, value in numbers.items():
            self._train_means.setdefault(name, Mean()).add(value.detach())

    def forward(self, x: Tensor) -> Tensor:
        """The network's output for a batch."""
        return self.net(x)  # type: ignore[no-any-return]

    def configure_optimizers(self) -> tuple[list[torch.optim.Optimizer], list[Any]]:
        """The optimizer and its scheduler, as Lightning wants them."""
        assert self.optimizer is not None, "training needs an optimizer"
        return [self.optimizer], [self.lr_scheduler(self.optimizer)] if self.lr_scheduler else []

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save what the weights were trained with, and within an epoch what of its steps is not logged yet."""
        checkpoint["dropout_rates"] = rates_of(self.net)
        checkpoint["masks_version"], checkpoint["diverged"] = MASKS_VERSION, self.diverged
        kept = self._train_means.items()
        checkpoint["train_means"] = {k: {"sum": of_each_process(v.sum), "count": v.count} for k, v in kept}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on adding up where the checkpoint was made.

        Raises:
            ValueError: the weights belong to another p of classic dropout.
        """
        require_same_rates(self.net, checkpoint.get("dropout_rates", rates_of(self.net)))
        here = self.trainer.global_rank, self.trainer.world_size
        kept = checkpoint.get("train_means", {})
        self._train_means = {name: Mean(own_of(kept[name]["sum"], *here), kept[name]["count"]) for name in kept}
        self.diverged = self.diverged or checkpoint.get("diverged")

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of one micro-batch, dropout on, with the penalties of layers."""
        with self.masks(batch_idx, len(self.inputs(batch))):
            result = self.loss(batch)
            loss, numbers = result if isinstance(result, tuple) else (result, {})
            self.note(loss=(loss := self.penalized(loss)), **numbers)
        return loss

    def penalized(self, loss: Tensor) -> Tensor:
        """The loss of a step with what dropout layers add to it (``train/penalty``), in ``masks``."""
        if not self._penalties.terms:
            return loss
        self.note(penalty=(penalty := self._penalties.total()))
        return loss + penalty

    def on_train_epoch_end(self) -> None:
        """Log the rest of the epoch's training loss, where no validation did."""
        self._write(self._take_train_means())

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Add a batch of the validation part (loader 0) or of the training set (loader 1)."""
        self._add(batch, self.trainer.val_dataloaders[dataloader_idx], batch_idx, dataloader_idx)  # type: ignore[index]

    def on_validation_epoch_end(self) -> None:
        """Log what was measured of both parts, and the gap between them."""
        val, train = self._take_metrics(0), self._take_metrics(1)
        if self.trainer.sanity_checking:
            return
        metrics = self._take_train_means()
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

    def _write(self, metrics: dict[str, float]) -> None:
        """One row for every logger. ``self.log`` would cost 0.4 ms in every step, logged or not."""
        for logger in self.loggers if metrics else ():
            logger.log_metrics({"epoch": self.current_epoch, **metrics}, step=self.trainer.global_step)
        self.diverged = self.diverged or why_diverged(metrics, self.trainer)
        if self.diverged and self.ends_diverged:
            raise DivergenceError(self.diverged)

    def _take_train_means(self) -> dict[str, float]:
        """Means over the steps since the last call, nothing if there were none."""
        means, self._train_means = self._train_means, {}
        reduce = self.trainer.strategy.reduce
        return {f"train/{name}": float(reduce(mean.sum / mean.count, reduce_op="mean")) for name, mean in means.items()}

    def _add(self, batch: Batch, loader: Any, batch_idx: int, part: int) -> None:
        """Add up what is measured of a batch."""
        x, samples = self.inputs(batch), self._monte_carlo_samples
        # A sample has the masks of its place in the data, whatever batch of whatever process it is in.
        with mask_keys(self._seed, 0, loader.sampler[batch_idx]) if self.keyed and samples else nullcontext():
            prediction = self.monte_carlo(x, samples) if samples else self.predict(x)
        self._scored[part].add(self.scores(prediction, batch))

    def _take_metrics(self, part: int) -> dict[str, float]:
        """The numbers of the columns over every row of a part on all processes; the sums start anew."""
        numbers = self.summarize(self._scored.pop(part).take(self.trainer.strategy.reduce))
        return {key: numbers[key] for key in numbers if key in {column.key for column in self.columns}}
