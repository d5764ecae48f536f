"""torchvision's small data sets in memory, with their official test parts."""

import functools
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from dropout_lab.data.files import Download, make_ready
from dropout_lab.data.images import ImageData
from dropout_lab.data.rules import require
from dropout_lab.data.samples import Samples


class TorchvisionData(ImageData):
    """A data set of torchvision, read by torchvision; bytes are kept.

    Its test part is the official one; the validation part is cut from the official training part.

    Args:
        root: folder for its files, arranged as torchvision does.
        download: get what is missing.
        arguments: as for :class:`ImageData`.

    Raises:
        FileNotFoundError, ValueError: at ``setup``: files that are missing or damaged, and cannot be downloaded.
    """

    source: ClassVar[str]  # its class in torchvision.datasets

    def __init__(self, *, root: str, download: bool = True, **arguments: Any) -> None:
        super().__init__(**arguments)
        require("download", download, isinstance(download, bool), "true or false")
        self.root, self.download = Path(root).expanduser(), download

    def downloads(self) -> list[Download]:
        """The files that the data set consists of."""
        raise NotImplementedError

    def prepare_data(self) -> None:
        """Download; called by Lightning on one process of each machine, and by ``setup`` where that was not done."""
        if self.train is None:
            for item in self.downloads():
                make_ready(item, self.download)

    def parts(self) -> tuple[Samples, Samples, Samples]:
        """Training, validation and test samples: the official parts, the first one cut in two."""
        self.prepare_data()
        files = [path for item in self.downloads() for path, _ in item.needed]
        stamps = tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in files)
        rest, test, self.class_names = _read(self.source, self.root, stamps)
        for samples in (rest, test):
            shape, classes = tuple(samples.inputs[:1].shape[1:]), samples.targets
            if shape != self.native_shape or len(classes) != len(samples.inputs) or classes.max() >= self.num_classes:
                raise ValueError(
                    f"{files[0].parent}: the files of {self.source} do not hold images of shape {self.native_shape} "
                    f"with as many labels below {self.num_classes}; remove them, data.download=true gets them again"
                )
        train, val = self.without_val(rest)
        return train, val, test

    def _class(self) -> Any:
        """The class of torchvision that reads the data set."""
        import torchvision

        return getattr(torchvision.datasets, self.source)


class MNIST(TorchvisionData):
    """60,000 and 10,000 handwritten digits, 28x28 (LeCun, Bottou, Bengio and Haffner 1998)."""

    source, native_shape, num_classes = "MNIST", (1, 28, 28), 10

    def downloads(self) -> list[Download]:
        """Images and labels of each part, each file packed by itself."""
        kind, folder = self._class(), self.root / self.source / "raw"
        return [
            Download(folder / name, md5, tuple(url + name for url in kind.mirrors), ((folder / Path(name).stem, None),))
            for name, md5 in kind.resources
        ]


class FashionMNIST(MNIST):
    """60,000 and 10,000 pictures of ten kinds of clothes, 28x28 (Xiao, Rasul and Vollgraf 2017)."""

    source = "FashionMNIST"


class CIFAR10(TorchvisionData):
    """50,000 and 10,000 photos of ten kinds of things, 32x32 in colour (Krizhevsky 2009)."""

    source, native_shape, num_classes = "CIFAR10", (3, 32, 32), 10

    def downloads(self) -> list[Download]:
        """The one archive, of batches and the names of the classes."""
        kind = self._class()
        files = [*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])]
        unpacked = tuple((self.root / kind.base_folder / name, md5) for name, md5 in files)
        return [Download(self.root / kind.filename, kind.tgz_md5, (kind.url,), unpacked)]


class CIFAR100(CIFAR10):
    """50,000 and 10,000 photos of a hundred kinds of things, 32x32 in colour (Krizhevsky 2009)."""

    source, num_classes = "CIFAR100", 100


class SVHN(TorchvisionData):
    """73,257 and 26,032 house numbers' digits, 32x32 in colour (Netzer et al. 2011); the extra part is left out."""

    source, native_shape, num_classes = "SVHN", (3, 32, 32), 10

    def downloads(self) -> list[Download]:
        """Training and test part, one file each, read as it is."""
        parts = [self._class().split_list[part] for part in ("train", "test")]
        return [Download(self.root / name, md5, (url,), ((self.root / name, md5),)) for url, name, md5 in parts]


@functools.lru_cache(maxsize=2)
def _read(source: str, root: Path, stamps: tuple[Any, ...]) -> tuple[Samples, Samples, list[str]]:
    """Training part, test part, names of the classes; read once for all jobs of a sweep, while the files stay."""
    import torchvision

    kind = getattr(torchvision.datasets, source)
    parts = ({"split": "train"}, {"split": "test"}) if source == "SVHN" else ({"train": True}, {"train": False})
    try:
        train, test = (kind(str(root), **part, download=False) for part in parts)
        return _samples(train), _samples(test), list(getattr(train, "classes", map(str, range(10))))
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"{root}: torchvision cannot read the files of {source} ({reason})") from error


def _samples(dataset: Any) -> Samples:
    """Samples of torchvision's arrays: (N, H, W) for MNIST, (N, H, W, C) for CIFAR, (N, C, H, W) for SVHN."""
    images = np.asarray(dataset.data)
    if images.ndim == 3:
        images = images[:, None]
    elif images.shape[-1] == 3 and images.shape[1] != 3:
        images = images.transpose(0, 3, 1, 2)
    classes = getattr(dataset, "targets", None)
    classes = dataset.labels if classes is None else classes
    return Samples(torch.from_numpy(np.array(images, order="C")), torch.as_tensor(classes, dtype=torch.int64))
