"""The trained network of a run, that of its best checkpoint, in eval mode, and the data that it is measured on.

A *unit* is a feature, or a channel, that goes into a dropout layer of the lab; `dropout=none` has such layers, too.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dropout_lab.dropout import Dropout
from dropout_lab.runs.network import restore


@dataclass(frozen=True)
class TrainedNetwork:
    """A network in eval mode, and images as it sees them.

    Attributes:
        net: images (N, C, H, W) to logits (N, classes).
        images: of the test part.
        classes: theirs, (N,).
        train_images: of the training part.
        train_classes: theirs.
        seed: of what a measurement draws: masks, subsets, noise. It is the run's: arms of one seed meet the same draws,
            which pairs them, and other seeds other ones, since a test over seeds takes these to be independent.
    """

    net: nn.Module
    images: Tensor
    classes: Tensor
    train_images: Tensor
    train_classes: Tensor
    seed: int


def load(folder: Path) -> TrainedNetwork:
    """The network and the data of a run.

    Raises:
        UserError: as :func:`dropout_lab.runs.network.restore`.
    """
    run = restore(folder)
    assert run.data.train is not None
    parts = (run.data.measured_batch(part.inputs[:], part.targets) for part in (run.data.test, run.data.train))
    (images, classes), (train_images, train_classes) = parts
    return TrainedNetwork(run.net, images, classes, train_images, train_classes, run.config.seed)


def dropout_layers(net: nn.Module) -> list[Dropout]:
    """The dropout layers of a network, in the order in which they are its modules."""
    return [module for module in net.modules() if isinstance(module, Dropout)]


@torch.no_grad()
def logits(net: nn.Module, images: Tensor) -> Tensor:
    """What a network says of images, (N, classes), without gradients."""
    return net(images)  # type: ignore[no-any-return]


def accuracy(network: TrainedNetwork, images: Tensor) -> float:
    """The accuracy of a network on other images of the classes of its test part, e.g. noisy ones."""
    return score(logits(network.net, images), network.classes)["acc"]


def score(log_p: Tensor, classes: Tensor) -> dict[str, float]:
    """Accuracy and loss of predictions, as ``test/acc`` and ``test/loss`` are.

    Args:
        log_p: logarithms of probabilities, or logits, (N, classes).
        classes: the true ones, (N,).
    """
    loss = F.cross_entropy(log_p.double(), classes)
    return {"acc": float((log_p.argmax(1) == classes).double().mean()), "loss": float(loss)}
