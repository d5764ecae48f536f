"""Handwritten digits that ship with scikit-learn: real data without a download."""

from functools import cache

import numpy as np
import torch

from dropout_lab.data.images import InMemoryData
from dropout_lab.data.samples import Samples


class Digits(InMemoryData):
    """1,797 digits of 43 writers, 8x8 pixels with 17 grey levels (Alpaydin and Kaynak 1998, UCI repository)."""

    native_shape = (1, 8, 8)
    num_classes = 10

    def load(self) -> Samples:
        """All digits: images (1797, 1, 8, 8) in [0, 1], and their classes."""
        images, classes = _read()
        return Samples(
            torch.tensor(images, dtype=torch.float32).view(-1, 1, 8, 8) / 16, torch.tensor(classes, dtype=torch.int64)
        )


@cache
def _read() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's digits, read once for all jobs of a sweep: unpacking takes as long as building the network."""
    from sklearn.datasets import load_digits

    return load_digits(return_X_y=True)  # type: ignore[no-any-return]
