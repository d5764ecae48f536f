"""Data that fits in memory: whole tensors, cut into batches.

A data set subclasses ``InMemoryData``, states ``native_shape`` and ``num_classes``, and returns its samples from
``load()``.
"""

from abc import abstractmethod
from collections.abc import Iterable
from math import ceil
from typing import NamedTuple

import lightning
import torch
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from dropout_lab.data.batches import GlobalBatches, ResumableLoader


class Samples(NamedTuple):
    """Images (N, C, H, W), float32, and their classes (N,), int64."""

    images: Tensor
    classes: Tensor


class InMemoryData(lightning.LightningDataModule):
    """Training, validation and test parts of a data set held in memory.

    The split is stratified and has a seed of its own, so that every run of a comparison is judged on the same images.
    ``train_eval`` is a fixed part of the training set, as large as the validation part, to measure the generalisation
    gap in eval mode. Images are kept as they are; each batch is prepared on the device that trains: standardised by the
    mean and standard deviation of the training part, its channels repeated, resized.

    Args:
        batch_size: training batch over all devices.
        seed: order of the training batches.
        split_seed: which samples are in which part.
        val_fraction, test_fraction: of all samples.
        train_size: use so many training samples, classes balanced; a smaller one is part of a larger one; None: all.
        channels: repeat the one channel of grey images so many times; None: what the model wants.
        image_size: resize to so many pixels; None: what the model wants.

    Raises:
        ValueError: more training samples asked for than there are, fewer than classes or than a batch; a fraction that
            leaves a part without samples of every class; channels that the images don't have.
    """

    native_shape: tuple[int, int, int]
    num_classes: int

    def __init__(
        self,
        batch_size: int,
        seed: int,
        split_seed: int = 0,
        val_fraction: float = 0.15,
        test_fraction: float = 0.3,
        train_size: int | None = None,
        channels: int | None = None,
        image_size: int | None = None,
    ) -> None:
        super().__init__()
        if train_size is not None and train_size < batch_size:
            raise ValueError(
                f"data.train_size={train_size}: must be at least data.batch_size={batch_size}: no full batch"
            )
        self.batch_size, self.seed, self.split_seed = batch_size, seed, split_seed
        self.val_fraction, self.test_fraction = val_fraction, test_fraction
        self.train_size, self.channels, self.image_size = train_size, channels, image_size
        self.train: Samples | None = None

    @abstractmethod
    def load(self) -> Samples:
        """All samples of the data set."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of the images that the model sees."""
        channels, height, width = self.native_shape
        if self.channels and channels not in (1, self.channels):
            raise ValueError(f"data.channels={self.channels}: these images have {channels}; only one can be repeated")
        return (self.channels or channels, self.image_size or height, self.image_size or width)

    def suit(self, channels: int, image_size: int) -> None:
        """Take what a model wants for what was left open."""
        self.channels, self.image_size = self.channels or channels, self.image_size or image_size

    def setup(self, stage: str | None = None) -> None:
        """Load and split; called by Lightning on every process."""
        if self.train is not None:
            return
        samples = self.load()
        rest, test = self._split(samples, "test_fraction", len(samples.classes))
        train, val = self._split(rest, "val_fraction", len(samples.classes))
        if self.train_size is not None:
            train = self._subset(train, self.train_size)
        self.train, self.val, self.test = train, val, test
        part = len(val.classes)
        self.train_eval = Samples(train.images[:part], train.classes[:part])
        self.mean, self.std = float(train.images.mean()), float(train.images.std())

    def on_after_batch_transfer(self, batch: tuple[Tensor, Tensor], dataloader_idx: int) -> tuple[Tensor, Tensor]:
        """Lightning's hook on the device: what the model sees."""
        images, classes = batch
        return self.prepare(images), classes

    def prepare(self, images: Tensor) -> Tensor:
        """Images as they are kept (N, C, H, W) to images as the model sees them (N, *shape)."""
        images = (images - self.mean) / self.std
        channels, *size = self.shape
        if images.shape[1] != channels:
            images = images.expand(-1, channels, -1, -1)
        if list(images.shape[2:]) != size:
            images = torch.nn.functional.interpolate(images, size, mode="bilinear", antialias=True)
        return images

    def train_dataloader(self) -> "DataLoader[tuple[Tensor, ...]]":
        """Batches (images, classes) of this process's rows."""
        assert self.train is not None, "setup() comes first"
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        batches = GlobalBatches(len(self.train.classes), self.batch_size, self.seed, rank, world)
        return ResumableLoader(
            TensorDataset(*self.train), sampler=batches, batch_size=None, generator=torch.Generator()
        )

    def val_dataloader(self) -> "list[DataLoader[tuple[Tensor, ...]]]":
        """The validation part, and the part of the training set measured in eval mode."""
        return [self._eval_loader(self.val), self._eval_loader(self.train_eval)]

    def test_dataloader(self) -> "DataLoader[tuple[Tensor, ...]]":
        """The test part."""
        return self._eval_loader(self.test)

    def _eval_loader(self, samples: Samples) -> "DataLoader[tuple[Tensor, ...]]":
        """Every sample once, in as many batches on each of any number of processes: FSDP makes them meet in each."""
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        size = len(samples.classes)
        own = torch.arange(size).tensor_split(world)[rank]
        return _loader(samples, own.tensor_split(ceil(size / (4 * self.batch_size))))

    def _split(self, samples: Samples, key: str, of: int) -> tuple[Samples, Samples]:
        """Two parts with the same shares of the classes; the second is a fraction ``key`` of ``of`` samples."""
        fraction, available = getattr(self, key), len(samples.classes)
        count = round(fraction * of)
        if not self.num_classes <= count <= available - self.num_classes:
            raise ValueError(
                f"data.{key}={fraction} is {count} of {available} samples, but both parts need one of each of "
                f"{self.num_classes} classes"
            )
        first, second = train_test_split(
            torch.arange(available).numpy(),
            test_size=count,
            stratify=samples.classes.numpy(),
            random_state=self.split_seed,
        )
        return _take(samples, torch.as_tensor(first)), _take(samples, torch.as_tensor(second))

    def _subset(self, train: Samples, size: int) -> Samples:
        """The first of every class, the second of every class, and so on, in the random order that they have."""
        available = len(train.classes)
        if not self.num_classes <= size <= available:
            raise ValueError(
                f"data.train_size={size}: must be between {self.num_classes} (one a class) and {available}, or null "
                "for all"
            )
        nth_of_class = torch.nn.functional.one_hot(train.classes).cumsum(0).gather(1, train.classes[:, None])[:, 0]
        return _take(train, nth_of_class.argsort(stable=True)[:size].sort().values)


def _loader(samples: Samples, batches: Iterable[Tensor]) -> "DataLoader[tuple[Tensor, ...]]":
    """Batches of the given indices. With a generator of its own: each pass over a loader draws a number."""
    return DataLoader(TensorDataset(*samples), sampler=batches, batch_size=None, generator=torch.Generator())


def _take(samples: Samples, index: Tensor) -> Samples:
    return Samples(samples.images[index], samples.classes[index])
