"""Images with their classes, and what is done to them before training: split, subset, label noise, statistics."""

from collections.abc import Callable, Sized
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.utils.data import Dataset


class Images(Sized, Protocol):
    """A tensor (N, C, H, W), or what becomes one when it is indexed: files on disk."""

    def __getitem__(self, index: Any) -> Tensor:
        """The images of a slice or of an index tensor."""


class Samples(NamedTuple):
    """Images (N, C, H, W), uint8 in 0..255 or floating point, and their classes (N,), int64."""

    images: Images
    classes: Tensor

    def take(self, index: Tensor | slice) -> "Samples":
        """The samples of an index or a slice; images on disk stay there."""
        images: Any = self.images
        return Samples(getattr(images, "only", images.__getitem__)(index), self.classes[index])


class Rows(Dataset[tuple[Tensor, Tensor]]):
    """Whole batches of samples: an index tensor gives (images, classes)."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def __getitem__(self, index: Tensor) -> tuple[Tensor, Tensor]:
        images = self.samples.images
        rows = images.index_select(0, index) if isinstance(images, Tensor) else images[index]  # 15x faster than [index]
        return rows, self.samples.classes[index]

    def __len__(self) -> int:
        return len(self.samples.classes)


def split(
    samples: Samples,
    key: str,
    fraction: float,
    of: int,
    num_classes: int,
    seed: int,
    class_name: Callable[[int], str] = "class {}".format,
) -> tuple[Samples, Samples]:
    """Two parts of samples, with the same shares of the classes: the second is a fraction ``data.<key>`` of ``of``.

    Raises:
        ValueError: a part would have no sample of a class, which is told by its ``class_name``.
    """
    count, available = round(fraction * of), len(samples.classes)
    if not num_classes <= count <= available - num_classes:
        raise ValueError(
            f"data.{key}={fraction} is {count} of {available} samples, but both parts need one of each of "
            f"{num_classes} classes"
        )
    classes = samples.classes.numpy()
    there, counts = np.unique(classes, return_counts=True)
    few = there[counts < 2]  # which scikit-learn refuses in its own words
    if not len(few):
        parts = train_test_split(np.arange(available), test_size=count, stratify=classes, random_state=seed)
        few = there[~np.logical_and(*(np.isin(there, classes[part]) for part in parts))]
    if len(few):
        has = (classes == few[0]).sum()
        raise ValueError(
            f"data.{key}={fraction}: {class_name(int(few[0]))} has {has} of {available} samples, too few for one "
            f"in each of two parts; give it {f'more, or change data.{key}' if has > 1 else 'at least 2'}"
        )
    first, second = (samples.take(torch.as_tensor(part)) for part in parts)
    return first, second


def subset(samples: Samples, size: int, num_classes: int) -> Samples:
    """The first sample of every class, the second of every class, and so on, in the random order that they have.

    Raises:
        ValueError: fewer samples than classes, or more than there are.
    """
    classes, available = samples.classes, len(samples.classes)
    if not num_classes <= size <= available:
        raise ValueError(
            f"data.train_size={size}: must be between {num_classes} (one a class) and {available}, or null for all"
        )
    by_class, counts = classes.argsort(stable=True), classes.bincount()
    nth_of_class = torch.empty_like(classes)
    nth_of_class[by_class] = torch.arange(available) - (counts.cumsum(0) - counts)[classes[by_class]]
    return samples.take(nth_of_class.argsort(stable=True)[:size].sort().values)


def mislabel(samples: Samples, fraction: float, num_classes: int, seed: int) -> Samples:
    """Give round(fraction * N) of the samples another class, each other class as likely; which ones, too, by chance."""
    count = round(fraction * len(samples.classes))
    if count == 0:
        return samples
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(samples.classes), generator=generator)[:count]
    away = torch.randint(1, num_classes, (count,), generator=generator)
    classes = samples.classes.clone()
    classes[chosen] = (classes[chosen] + away) % num_classes
    return Samples(samples.images, classes)


def mean_and_std(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and std of each channel, (C, 1, 1) in float32; of bytes on the scale [0, 1]. A constant one's std is 1."""
    channels = images.transpose(0, 1).flatten(1)
    if images.dtype == torch.uint8:  # 256 counts instead of a copy four times as large
        counts = torch.stack([channel.bincount(minlength=256) for channel in channels]).double()
        total, values = counts.sum(1), torch.arange(256, dtype=torch.float64) / 255
        mean = counts @ values / total
        std = ((counts * (values - mean[:, None]) ** 2).sum(1) / (total - 1)).sqrt()
        constant = (counts > 0).sum(1) == 1
    else:
        mean, std = channels.mean(1), channels.std(1)
        constant = channels.amin(1) == channels.amax(1)
    std = torch.where(constant, 1.0, std)  # rounding errors would be divided by rounding errors
    return mean.float().view(-1, 1, 1), std.float().view(-1, 1, 1)
