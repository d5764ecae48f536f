"""Images in folders of one's own, a folder a class: read from disk while training, as large sets fit in no memory."""

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dropout_lab.data.module import ImageData
from dropout_lab.data.rules import require_integer
from dropout_lab.data.samples import Samples, mean_and_std

STATISTICS_OF = 1000  # training images that mean and standard deviation are taken from


class ImageFolder(ImageData):
    """Images on disk: ``ROOT/train/CLASS/IMAGE`` and ``ROOT/test/CLASS/IMAGE``, found by torchvision's ``ImageFolder``.

    Where there is ``ROOT/val`` too it is the validation part, else that is cut from ``train``. Where there is ``val``
    but no ``test``, as in ImageNet, ``val`` is the test part.

    Args:
        root: the folder.
        num_workers: processes that read ahead, for each device; 0: the training process reads. Order and batches are
            the same for any number. A script of one's own needs ``if __name__ == "__main__":`` for them.
        num_classes: None: as many as ``ROOT/train`` has folders.
        arguments: as for :class:`ImageData`. ``image_size``: the shorter side is brought to so many pixels, the middle
            of the longer one is cut out; None: what the model wants, else all images must be of one size.

    Raises:
        FileNotFoundError: a folder is missing, or has no images.
        ValueError: as :class:`ImageData`; classes, or sizes of images, that do not match.
    """

    def __init__(self, *, root: str, num_workers: int = 0, num_classes: int | None = None, **arguments: Any) -> None:
        super().__init__(**arguments)
        require_integer("num_workers", num_workers, 0)
        require_integer("num_classes", num_classes, 2, null=True)
        self.root, self.num_workers = Path(root).expanduser(), num_workers
        self.num_classes = num_classes or sum(path.is_dir() for path in self._folder("train").iterdir())
        if self.image_size is None:
            first = _first_image(self._folder("train"))
            width, height = (1, 1) if first is None else _size(first)  # torchvision will say that there is none
            self.native_shape = (3, height, width)
        else:
            self.native_shape = (3, self.image_size, self.image_size)

    def parts(self) -> tuple[Samples, Samples, Samples]:
        """Training, validation and test samples, as the folders say."""
        if self.image_size is not None:  # also where the model has chosen it
            self.native_shape = (3, self.image_size, self.image_size)
        has_test, has_val = ((self.root / name).is_dir() for name in ("test", "val"))
        rest = self._read("train")
        test = self._read("test" if has_test or not has_val else "val")
        if has_test and has_val:
            order = torch.randperm(len(rest.classes), generator=torch.Generator().manual_seed(self.split_seed))
            return rest.take(order), self._read("val"), test
        train, val = self._without_val(rest, len(rest.classes))
        return train, val, test

    def _read(self, part: str) -> Samples:
        """Samples of one part, their images not read yet."""
        from torchvision.datasets import ImageFolder as Found

        found = Found(str(self._folder(part)))
        names = getattr(self, "class_names", found.classes)
        if found.classes != names or len(names) != self.num_classes:
            raise ValueError(
                f"{self.root}/{part} has {len(found.classes)} classes ({', '.join(found.classes)[:60]}); there should "
                f"be {self.num_classes}, named as in {self.root}/train"
            )
        self.class_names = names
        paths, classes = zip(*found.samples, strict=True)
        if self.image_size is None:
            for path in paths:
                if (self.native_shape[2], self.native_shape[1]) != (size := _size(path)):
                    raise ValueError(
                        f"data.image_size=null, but the images differ in size: {path} has {size[0]}x{size[1]} pixels, "
                        f"others {self.native_shape[2]}x{self.native_shape[1]}; give data.image_size=PIXELS"
                    )
        return Samples(ImageFiles(_block(paths), self.native_shape[1:]), torch.tensor(classes))

    def _statistics(self, train: Samples) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of ``STATISTICS_OF`` images, evenly spread: reading all could take hours."""
        count = len(train.classes)
        some: Any = train.take(torch.linspace(0, count - 1, min(count, STATISTICS_OF)).long()).images
        return _statistics(tuple(map(_name, some.paths)), some.size)

    def _folder(self, part: str) -> Path:
        """The folder of one part; refused where it is missing."""
        folder = self.root / part
        if not folder.is_dir():
            raise FileNotFoundError(
                f"{folder} is missing: data.root=FOLDER names a folder with train/CLASS/IMAGE and test/CLASS/IMAGE "
                "(or val/CLASS/IMAGE)"
            )
        return folder


class ImageFiles:
    """Files that become a uint8 tensor (N, 3, H, W) when they are indexed, as a tensor is.

    Args:
        paths: bytes of the names, (N, longest), uint8, filled up with zeros: a tensor, as processes share its memory.
        size: (height, width) that images are brought to.
    """

    def __init__(self, paths: Tensor, size: tuple[int, int]) -> None:
        self.paths, self.size = paths, size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Any) -> Tensor:
        chosen = self.paths[index]
        if chosen.ndim == 1:
            return _image(_name(chosen), self.size)
        return torch.stack([_image(_name(path), self.size) for path in chosen])

    def only(self, index: Tensor | slice) -> "ImageFiles":
        """The files of some images, not read yet."""
        return ImageFiles(self.paths[index], self.size)


class UnreadableImageError(ValueError):
    """A file that is no image; what a DataLoader puts in front of a worker's message, a traceback, is left out."""

    def __init__(self, message: str) -> None:
        super().__init__(message.rpartition(f"{type(self).__name__}: ")[2].strip())


@functools.lru_cache(maxsize=4)
def _statistics(paths: tuple[str, ...], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel of images on disk, read once for all jobs of a sweep."""
    return mean_and_std(torch.stack([_image(path, size) for path in paths]))


def _block(paths: Sequence[str]) -> Tensor:
    """Names of files as a tensor of bytes (N, longest), filled up with zeros."""
    raw = np.array([os.fsencode(path) for path in paths])
    return torch.from_numpy(raw.view(np.uint8).reshape(len(raw), -1))


def _name(path: Tensor) -> str:
    """The name of a file from its row of a block of bytes."""
    return os.fsdecode(path.numpy().tobytes().rstrip(b"\0"))


def _image(path: str, size: tuple[int, int]) -> Tensor:
    """Pixels (3, H, W) of a file: torchvision's ``Resize`` of the shorter side and ``CenterCrop``."""
    try:
        with Image.open(path) as file:
            image = file.convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:
        _unreadable(path, error)
    if image.size != (size[1], size[0]):
        from torchvision.transforms.functional import center_crop, resize

        image = center_crop(resize(image, min(size)), list(size))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _first_image(folder: Path) -> Path | None:
    """The first image of the first class that has one: not all of a million files are listed for it."""
    from torchvision.datasets.folder import IMG_EXTENSIONS

    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    found = (path for each in classes for path in sorted(each.iterdir()) if path.suffix.lower() in IMG_EXTENSIONS)
    return next(found, None)


def _size(path: str | Path) -> tuple[int, int]:
    """(width, height) of an image on disk, from the beginning of its file."""
    try:
        with Image.open(path) as file:
            return file.size
    except (OSError, ValueError, SyntaxError) as error:
        _unreadable(path, error)


def _unreadable(path: str | Path, error: Exception) -> NoReturn:
    """Refuse a file that cannot be read as an image, with the reason."""
    reason = " ".join(str(error).replace(repr(str(path)), "it").split())
    raise UnreadableImageError(f"{path} cannot be read as an image: {reason}; replace or remove it") from error
