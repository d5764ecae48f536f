"""Data sets behind one LightningDataModule, and batches that do not depend on the number of processes."""

from dropout_lab.data.batches import GlobalBatches
from dropout_lab.data.digits import Digits
from dropout_lab.data.module import ImageData, InMemoryData
from dropout_lab.data.samples import Samples
from dropout_lab.data.synthetic import Synthetic

__all__ = ["Digits", "GlobalBatches", "ImageData", "InMemoryData", "Samples", "Synthetic"]
