"""Batches of CIFAR-size images against torchvision with a DataLoader: python scripts/bench/data.py [--rounds 15]

CPU time of one thread, interleaved, medians (see timing.py); an epoch of --images random images of 3x32x32 in batches
of --batch, from what is kept in memory to the standardised batch that a model gets. No worker processes: they move
this work to other cores, they do not lessen it. A ratio is a peer's time divided by ours in the same round.
"""

import argparse

import torch
import torchvision.transforms as T
from _record import record
from torch.utils.data import DataLoader, TensorDataset
from torchvision.datasets import CIFAR10
from torchvision.transforms import v2

from dropout_lab.data import InMemoryData, Samples
from dropout_lab.data.augment import batch_key, crop_flip
from dropout_lab.verdict.cost import ratios

GOALS = {"plain": 4, "crop and flip": 6}
DEFAULT = "torchvision + DataLoader"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="timings of each candidate")
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--batch", type=int, default=128)
    arguments = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (arguments.images, 3, 32, 32), generator=generator).to(torch.uint8)
    classes = torch.arange(arguments.images) % 10
    print(f"torch {torch.__version__}, torchvision {torchvision_version()}, {arguments.images} images, ", end="")
    print(f"batches of {arguments.batch}; times ours (goal for {DEFAULT})\n")
    print(f"{'':16}{'ours us/image':>14}   {DEFAULT:>26}{'+ v2 transforms':>18}{'tensors + DataLoader':>22}")
    for name, goal in GOALS.items():
        augment = name != "plain"
        candidates = {
            "ours": ours(images, classes, arguments.batch, augment),
            DEFAULT: theirs(images, classes, arguments.batch, augment, T),
            "v2": theirs(images, classes, arguments.batch, augment, v2),
            "tensors": tensors(images, classes, arguments.batch, augment),
        }
        found = ratios(candidates, arguments.rounds)
        each = found["ours"][0] / (arguments.images // arguments.batch * arguments.batch)
        print(f"{name:16}{each:14.2f}   {f'{found[DEFAULT][1]:.1f} ({goal})':>26}", end="")
        print(f"{found['v2'][1]:18.1f}{found['tensors'][1]:22.1f}")
        for key, title in ((DEFAULT, DEFAULT), ("v2", "v2 transforms"), ("tensors", "tensors + DataLoader")):
            record(f"{name}: {title} over ours", found[key][1], f">= {goal}" if key == DEFAULT else None)


def ours(images: torch.Tensor, classes: torch.Tensor, batch: int, augment: bool):
    """The data module, and what its hook does to a batch."""

    class Whole(InMemoryData):
        native_shape, num_classes = (3, 32, 32), 10

        def parts(self):
            samples = Samples(images, classes)
            return samples, samples.take(slice(10)), samples.take(slice(10))

    data = Whole(batch_size=batch, seed=0)
    data.setup()
    loader = data.train_dataloader()

    def epoch() -> None:
        for number, (x, _) in enumerate(loader):
            data.prepare(crop_flip(x, batch_key(0, 0, number, 0)) if augment else x)

    return epoch


def theirs(images: torch.Tensor, classes: torch.Tensor, batch: int, augment: bool, kind):
    """torchvision's data set and transforms, as in its examples."""
    to_tensor = [kind.ToTensor()] if kind is T else [kind.ToImage(), kind.ToDtype(torch.float32, scale=True)]
    changes = [kind.RandomCrop(32, padding=4), kind.RandomHorizontalFlip()] if augment else []
    data = CIFAR10.__new__(CIFAR10)
    data.data, data.targets = images.permute(0, 2, 3, 1).contiguous().numpy(), classes.tolist()
    data.transform = kind.Compose([*changes, *to_tensor, kind.Normalize((0.49, 0.48, 0.45), (0.25, 0.24, 0.26))])
    data.target_transform = None
    return passes(DataLoader(data, batch_size=batch, shuffle=True, drop_last=True))


def tensors(images: torch.Tensor, classes: torch.Tensor, batch: int, augment: bool):
    """Images prepared beforehand in float32; augmented one by one, by v2, as the loader gives them."""
    floats = (images.float() / 255 - 0.48) / 0.25
    if not augment:
        return passes(DataLoader(TensorDataset(floats, classes), batch_size=batch, shuffle=True, drop_last=True))
    change = v2.Compose([v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip()])

    class Augmented(TensorDataset):
        def __getitem__(self, index):
            image, label = super().__getitem__(index)
            return change(image), label

    return passes(DataLoader(Augmented(floats, classes), batch_size=batch, shuffle=True, drop_last=True))


def passes(loader: DataLoader):
    def epoch() -> None:
        for _ in loader:
            pass

    return epoch


def torchvision_version() -> str:
    import torchvision

    return str(torchvision.__version__)


if __name__ == "__main__":
    main()
