"""Torchvision's data sets as this package's data modules, from tiny files or a server of them."""

import torchvision
from tiny_sets import CLASSES, accept, write

from dropout_lab import data as sets

NAMES = tuple(CLASSES)


def made(name, root, setup=True, **options):
    data = getattr(sets, name)(**{"batch_size": 8, "seed": 0, "val_fraction": 0.25, "root": str(root), **options})
    if setup:
        data.setup()
    return data


def serve(name, server, tmp_path, monkeypatch):
    """Let torchvision find a tiny set on the server."""
    folder = write(name, tmp_path / "served")
    accept(name, tmp_path / "served", monkeypatch)
    kind, url = getattr(torchvision.datasets, name), server.url
    if name in ("MNIST", "FashionMNIST"):
        monkeypatch.setattr(kind, "mirrors", [f"{url}not_here/", f"{url}{name}/raw/"])
    elif name == "SVHN":
        monkeypatch.setattr(
            kind, "split_list", {part: [url + file, file, md5] for part, (_, file, md5) in kind.split_list.items()}
        )
    else:
        monkeypatch.setattr(kind, "url", url + kind.filename)
    return folder


def files_of(data):
    return [path for item in data.downloads() for path, _ in item.needed]


def one_line(error, *parts):
    text = str(error.value)
    assert "\n" not in text
    for part in parts:
        assert str(part) in text
