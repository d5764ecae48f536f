"""What data sets of images have in common: what the model sees of them, and how training images are changed.

A data set that fits in memory subclasses ``InMemoryData``, states ``native_shape`` and ``num_classes``, and returns its
samples from ``load()``. One whose test part is given subclasses ``ImageData`` and returns its ``parts()``.
"""

from typing import Any

import torch
from torch import Tensor

from dropout_lab.data.augment import CHANGES, batch_key, mixing_share, mixup
from dropout_lab.data.base import DataModule, Place, Undivided
from dropout_lab.data.rules import is_number, require, require_integer
from dropout_lab.data.samples import Samples, mean_and_std


class ImageData(DataModule):
    """Training, validation and test parts of a data set of images with classes.

    Images are kept as they are; each batch is prepared on the device that trains: augmented (training batches only),
    standardised by the mean and standard deviation of each channel of the training part, its channels repeated,
    resized.

    Args:
        arguments: as for :class:`~dropout_lab.data.base.DataModule`, by position or by name.
        channels: repeat the one channel of grey images so many times; None: what the model wants.
        image_size: resize to so many pixels; None: what the model wants.
        augment: "crop_flip" or "resized_crop_flip": of :mod:`dropout_lab.data.augment`; None: nothing.
        mixup: alpha >= 0 of :func:`dropout_lab.data.augment.mixup`, whose targets (N, classes) take the place of the
            classes in training batches; 0: nothing is mixed.
        options: as for :class:`~dropout_lab.data.base.DataModule`.

    Raises:
        ValueError: as :class:`~dropout_lab.data.base.DataModule`, and for channels that the images don't have.
    """

    native_shape: tuple[int, int, int]
    num_classes: int

    def __init__(
        self,
        *arguments: Any,
        channels: int | None = None,
        image_size: int | None = None,
        augment: str | None = None,
        mixup: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        require_integer("channels", channels, 1, null=True)
        require_integer("image_size", image_size, 1, null=True)
        require("augment", augment, augment in (None, *CHANGES), f"{' or '.join(CHANGES)}, or null")
        alpha_fits = is_number(mixup) and mixup >= 0
        require("mixup", mixup, alpha_fits, "a number >= 0, the alpha of Beta(alpha, alpha); 0: no mixup")
        self.channels, self.image_size = channels, image_size
        self.augment, self.mixup = augment, mixup

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of the images that the model sees."""
        channels, height, width = self.native_shape
        if self.channels and channels not in (1, self.channels):
            raise ValueError(f"data.channels={self.channels}: these images have {channels}; only one can be repeated")
        return (self.channels or channels, self.image_size or height, self.image_size or width)

    def suit(self, channels: int | None, image_size: int) -> None:
        """Take the channels and the size of images that a model wants, where they were left open."""
        self.channels, self.image_size = self.channels or channels, self.image_size or image_size

    def learn(self, train: Samples) -> None:
        """Take mean and standard deviation of each channel from the training images."""
        self.mean, self.std = self.statistics(train)

    def statistics(self, train: Samples) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each channel of the training images, (C, 1, 1)."""
        return mean_and_std(train.inputs[:])

    def training_batch(self, inputs: Tensor, targets: Tensor, place: Place) -> tuple[Tensor, Tensor]:
        """Images in training, changed and mixed as asked for; mixup makes shares of classes."""
        if self.augment:
            inputs = CHANGES[self.augment](inputs, batch_key(self.seed, *place))
        images = self.prepare(inputs)
        if self.mixup:
            share = mixing_share(self.seed, place.epoch, place.batch, self.mixup)
            images, targets = mixup(images, targets, self.num_classes, share)
        return images, targets

    def prepare(self, inputs: Tensor) -> Tensor:
        """Images as they are kept (N, C, H, W) to images as the model sees them (N, *shape).

        Bytes become float32; floating-point images keep their dtype, but nothing is computed in less than float32.
        """
        if self.mean.device != inputs.device:
            self.mean, self.std = self.mean.to(inputs.device), self.std.to(inputs.device)
        if inputs.is_floating_point():
            seen = (inputs.to(torch.promote_types(inputs.dtype, torch.float32)) - self.mean) / self.std
        else:
            seen = inputs.to(torch.float32).div_(255).sub_(self.mean).div_(self.std)
        channels, *size = self.shape
        if seen.shape[1] != channels:
            seen = seen.expand(-1, channels, -1, -1)
        if list(seen.shape[2:]) != size:
            seen = torch.nn.functional.interpolate(seen, size, mode="bilinear", antialias=True)
        return seen.to(inputs.dtype) if inputs.is_floating_point() else seen


class InMemoryData(Undivided, ImageData):
    """A data set of images in memory, of which a part is put aside as the test part."""
