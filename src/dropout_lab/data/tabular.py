"""Tables of numbers: a row of features a sample, and numbers or a class to be predicted."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dropout_lab.data.base import Undivided
from dropout_lab.data.rules import require, require_integer
from dropout_lab.data.samples import Samples
from dropout_lab.data.table_file import Table, read_index, read_table


class Tabular(Undivided):
    """A table in a file, its features standardised by mean and standard deviation of the training part.

    Targets stay as they are. A constant feature becomes 0.

    Args:
        file: as :func:`dropout_lab.data.table_file.read_table` takes it; None: 442 patients of a study of diabetes, of
            whom ten numbers predict how the disease progresses in a year (Efron, Hastie, Johnstone and Tibshirani
            2004, as it ships with scikit-learn).
        target, features: columns of the file, as there.
        num_classes: targets are classes, 0 to K-1; None: they are numbers.
        test_index: file with the numbers of the test samples, counted from 0; "*" in its name stands for ``split``.
            None: a part of all samples is the test part.
        train_index: file with those of training and validation; None: all that are no test samples.
        split: which of several given splits.
        arguments: as for :class:`~dropout_lab.data.base.Undivided`.

    Attributes:
        target_mean, target_std: of the training part's targets, (k,); of a constant target the deviation is 1.

    Raises:
        FileNotFoundError, ValueError: an argument that is not what it is said to be here; a file that cannot be read;
            at ``setup``: as :class:`~dropout_lab.data.base.DataModule`.
    """

    def __init__(
        self,
        *,
        file: str | None = None,
        target: str | Sequence[str] | None = None,
        features: Sequence[str] | None = None,
        num_classes: int | None = None,
        test_index: str | None = None,
        train_index: str | None = None,
        split: int = 0,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        require_integer("num_classes", num_classes, 2, null=True)
        require_integer("split", split, 0)
        needed = train_index is None or test_index is not None
        require("train_index", train_index, needed, "null without data.test_index, which names the test samples")
        numbered = "*" in (test_index or "")
        require("split", split, split == 0 or numbered, '0 without "*" in data.test_index, for which it stands')
        require("folds", self.folds, not (self.folds and test_index), "null with data.test_index, which says the parts")
        listed = features is None or isinstance(features, list | tuple)
        require("features", features, listed, "a list of columns, or null for all but the target")
        self.num_classes, self._split = num_classes, split
        self.test_index, self.train_index = test_index, train_index
        path = None if file is None else Path(file).expanduser()
        self.table = _diabetes(target, features) if path is None else read_table(path, target, features)
        self.num_targets = self.table.targets.shape[1]
        if num_classes and (self.num_targets > 1 or (self.table.targets % 1).any()):
            raise ValueError(f"data.num_classes={num_classes}: needs one target, of integers; null: numbers")

    @property
    def shape(self) -> tuple[int]:
        """(features,)."""
        return (self.table.features.shape[1],)

    def load(self) -> Samples:
        """All samples of the table, features in float32, less the median of each: so large ones keep their digits."""
        targets = torch.tensor(self.table.targets)  # copies, as other jobs have the same table
        centred = self.table.features - np.median(self.table.features, axis=0)
        classes = targets[:, 0].long() if self.num_classes else targets.float()
        return Samples(torch.tensor(centred, dtype=torch.float32), classes)

    def parts(self) -> tuple[Samples, Samples, Samples]:
        """Training, validation and test samples, cut from all or as the files say."""
        if self.test_index is None:
            return super().parts()
        samples = self.load()
        size = len(samples.targets)
        test = read_index(self._path(self.test_index), size)
        rest = np.setdiff1d(np.arange(size), test)
        if self.train_index is not None:
            rest = read_index(self._path(self.train_index), size)
            if both := {*rest} & {*test}:
                raise ValueError(f"data.train_index={self.train_index}: sample {min(both)} is in data.test_index, too")
        train, val = self.without_val(samples.take(torch.from_numpy(rest)))
        return train, val, samples.take(torch.from_numpy(test))

    def learn(self, train: Samples) -> None:
        """Take mean and standard deviation of features, and of targets that are numbers."""
        self.mean, self.std = _moments(train.inputs[:])
        if self.num_classes is None:
            self.target_mean, self.target_std = _moments(train.targets)

    def prepare(self, inputs: Tensor) -> Tensor:
        """Features (N, F) as they are kept to standardised ones."""
        if self.mean.device != inputs.device:
            self.mean, self.std = self.mean.to(inputs.device), self.std.to(inputs.device)
        return ((inputs.to(self.mean.dtype) - self.mean) / self.std).to(inputs.dtype)

    def _path(self, name: str) -> Path:
        """The file of a given split."""
        return Path(name.replace("*", str(self._split))).expanduser()


def _moments(columns: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each column, in float32; the deviation of a constant one is 1."""
    wide = columns.double()
    constant = wide.amin(0) == wide.amax(0)  # rounding errors would be divided by rounding errors
    std = torch.where(constant, 1.0, wide.std(0)) if len(wide) > 1 else torch.ones(wide.shape[1])
    return wide.mean(0).float(), std.float()


def _diabetes(target: Any, features: Any) -> Table:
    if target is not None or features is not None:
        raise ValueError("data.target, data.features: are for data.file=FILE, which has columns with names")
    from sklearn.datasets import load_diabetes

    x, y = load_diabetes(return_X_y=True)
    return Table(x, y[:, None])
