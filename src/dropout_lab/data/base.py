"""The base of data modules: three parts of samples, and one rule for making batches of them.

A data set whose test part is given subclasses ``DataModule`` and returns its ``parts()``; one that is a single whole
subclasses ``Undivided`` and returns its samples from ``load()``.
"""

from abc import abstractmethod
from collections.abc import Iterable
from math import ceil
from typing import Any, NamedTuple

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from dropout_lab.data.batches import GlobalBatches, ResumableLoader
from dropout_lab.data.rules import is_integer, require, require_integer, require_share
from dropout_lab.data.samples import Rows, Samples, mislabel, require_targets, split, split_off_fold, subset
from dropout_lab.jobs.forkserver import end_with_parent, import_beforehand, server

import_beforehand(__name__)  # workers that read ahead are forks


class Place(NamedTuple):
    """Where in training this process's rows of a batch are: what is drawn for them is a function of it and the seed."""

    epoch: int
    batch: int  # in the epoch
    first_row: int  # position in the global batch of the first of the rows


class DataModule(lightning.LightningDataModule):
    """Training, validation and test parts of a data set, their targets classes or numbers.

    The split has a seed of its own, so that every run of a comparison is judged on the same samples; with classes it
    is stratified. ``train_eval`` is a fixed part of the training set, as large as the validation part, to measure the
    generalisation gap in eval mode.

    Args:
        batch_size: training batch over all devices.
        seed: order of the training batches, and what is drawn for them.
        split_seed: which samples are in which part, and which have a wrong label.
        val_fraction: of the samples that are no test samples by themselves.
        train_size: use so many training samples, classes balanced; a smaller one is part of a larger one; None: all.
        label_noise: fraction of the training samples that get a wrong class, in ``train`` and ``train_eval``.
        folds: k of a cross-validation: ``fold`` 0 <= fold < k of all samples is the test part; where that is given, the
            validation part. Shuffled by ``split_seed``, stratified as a split is. None: the parts are fractions.
        fold: which one.
        one_batch: train on one batch of samples alone, the same in every step and as they are: a network should learn
            them by heart.

    Attributes:
        num_classes: how many classes there are; None: targets are numbers (N, num_targets), floating point.
        num_targets: how many numbers a target has.
        of_tokens: whether a sample is a sequence of tokens, with a class for each as its target.

    Raises:
        ValueError: an argument that is not what it is said to be here; fewer training samples than a batch. On
            ``setup``: more training samples than there are, fewer than classes; a fraction that leaves a part without
            samples of every class; a class that is not among ``num_classes``, a target that is no number; label noise
            where there are no classes.
    """

    num_classes: int | None = None
    num_targets = 1
    of_tokens = False
    num_workers = 0  # processes that read ahead

    def __init__(
        self,
        batch_size: int,
        seed: int,
        split_seed: int = 0,
        val_fraction: float = 0.15,
        train_size: int | None = None,
        label_noise: float = 0.0,
        folds: int | None = None,
        fold: int = 0,
        one_batch: bool = False,
    ) -> None:
        super().__init__()
        seed_fits = is_integer(split_seed) and 0 <= split_seed < 2**32
        require("split_seed", split_seed, seed_fits, "an integer with 0 <= split_seed < 2^32")
        require_share("val_fraction", val_fraction, ends=False)
        require_integer("train_size", train_size, 1, null=True)
        if train_size is not None and train_size < batch_size:
            raise ValueError(
                f"data.train_size={train_size}: must be at least data.batch_size={batch_size}: no full batch"
            )
        require_share("label_noise", label_noise)
        require_integer("folds", folds, 2, null=True)
        fold_fits = is_integer(fold) and 0 <= fold < (folds or 1)
        allowed = f"an integer with 0 <= fold < {folds}" if folds else "0 without data.folds=K, the number of folds"
        require("fold", fold, fold_fits, allowed)
        require("one_batch", one_batch, isinstance(one_batch, bool), "true or false")
        self.batch_size, self.seed, self.split_seed = batch_size, seed, split_seed
        self.val_fraction, self.label_noise = val_fraction, label_noise
        self.train_size = batch_size if one_batch else train_size
        self.folds, self.fold, self.one_batch = folds, fold, one_batch
        self.train: Samples | None = None
        self._folded = False

    @abstractmethod
    def parts(self) -> tuple[Samples, Samples, Samples]:
        """Training, validation and test samples; test samples have no part in any choice.

        Training samples come in random order: the first ones stand for all in ``train_eval`` and under ``train_size``.
        """

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of what the model sees of a sample."""

    @abstractmethod
    def prepare(self, inputs: Tensor) -> Tensor:
        """Inputs as they are kept (N, ...) to inputs as the model sees them (N, *shape), on their device."""

    def learn(self, train: Samples) -> None:
        """Take from the training samples what ``prepare`` needs, as means and standard deviations."""

    def training_batch(self, inputs: Tensor, targets: Tensor, place: Place) -> tuple[Tensor, Tensor]:
        """A batch in training, as the model and its loss see it; what is drawn for it depends on seed and place."""
        return self.prepare(inputs), targets

    def measured_batch(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """A batch in evaluation, as the model and its scores see it."""
        return self.prepare(inputs), targets

    def limited(self, train: Samples) -> Samples:
        """As many of the training samples as ``train_size`` says."""
        return train if self.train_size is None else subset(train, self.train_size, self.num_classes)

    def suit(self, channels: int | None, image_size: int) -> None:
        """Take the channels and the size of images that a model wants, where they were left open."""
        raise ValueError(f"the model takes images, but samples of {type(self).__name__} have the shape {self.shape}")

    def setup(self, stage: str | None = None) -> None:
        """Load the data and split it; called by Lightning on every process."""
        if self.train is not None:
            return
        train, self.val, self.test = self.parts()
        given = f"null: {type(self).__name__} says itself what training, validation and test part are"
        require("folds", self.folds, self._folded or not self.folds, given)
        require_targets(type(self).__name__, self.num_classes, train, self.val, self.test)
        train = self.limited(train)
        self.learn(train)
        self.train = mislabel(train, self.label_noise, self.num_classes, self.split_seed)
        self.train_eval = self.train.take(slice(len(self.val.targets)))

    def on_after_batch_transfer(self, batch: tuple[Tensor, Tensor], dataloader_idx: int) -> tuple[Tensor, Tensor]:
        """Prepare a batch on the device: Lightning's hook."""
        (inputs, targets), trainer = batch, self.trainer
        floating = inputs.is_floating_point()
        if trainer is not None and trainer.training and not self.one_batch:
            number = trainer.fit_loop.epoch_loop.batch_idx + 1  # Lightning counts the batch after this hook
            place = Place(trainer.current_epoch, number, trainer.global_rank * len(inputs))
            inputs, targets = self.training_batch(inputs, targets, place)
        else:
            inputs, targets = self.measured_batch(inputs, targets)
        if trainer is not None and not floating:  # others Lightning has converted already
            inputs = trainer.precision_plugin.convert_input(inputs)
        return inputs, targets

    def example(self, rows: int = 2, training: bool = False) -> tuple[Tensor, Tensor]:
        """The first samples as a batch in evaluation, or as one in training."""
        assert self.train is not None, "setup comes first"
        samples = self.train.take(slice(rows))
        if training and not self.one_batch:
            return self.training_batch(samples.inputs[:], samples.targets, Place(0, 0, 0))
        return self.measured_batch(samples.inputs[:], samples.targets)

    def train_dataloader(self) -> "DataLoader[tuple[Tensor, ...]]":
        """Training batches (inputs, targets), of this process's rows."""
        assert self.train is not None, "setup() comes first"
        batches = GlobalBatches(len(self.train.targets), self.batch_size, self.seed, *self._place())
        return self._loader(ResumableLoader, self.train, batches)

    def val_dataloader(self) -> "list[DataLoader[tuple[Tensor, ...]]]":
        """Loaders of the validation part, and of the part of the training set that is measured in eval mode."""
        return [self._eval_loader(self.val), self._eval_loader(self.train_eval)]

    def test_dataloader(self) -> "DataLoader[tuple[Tensor, ...]]":
        """Batches (inputs, targets) of the test part."""
        return self._eval_loader(self.test)

    def without_val(self, rest: Samples) -> tuple[Samples, Samples]:
        """Training and validation part of what is not the test part, which is given: a fold, or a fraction."""
        return self.split_off_fold(rest) if self.folds else self.split(rest, "val_fraction", len(rest.targets))

    def split(self, samples: Samples, key: str, of: int) -> tuple[Samples, Samples]:
        """Two parts of samples, the second a fraction ``data.<key>`` of so many."""
        require_targets(type(self).__name__, self.num_classes, samples)
        return split(samples, key, getattr(self, key), of, self.num_classes, self.split_seed, self.name_of_class)

    def split_off_fold(self, samples: Samples) -> tuple[Samples, Samples]:
        """Two parts of samples, the second the fold that was asked for."""
        assert self.folds is not None
        self._folded = True
        require_targets(type(self).__name__, self.num_classes, samples)
        return split_off_fold(samples, self.folds, self.fold, self.num_classes, self.split_seed)

    def name_of_class(self, number: int) -> str:
        """What messages call a class."""
        return f"class {number}"

    def _eval_loader(self, samples: Samples) -> "DataLoader[tuple[Tensor, ...]]":
        """A loader of every sample once, in equally many batches on each process: under FSDP they meet in each.

        As in training, the processes share each global batch, contiguous rows each; the first ones may have one more.
        """
        rank, world = self._place()
        size = len(samples.targets)
        batches = torch.arange(size).tensor_split(ceil(size / (4 * self.batch_size)))
        return self._loader(DataLoader, samples, [batch.tensor_split(world)[rank] for batch in batches])

    def _loader(self, kind: type[DataLoader[Any]], samples: Samples, batches: Iterable[Tensor]) -> DataLoader[Any]:
        """A loader of the given batches of indices. Its generator is its own, as each pass over a loader draws."""
        return kind(
            Rows(samples),
            sampler=batches,
            batch_size=None,
            generator=torch.Generator(),
            num_workers=self.num_workers,
            multiprocessing_context=server() if self.num_workers else None,
            persistent_workers=self.num_workers > 0,
            worker_init_fn=end_with_parent,  # torch looks at the process that forked it, which is the server
        )

    def _place(self) -> tuple[int, int]:
        """(number of this process, number of processes)."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)


class Undivided(DataModule):
    """A data set in memory, of which a part is put aside as the test part.

    Args:
        test_fraction: of all samples, as ``val_fraction`` here.
        arguments: as for :class:`DataModule`.
    """

    def __init__(self, *, test_fraction: float = 0.3, **arguments: Any) -> None:
        super().__init__(**arguments)
        require_share("test_fraction", test_fraction, ends=False)
        self.test_fraction = test_fraction

    @abstractmethod
    def load(self) -> Samples:
        """All samples of the data set."""

    def parts(self) -> tuple[Samples, Samples, Samples]:
        """Training, validation and test samples, cut from all of them."""
        samples = self.load()
        size = len(samples.targets)
        rest, test = self.split_off_fold(samples) if self.folds else self.split(samples, "test_fraction", size)
        train, val = self.split(rest, "val_fraction", size)
        return train, val, test
