"""What every data set has in common: three parts, one rule for making batches of them, and what the model sees.

A data set that fits in memory subclasses ``InMemoryData``, states ``native_shape`` and ``num_classes``, and returns its
samples from ``load()``. One whose test part is given subclasses ``ImageData`` and returns its ``parts()``.
"""

from abc import abstractmethod
from collections.abc import Iterable
from math import ceil
from typing import Any

import lightning
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from dropout_lab.data.augment import CHANGES, batch_key, mixing_share, mixup
from dropout_lab.data.batches import GlobalBatches, ResumableLoader
from dropout_lab.data.rules import is_integer, is_number, require, require_integer, require_share
from dropout_lab.data.samples import Rows, Samples, mean_and_std, mislabel, split, subset
from dropout_lab.jobs.forkserver import end_with_parent, import_beforehand, server

import_beforehand(__name__)  # workers that read ahead are forks


class ImageData(lightning.LightningDataModule):
    """Training, validation and test parts of a data set of images.

    The split is stratified and has a seed of its own, so that every run of a comparison is judged on the same images.
    ``train_eval`` is a fixed part of the training set, as large as the validation part, to measure the generalisation
    gap in eval mode. Images are kept as they are; each batch is prepared on the device that trains: augmented (training
    batches only), standardised by the mean and standard deviation of each channel of the training part, its channels
    repeated, resized.

    Args:
        batch_size: training batch over all devices.
        seed: order of the training batches, and their augmentation.
        split_seed: which samples are in which part, and which have a wrong label.
        val_fraction: of the samples that are no test samples by themselves.
        train_size: use so many training samples, classes balanced; a smaller one is part of a larger one; None: all.
        label_noise: fraction of the training samples that get a wrong class, in ``train`` and ``train_eval``.
        channels: repeat the one channel of grey images so many times; None: what the model wants.
        image_size: resize to so many pixels; None: what the model wants.
        augment: "crop_flip" or "resized_crop_flip": of :mod:`dropout_lab.data.augment`; None: nothing.
        mixup: alpha >= 0 of :func:`dropout_lab.data.augment.mixup`, whose targets (N, classes) take the place of the
            classes in training batches; 0: nothing is mixed.

    Raises:
        ValueError: an argument that is not what it is said to be here; fewer training samples than a batch; channels
            that the images don't have. On ``setup``: more training samples than there are, fewer than classes; a
            fraction that leaves a part without samples of every class; a class that is not among ``num_classes``.
    """

    native_shape: tuple[int, int, int]
    num_classes: int
    num_workers = 0  # processes that read ahead

    def __init__(
        self,
        batch_size: int,
        seed: int,
        split_seed: int = 0,
        val_fraction: float = 0.15,
        train_size: int | None = None,
        label_noise: float = 0.0,
        channels: int | None = None,
        image_size: int | None = None,
        augment: str | None = None,
        mixup: float = 0.0,
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
        require_integer("channels", channels, 1, null=True)
        require_integer("image_size", image_size, 1, null=True)
        require("augment", augment, augment in (None, *CHANGES), f"{' or '.join(CHANGES)}, or null")
        alpha_fits = is_number(mixup) and mixup >= 0
        require("mixup", mixup, alpha_fits, "a number >= 0, the alpha of Beta(alpha, alpha); 0: no mixup")
        self.batch_size, self.seed, self.split_seed = batch_size, seed, split_seed
        self.val_fraction, self.train_size, self.label_noise = val_fraction, train_size, label_noise
        self.channels, self.image_size = channels, image_size
        self.augment, self.mixup = augment, mixup
        self.train: Samples | None = None

    @abstractmethod
    def parts(self) -> tuple[Samples, Samples, Samples]:
        """Training, validation and test samples; test samples have no part in any choice.

        Training samples come in random order: the first ones stand for all in ``train_eval`` and under ``train_size``.
        """

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of the images that the model sees."""
        channels, height, width = self.native_shape
        if self.channels and channels not in (1, self.channels):
            raise ValueError(f"data.channels={self.channels}: these images have {channels}; only one can be repeated")
        return (self.channels or channels, self.image_size or height, self.image_size or width)

    def suit(self, channels: int, image_size: int) -> None:
        """Take the channels and the size of images that a model wants, where they were left open."""
        self.channels, self.image_size = self.channels or channels, self.image_size or image_size

    def setup(self, stage: str | None = None) -> None:
        """Load the data and split it; called by Lightning on every process."""
        if self.train is not None:
            return
        train, self.val, self.test = self.parts()
        self._require_classes(train, self.val, self.test)
        if self.train_size is not None:
            train = subset(train, self.train_size, self.num_classes)
        self.mean, self.std = self._statistics(train)
        self.train = mislabel(train, self.label_noise, self.num_classes, self.split_seed)
        self.train_eval = self.train.take(slice(len(self.val.classes)))

    def on_after_batch_transfer(self, batch: tuple[Tensor, Tensor], dataloader_idx: int) -> tuple[Tensor, Tensor]:
        """Prepare a batch on the device, augmented while training: Lightning's hook."""
        (images, classes), trainer = batch, self.trainer
        kept, where, first_row = images, None, 0
        if trainer is not None and trainer.training:
            number = trainer.fit_loop.epoch_loop.batch_idx + 1  # Lightning counts the batch after this hook
            where, first_row = (self.seed, trainer.current_epoch, number), trainer.global_rank * len(images)
        if self.augment and where:
            images = CHANGES[self.augment](images, batch_key(*where, first_row))
        images = self.prepare(images)
        if self.mixup and where:
            images, classes = mixup(images, classes, self.num_classes, mixing_share(*where, self.mixup))
        if trainer is not None and not kept.is_floating_point():  # others Lightning has converted already
            images = trainer.precision_plugin.convert_input(images)
        return images, classes

    def example(self, rows: int = 2, training: bool = False) -> tuple[Tensor, Tensor]:
        """The first samples as a batch in evaluation, or as one in training: then mixup makes shares of classes."""
        assert self.train is not None, "setup comes first"
        samples = self.train.take(slice(rows))
        shares = self.mixup and training
        classes = F.one_hot(samples.classes, self.num_classes).float() if shares else samples.classes
        return self.prepare(samples.images[:]), classes

    def prepare(self, images: Tensor) -> Tensor:
        """Images as they are kept (N, C, H, W) to images as the model sees them (N, *shape).

        Bytes become float32; floating-point images keep their dtype, but nothing is computed in less than float32.
        """
        if self.mean.device != images.device:
            self.mean, self.std = self.mean.to(images.device), self.std.to(images.device)
        if images.is_floating_point():
            seen = (images.to(torch.promote_types(images.dtype, torch.float32)) - self.mean) / self.std
        else:
            seen = images.to(torch.float32).div_(255).sub_(self.mean).div_(self.std)
        channels, *size = self.shape
        if seen.shape[1] != channels:
            seen = seen.expand(-1, channels, -1, -1)
        if list(seen.shape[2:]) != size:
            seen = torch.nn.functional.interpolate(seen, size, mode="bilinear", antialias=True)
        return seen.to(images.dtype) if images.is_floating_point() else seen

    def train_dataloader(self) -> "DataLoader[tuple[Tensor, ...]]":
        """Training batches (images, classes), of this process's rows."""
        assert self.train is not None, "setup() comes first"
        batches = GlobalBatches(len(self.train.classes), self.batch_size, self.seed, *self._place())
        return self._loader(ResumableLoader, self.train, batches)

    def val_dataloader(self) -> "list[DataLoader[tuple[Tensor, ...]]]":
        """Loaders of the validation part, and of the part of the training set that is measured in eval mode."""
        return [self._eval_loader(self.val), self._eval_loader(self.train_eval)]

    def test_dataloader(self) -> "DataLoader[tuple[Tensor, ...]]":
        """Batches (images, classes) of the test part."""
        return self._eval_loader(self.test)

    def _eval_loader(self, samples: Samples) -> "DataLoader[tuple[Tensor, ...]]":
        """A loader of every sample once, in equally many batches on each process: under FSDP they meet in each.

        As in training, the processes share each global batch, contiguous rows each; the first ones may have one more.
        """
        rank, world = self._place()
        size = len(samples.classes)
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

    def _require_classes(self, *parts: Samples) -> None:
        """Refuse a class for which the network has no output."""
        lowest, highest = torch.cat([part.classes for part in parts]).aminmax()
        if lowest < 0 or highest >= self.num_classes:
            raise ValueError(
                f"the classes of {type(self).__name__} are numbered {int(lowest)} to {int(highest)}, but "
                f"num_classes={self.num_classes} means 0 to {self.num_classes - 1}: correct num_classes or the numbers"
            )

    def _place(self) -> tuple[int, int]:
        """(number of this process, number of processes)."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _statistics(self, train: Samples) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each channel of the training images, (C, 1, 1)."""
        return mean_and_std(train.images[:])

    def _without_val(self, rest: Samples, of: int) -> tuple[Samples, Samples]:
        """Training and validation part of what is not the test part."""
        return self._split(rest, "val_fraction", self.val_fraction, of)

    def _split(self, samples: Samples, key: str, fraction: float, of: int) -> tuple[Samples, Samples]:
        """Two parts of samples, the second a fraction ``data.<key>`` of so many."""
        self._require_classes(samples)
        return split(samples, key, fraction, of, self.num_classes, self.split_seed, self._name_of_class)

    def _name_of_class(self, number: int) -> str:
        """What messages call a class."""
        return f"class {number}"


class InMemoryData(ImageData):
    """A data set in memory of which a part is put aside as the test part.

    Args:
        test_fraction: of all samples, as ``val_fraction`` here.
        arguments: as for :class:`ImageData`.
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
        size = len(samples.classes)
        rest, test = self._split(samples, "test_fraction", self.test_fraction, size)
        train, val = self._without_val(rest, size)
        return train, val, test
