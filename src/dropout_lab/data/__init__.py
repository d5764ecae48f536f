"""Data sets behind one LightningDataModule, and batches that do not depend on the number of processes."""

from dropout_lab.data.base import DataModule, Undivided
from dropout_lab.data.batches import GlobalBatches
from dropout_lab.data.digits import Digits
from dropout_lab.data.image_folder import ImageFolder
from dropout_lab.data.images import ImageData, InMemoryData
from dropout_lab.data.samples import Samples
from dropout_lab.data.synthetic import Synthetic
from dropout_lab.data.tabular import Tabular
from dropout_lab.data.text import Text
from dropout_lab.data.torchvision_sets import CIFAR10, CIFAR100, MNIST, SVHN, FashionMNIST, TorchvisionData

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "MNIST",
    "SVHN",
    "DataModule",
    "Digits",
    "FashionMNIST",
    "GlobalBatches",
    "ImageData",
    "ImageFolder",
    "InMemoryData",
    "Samples",
    "Synthetic",
    "Tabular",
    "Text",
    "TorchvisionData",
    "Undivided",
]
