"""Data that fits in memory: whole tensors, cut into batches.

A data set subclasses ``InMemoryData``, states ``shape`` and ``num_classes``, and returns its samples from ``load()``.
"""

from abc import abstractmethod
from typing import NamedTuple

import lightning
import torch
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from dropout_lab.data.batches import GlobalBatches


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
        train_size: use so many training samples, classes balanced; None: all.
        channels: repeat the one channel of grey images so many times; None: what the model wants.
        image_size: resize to so many pixels; None: what the model wants.

    Raises:
        ValueError: more training samples asked for than there are, or fewer than classes.
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
        return (self.channels or channels, self.image_size or height, self.image_size or width)

    def suit(self, channels: int, image_size: int) -> None:
        """Take what a model wants for what was left open."""
        self.channels, self.image_size = self.channels or channels, self.image_size or image_size

    def setup(self, stage: str | None = None) -> None:
        """Load and split; called by Lightning on every process."""
        if self.train is not None:
            return
        samples = self.load()
        rest, test = self._split(samples, self.test_fraction, len(samples.classes))
        train, val = self._split(rest, self.val_fraction, len(samples.classes))
        if self.train_size is not None:
            train = self._subset(train, self.train_size)
        self.train, self.val, self.test = train, val, test
        part = min(len(val.classes), len(train.classes))
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
        return DataLoader(TensorDataset(*self.train), sampler=batches, batch_size=None)

    def val_dataloader(self) -> "list[DataLoader[tuple[Tensor, ...]]]":
        """The validation part, and the part of the training set measured in eval mode."""
        return [self._eval_loader(self.val), self._eval_loader(self.train_eval)]

    def test_dataloader(self) -> "DataLoader[tuple[Tensor, ...]]":
        """The test part."""
        return self._eval_loader(self.test)

    def _eval_loader(self, samples: Samples) -> "DataLoader[tuple[Tensor, ...]]":
        """Every sample once, at any number of processes."""
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        own = torch.arange(len(samples.classes)).tensor_split(world)[rank]
        batches = torch.split(own, 4 * self.batch_size)
        return DataLoader(TensorDataset(*samples), sampler=batches, batch_size=None)

    def _split(self, samples: Samples, fraction: float, of: int) -> tuple[Samples, Samples]:
        count = round(fraction * of)
        first, second = train_test_split(
            torch.arange(len(samples.classes)).numpy(),
            test_size=count,
            stratify=samples.classes.numpy(),
            random_state=self.split_seed,
        )
        return _take(samples, first), _take(samples, second)

    def _subset(self, train: Samples, size: int) -> Samples:
        available = len(train.classes)
        if size == available:
            return train
        if not self.num_classes <= size <= available - self.num_classes:
            raise ValueError(
                f"data.train_size={size}: must be between {self.num_classes} (one a class) and "
                f"{available - self.num_classes}, or {available} or null for all"
            )
        return self._split(train, size / available, available)[1]


def _take(samples: Samples, indices: object) -> Samples:
    index = torch.as_tensor(indices)
    return Samples(samples.images[index], samples.classes[index])
