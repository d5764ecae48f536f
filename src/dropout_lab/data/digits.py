"""Handwritten digits that ship with scikit-learn: real data without a download."""

import torch

from dropout_lab.data.module import InMemoryData
from dropout_lab.data.samples import Samples


class Digits(InMemoryData):
    """1,797 digits of 43 writers, 8x8 pixels with 17 grey levels (Alpaydin and Kaynak 1998, UCI repository)."""

    native_shape = (1, 8, 8)
    num_classes = 10

    def load(self) -> Samples:
        """Images (1797, 1, 8, 8) in [0, 1]."""
        from sklearn.datasets import load_digits

        images, classes = load_digits(return_X_y=True)
        return Samples(
            torch.as_tensor(images, dtype=torch.float32).view(-1, 1, 8, 8) / 16, torch.as_tensor(classes).long()
        )
