"""Data sets of a few images in the exact form that torchvision reads from disk, and their MD5 sums for torchvision."""

import gzip
import hashlib
import pickle
import tarfile

import numpy as np
from PIL import Image
from scipy.io import savemat

CLASSES = {"MNIST": 10, "FashionMNIST": 10, "CIFAR10": 10, "CIFAR100": 100, "SVHN": 10}
SIZES = {"MNIST": (80, 30), "FashionMNIST": (80, 30), "CIFAR10": (100, 30), "CIFAR100": (400, 100), "SVHN": (80, 30)}


def pixels(count, *shape, seed):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def labels(count, classes):
    return np.arange(count) * 7 % classes


def write(name, root):
    """Write the files of a data set as they are after a download by torchvision; returns the folder they lie in."""
    root.mkdir(parents=True, exist_ok=True)
    (train, test), classes = SIZES[name], CLASSES[name]
    if name in ("MNIST", "FashionMNIST"):
        folder = root / name / "raw"
        folder.mkdir(parents=True)
        for seed, (part, count) in enumerate((("train", train), ("t10k", test))):
            for kind, array in (("images-idx3", pixels(count, 28, 28, seed=seed)), ("labels-idx1", labels(count, 10))):
                content = idx(array.astype(np.uint8))
                (folder / f"{part}-{kind}-ubyte").write_bytes(content)
                (folder / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(content))
        return folder
    if name in ("CIFAR10", "CIFAR100"):
        folder = root / {"CIFAR10": "cifar-10-batches-py", "CIFAR100": "cifar-100-python"}[name]
        folder.mkdir()
        key, files = ("fine_labels", [("train", train)]) if name == "CIFAR100" else ("labels", [])
        files = files or [(f"data_batch_{i}", train // 5) for i in range(1, 6)]
        for seed, (file, count) in enumerate([*files, ("test" if name == "CIFAR100" else "test_batch", test)]):
            entry = {"data": pixels(count, 3072, seed=seed), key: labels(count, classes).tolist()}
            (folder / file).write_bytes(pickle.dumps(entry, protocol=2))
        meta, names = ("meta", "fine_label_names") if name == "CIFAR100" else ("batches.meta", "label_names")
        (folder / meta).write_bytes(pickle.dumps({names: [f"thing {i}" for i in range(classes)]}, protocol=2))
        with tarfile.open(root / f"{'-'.join(folder.name.split('-')[:2])}-python.tar.gz", "w:gz") as archive:
            archive.add(folder, folder.name)
        return folder
    for seed, (part, count) in enumerate((("train", train), ("test", test))):
        y = labels(count, 10).astype(np.uint8)[:, None]
        y[y == 0] = 10  # as in the original
        savemat(root / f"{part}_32x32.mat", {"X": pixels(32, 32, 3, count, seed=seed), "y": y})
    return root


def idx(array):
    """An array in MNIST's format: two zeros, type 8 (bytes), dimensions, their sizes, values."""
    head = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return head + array.tobytes()


def accept(name, root, monkeypatch):
    """Replace torchvision's MD5 sums by those of the files under ``root``."""
    import torchvision

    kind = getattr(torchvision.datasets, name)
    if name in ("MNIST", "FashionMNIST"):
        folder = root / name / "raw"
        monkeypatch.setattr(kind, "resources", [(file, md5(folder / file)) for file, _ in kind.resources])
    elif name == "SVHN":
        parts = {
            part: [url, file, md5(root / file)] for part, (url, file, _) in kind.split_list.items() if part != "extra"
        }
        monkeypatch.setattr(kind, "split_list", parts)
    else:
        folder = root / kind.base_folder
        for which in ("train_list", "test_list"):
            monkeypatch.setattr(kind, which, [[file, md5(folder / file)] for file, _ in getattr(kind, which)])
        monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": md5(folder / kind.meta["filename"])})
        monkeypatch.setattr(kind, "tgz_md5", md5(root / kind.filename))


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def write_folder(root, parts, size=(12, 12)):
    """Write folders of PNG files: parts is {"train": {"cat": 5, ...}, ...}; ``size`` is (height, width)."""
    for seed, (part, classes) in enumerate(parts.items()):
        for other, (name, count) in enumerate(classes.items()):
            folder = root / part / name
            folder.mkdir(parents=True)
            for number, image in enumerate(pixels(count, *size, 3, seed=100 * seed + other)):
                Image.fromarray(image).save(folder / f"{number:03}.png")
    return root
