"""Images in folders of one's own, a folder a class: read from disk while training, as large sets fit in no memory."""

import functools
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dropout_lab.data.image_file import SUFFIXES, fit, read_image, upright_size
from dropout_lab.data.images import ImageData
from dropout_lab.data.rules import require_integer
from dropout_lab.data.samples import Samples, mean_and_std

READ_FIRST = 1000  # images of a part that are read at set-up, for mean and standard deviation or to see that they can


class ImageFolder(ImageData):
    """Images on disk: ``ROOT/train/CLASS/IMAGE`` and ``ROOT/test/CLASS/IMAGE``, in the order of torchvision's.

    Folders within a class are searched, too; hidden files and folders are left out, and files whose suffix is no
    image's. How a file is read: :func:`dropout_lab.data.image_file.read_image`.

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
        ValueError: as :class:`ImageData`; fewer than two classes; classes, or sizes of images, that do not match; at
            ``setup``: a file that cannot be read, among the first thousand of a part, evenly spread; others when their
            turn comes.
    """

    def __init__(self, *, root: str, num_workers: int = 0, num_classes: int | None = None, **arguments: Any) -> None:
        super().__init__(**arguments)
        require_integer("num_workers", num_workers, 0)
        require_integer("num_classes", num_classes, 2, null=True)
        self.root, self.num_workers = Path(root).expanduser(), num_workers
        self.num_classes = num_classes or len(self._class_folders("train"))
        if self.image_size is None:
            width, height = upright_size(_images_in(self._class_folders("train")[0])[0])
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
            order = torch.randperm(len(rest.targets), generator=torch.Generator().manual_seed(self.split_seed))
            return rest.take(order), self._read("val"), test
        train, val = self.without_val(rest)
        return train, val, test

    def setup(self, stage: str | None = None) -> None:
        """Find the images and split them; read some of each part, as a damaged one should be told before training."""
        if self.train is None:
            super().setup(stage)  # reads images of the training part
            for part in (self.val, self.test):
                _require_readable(_names(part.take(_spread(len(part.targets)))))

    def _read(self, part: str) -> Samples:
        """Samples of one part, their images not read yet."""
        folders = self._class_folders(part)
        names = [folder.name for folder in folders]
        if part == "train":
            if len(names) != self.num_classes:
                raise ValueError(
                    f"data.num_classes={self.num_classes}: {self.root}/train has {len(names)} classes ({_few(names)}); "
                    "null: they are counted"
                )
            self.class_names = names
        elif names != self.class_names:
            missing, surplus = _few({*self.class_names} - {*names}), _few({*names} - {*self.class_names})
            differ = f"it has no {missing}" * bool(missing) + ", and " * bool(missing and surplus)
            differ += f"{self.root}/train has no {surplus}" * bool(surplus)
            raise ValueError(f"{self.root}/{part}: its classes must be those of {self.root}/train, but {differ}")
        found = [_images_in(folder) for folder in folders]
        paths = [path for images in found for path in images]
        if self.image_size is None:
            self._require_one_size(paths)
        classes = torch.arange(len(found)).repeat_interleave(torch.tensor([len(images) for images in found]))
        return Samples(ImageFiles(_block(paths), self.native_shape[1:]), classes)

    def _require_one_size(self, paths: Iterable[str]) -> None:
        """Refuse images of another size than the first one's."""
        height, width = self.native_shape[1:]
        for path in paths:
            if (width, height) != (size := upright_size(path)):
                raise ValueError(
                    f"data.image_size=null, but the images differ in size: {path} has {size[0]}x{size[1]} pixels, "
                    f"others {width}x{height}; give data.image_size=PIXELS"
                )

    def statistics(self, train: Samples) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of some images, evenly spread: reading all could take hours."""
        return _statistics(_names(train.take(_spread(len(train.targets)))), self.native_shape[1:])

    def name_of_class(self, number: int) -> str:
        """The folder of a class, for messages."""
        return f"{self.root}/train/{self.class_names[number]}"

    def _class_folders(self, part: str) -> list[Path]:
        """The folders of the classes of one part, two or more, in order of their names."""
        folder = self._folder(part)
        inside = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        if len(inside) < 2:
            found = f"one class folder, {inside[0].name}" if inside else "no class folders"
            deeper = _few(path.name for path in inside[0].iterdir() if path.is_dir()) if inside else ""
            raise ValueError(
                f"{folder} has {found}; two or more are needed, {folder}/CLASS/IMAGE"
                + (f": if {deeper} are the classes, move them one level up, into {folder}" if deeper else "")
            )
        return inside

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


@functools.lru_cache(maxsize=4)
def _statistics(paths: tuple[str, ...], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel of images on disk, read once for all jobs of a sweep."""
    return mean_and_std(torch.stack([_image(path, size) for path in paths]))


def _block(paths: Sequence[str]) -> Tensor:
    """Names of files as a tensor of bytes (N, longest), filled up with zeros."""
    raw = np.array([os.fsencode(path) for path in paths])
    return torch.from_numpy(raw.view(np.uint8).reshape(len(raw), -1))


def _names(samples: Samples) -> tuple[str, ...]:
    """The names of the files of samples."""
    files: Any = samples.inputs
    return tuple(map(_name, files.paths))


def _name(path: Tensor) -> str:
    """The name of a file from its row of a block of bytes."""
    return os.fsdecode(path.numpy().tobytes().rstrip(b"\0"))


def _image(path: str, size: tuple[int, int]) -> Tensor:
    """Pixels (3, H, W) of a file, brought to a size (height, width)."""
    return torch.from_numpy(np.array(fit(read_image(path), *size))).permute(2, 0, 1)


@functools.lru_cache(maxsize=4)
def _require_readable(paths: tuple[str, ...]) -> None:
    """Refuse a file that cannot be read, once for all jobs of a sweep."""
    for path in paths:
        read_image(path)


def _images_in(folder: Path) -> list[str]:
    """Names of the images in the folder of a class and in those within it, in torchvision's order.

    Raises:
        FileNotFoundError: it has none.
    """
    found: list[tuple[str, list[str]]] = []
    places, others = set(), 0
    for place, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if (real := os.path.realpath(place)) in places:  # a link to a folder that it lies in
            folders.clear()
            continue
        places.add(real)
        names = [name for name in files if not name.startswith(".")]
        images = sorted(name for name in names if name.lower().endswith(SUFFIXES))
        others += len(names) - len(images)
        found.append((place, images))
    paths = [f"{place}/{name}" for place, names in sorted(found) for name in names]
    if not paths:
        raise FileNotFoundError(
            f"{folder} has no images{f', but {others} other files' if others else ''}: remove it, or put some there, "
            f"with names that end in {' '.join(sorted(SUFFIXES))}"
        )
    return paths


def _spread(count: int) -> Tensor:
    """At most ``READ_FIRST`` of so many numbers, evenly spread."""
    return torch.linspace(0, count - 1, min(count, READ_FIRST)).long()


def _few(names: Iterable[str]) -> str:
    """Names for a message: not those of all of a thousand classes."""
    names = sorted(names)
    return ", ".join(names[:5]) + ", ..." * (len(names) > 5)
