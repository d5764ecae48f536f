"""Samples: inputs with their targets, and what is done to them before training: split, subset, label noise, statistics.

Targets are classes, or numbers where ``num_classes`` is None.
"""

from collections.abc import Callable, Sized
from itertools import islice
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from sklearn.model_selection import KFold, StratifiedKFold, train_test_split
from torch import Tensor
from torch.utils.data import Dataset


class Inputs(Sized, Protocol):
    """A tensor (N, ...), or what becomes one when it is indexed: files on disk."""

    def __getitem__(self, index: Any) -> Tensor:
        """The inputs of a slice or of an index tensor."""


class Samples(NamedTuple):
    """Inputs (N, ...), images as uint8 in 0..255 or floating point; targets: classes (N,), int64, or numbers (N, k)."""

    inputs: Inputs
    targets: Tensor

    def take(self, index: Tensor | slice) -> "Samples":
        """The samples of an index or a slice; images on disk stay there."""
        inputs: Any = self.inputs
        return Samples(getattr(inputs, "only", inputs.__getitem__)(index), self.targets[index])


class Rows(Dataset[tuple[Tensor, Tensor]]):
    """Whole batches of samples: an index tensor gives (inputs, targets)."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def __getitem__(self, index: Tensor) -> tuple[Tensor, Tensor]:
        inputs = self.samples.inputs
        rows = inputs.index_select(0, index) if isinstance(inputs, Tensor) else inputs[index]  # 15x faster than [index]
        return rows, self.samples.targets[index]

    def __len__(self) -> int:
        return len(self.samples.targets)


def require_targets(owner: str, num_classes: int | None, *parts: Samples) -> None:
    """Refuse a class for which the network has no output, and a target that is no finite number.

    Args:
        owner: the data set's name, for messages.
        num_classes: K, for classes 0 to K-1; None: targets are numbers.
        parts: of the data set.
    """
    if num_classes is None:
        targets = torch.cat([part.targets for part in parts])
        if not (targets.is_floating_point() and targets.ndim == 2 and targets.isfinite().all()):
            raise ValueError(f"the targets of {owner} must be finite numbers (N, k), or classes with num_classes=K")
        return
    lowest = min(part.targets.min() for part in parts)
    highest = max(part.targets.max() for part in parts)
    if lowest < 0 or highest >= num_classes:
        raise ValueError(
            f"the classes of {owner} are numbered {int(lowest)} to {int(highest)}, but num_classes={num_classes} means "
            f"0 to {num_classes - 1}: correct num_classes or the numbers"
        )


def split(
    samples: Samples,
    key: str,
    fraction: float,
    of: int,
    num_classes: int | None,
    seed: int,
    class_name: Callable[[int], str] = "class {}".format,
) -> tuple[Samples, Samples]:
    """Two parts of samples, with the same shares of the classes: the second is a fraction ``data.<key>`` of ``of``.

    Raises:
        ValueError: a part would be empty, or have no sample of a class, which is told by its ``class_name``.
    """
    count, available = round(fraction * of), len(samples.targets)
    if not (num_classes or 1) <= count <= available - (num_classes or 1):
        each = f"both parts need one of each of {num_classes} classes" if num_classes else "both parts need one"
        raise ValueError(f"data.{key}={fraction} is {count} of {available} samples, but {each}")
    if num_classes is None:
        return _taken(samples, *train_test_split(np.arange(available), test_size=count, random_state=seed))
    classes = samples.targets.numpy()
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
    return _taken(samples, *parts)


def split_off_fold(
    samples: Samples, folds: int, fold: int, num_classes: int | None, seed: int
) -> tuple[Samples, Samples]:
    """Two parts of samples: the second is one of so many folds, whose sizes differ by one at most in each class.

    Raises:
        ValueError: fewer samples than folds, or fewer of a class.
    """
    targets = samples.targets
    if num_classes is None:
        few, what = len(targets), "there are"
    else:
        counts = targets.bincount()
        few, what = int(counts[counts > 0].min()), "the rarest class has"
    if few < folds:
        raise ValueError(f"data.folds={folds}: each fold needs a sample of each class, but {what} {few}; take fewer")
    kind = KFold if num_classes is None else StratifiedKFold
    cuts = kind(folds, shuffle=True, random_state=seed).split(np.zeros(len(targets)), targets.numpy())
    return _taken(samples, *next(islice(cuts, fold, None)))


def subset(samples: Samples, size: int, num_classes: int | None) -> Samples:
    """The first samples; of classes the first of each, the second of each, and so on, in the order that they have.

    Raises:
        ValueError: fewer samples than classes, or more than there are.
    """
    targets, available = samples.targets, len(samples.targets)
    if not (num_classes or 1) <= size <= available:
        least = f"{num_classes} (one a class)" if num_classes else "1"
        raise ValueError(f"data.train_size={size}: must be between {least} and {available}, or null for all")
    if num_classes is None:
        return samples.take(slice(size))
    by_class, counts = targets.argsort(stable=True), targets.bincount()
    nth_of_class = torch.empty_like(targets)
    nth_of_class[by_class] = torch.arange(available) - (counts.cumsum(0) - counts)[targets[by_class]]
    return samples.take(nth_of_class.argsort(stable=True)[:size].sort().values)


def mislabel(samples: Samples, fraction: float, num_classes: int | None, seed: int) -> Samples:
    """Give round(fraction * N) of the samples another class, each other class as likely; which ones, too, by chance.

    Raises:
        ValueError: there are no classes.
    """
    if fraction and num_classes is None:
        raise ValueError(f"data.label_noise={fraction}: must be 0 here, as targets are numbers and no classes")
    count = round(fraction * len(samples.targets))
    if count == 0 or num_classes is None:
        return samples
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(samples.targets), generator=generator)[:count]
    away = torch.randint(1, num_classes, (count,), generator=generator)
    classes = samples.targets.clone()
    classes[chosen] = (classes[chosen] + away) % num_classes
    return Samples(samples.inputs, classes)


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


def _taken(samples: Samples, *parts: np.ndarray[Any, Any]) -> tuple[Samples, Samples]:
    """Two parts of samples, from the numbers of those in each."""
    first, second = (samples.take(torch.as_tensor(part)) for part in parts)
    return first, second
