"""Numbers that only a trained network tells: that of best.ckpt, restored, in eval mode, on the test part.

A *unit* is a feature, or a channel, that goes into a dropout layer of the lab; `dropout=none` has such layers, too.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dropout_lab.dropout import Dropout, convert, exact_ensemble, fold, mask_keys, monte_carlo
from dropout_lab.runs.restore import restore
from dropout_lab.verdict.cost import eval_cost, without_layers
from dropout_lab.verdict.darkened_maps import WAYS, crowd

BINS = 15


REPEATS = 10  # random subsets of units, draws of noise


BATCH = 64  # global batch whose gradient is looked at


DRAWS = 200  # of its masks


@dataclass(frozen=True)
class Trained:
    """A network in eval mode, and images as it sees them.

    Attributes:
        net: images (N, C, H, W) to logits (N, classes).
        images: of the test part.
        classes: theirs, (N,).
        train_images: of the training part.
        train_classes: theirs.
        seed: of what is drawn here: masks, subsets, noise. It is the run's: arms of one seed meet the same draws, which
            pairs them, and other seeds other ones, since a test over seeds takes these to be independent.
    """

    net: nn.Module
    images: Tensor
    classes: Tensor
    train_images: Tensor
    train_classes: Tensor
    seed: int


def load(folder: Path) -> Trained:
    """The network and the data of a run.

    Raises:
        UserError: as :func:`dropout_lab.restore.restore`.
    """
    run = restore(folder)
    assert run.data.train is not None
    parts = ((run.data.prepare(part.images[:]), part.classes) for part in (run.data.test, run.data.train))
    (images, classes), (train_images, train_classes) = parts
    return Trained(run.net, images, classes, train_images, train_classes, run.config.seed)


def expected_calibration_error(probabilities: np.ndarray, classes: np.ndarray) -> float:
    """Mean |accuracy - confidence| over equal bins of confidence, weighted by how many samples fall into each.

    Args:
        probabilities: shape (N, classes).
        classes: shape (N,), the true ones.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", equation 3.
    """
    confidence = probabilities.max(axis=1)
    surplus = (probabilities.argmax(axis=1) == classes) - confidence
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return float(np.abs(np.bincount(bins, weights=surplus, minlength=BINS)).sum() / len(classes))


def filters(trained: Trained) -> np.ndarray:
    """The weights from the image into each unit of the first layer, as images.

    Returns:
        Shape (units, H, W, C); H and W are those of the image, or of the kernel of a convolution.
    """
    weight = next(value for value in trained.net.parameters() if value.ndim > 1).detach()
    if weight.ndim == 2:
        weight = weight.reshape(len(weight), *trained.images.shape[1:])
    return weight.movedim(1, -1).numpy()


def unit_correlation(trained: Trained, layer: str) -> float:
    """Mean |correlation| of two different units, over images and positions; units that never vary have none."""
    (of_layer,) = (module for module in _layers(trained.net) if module.name == layer)
    seen: list[Tensor] = []
    with of_layer.register_forward_pre_hook(lambda _, args: seen.append(args[0])):
        _logits(trained.net, trained.images)
    units = seen[0].double().movedim(1, -1).flatten(0, -2)
    varying = units[:, units.std(0) > 0]
    correlations = varying.T.corrcoef()[*torch.triu_indices(varying.shape[1], varying.shape[1], 1)]
    return float(correlations.abs().mean())


def accuracy_without_units(trained: Trained, fraction: float) -> float:
    """Accuracy when a random fraction of the units of each layer is 0 for good, and nothing makes up for it."""
    found = []
    generator = torch.Generator().manual_seed(trained.seed)
    for _ in range(REPEATS):
        with _removed(trained.net, fraction, generator):
            found.append(_accuracy(trained, trained.images))
    return float(np.mean(found))


def accuracy_with_noise(trained: Trained, std: float) -> float:
    """Accuracy on images with Gaussian noise added, in units of the standard deviation of the training images."""
    found = []
    generator = torch.Generator().manual_seed(trained.seed)
    for _ in range(REPEATS):
        noise = torch.randn(trained.images.shape, generator=generator)
        found.append(_accuracy(trained, trained.images + std * noise))
    return float(np.mean(found))


def sampled_networks(trained: Trained, samples: int) -> Tensor:
    """Log-probabilities (N, classes) of the mean over so many masks."""
    with mask_keys(trained.seed, 0, range(len(trained.images))):
        return monte_carlo(trained.net, trained.images, samples).mean.log()


def geometric_difference(trained: Trained) -> float:
    """The largest |geometric mean of all thinned networks - weight scaling| of a class probability."""
    ensemble = exact_ensemble(trained.net, trained.images)
    return float((ensemble.geometric - ensemble.weight_scaling).abs().max())


def with_new_statistics(trained: Trained) -> nn.Module:
    """A copy whose BatchNorm layers have the mean and variance of the training part with dropout off.

    Source: Hendrycks and Gimpel 2016, "Adjusting for Dropout Variance in Batch Normalization and Weight
        Initialization".
    """
    net = copy.deepcopy(trained.net)
    for layer in net.modules():
        if isinstance(layer, _BatchNorm):
            layer.train()
            layer.momentum = 1.0  # of the last batch, which is the only one
    _logits(net, trained.train_images)
    return net.eval()


def converted(net: nn.Module, example: Tensor) -> nn.Module:
    """A copy with the other scaling: classic where a layer is inverted, else inverted."""
    inverted = any(layer.scaling == "inverted" for layer in _layers(net))
    return convert(copy.deepcopy(net), "classic" if inverted else "inverted", example)


def with_rate(net: nn.Module, p: float) -> nn.Module:
    """A copy whose dropout layers have another p, and the same weights."""
    net = copy.deepcopy(net)
    for layer in _layers(net):
        layer.p = p
    return net


def fine_tuned(trained: Trained, p: float) -> nn.Module:
    """A copy with another p that went on training for 5 epochs: SGD with momentum, learning rate 0.01."""
    net = with_rate(trained.net, p).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    shuffled = torch.Generator().manual_seed(trained.seed)
    for epoch in range(5):
        batches = torch.split(torch.randperm(len(trained.train_images), generator=shuffled), 50)
        for number, rows in enumerate(batches):
            with mask_keys(trained.seed, epoch * len(batches) + number, range(len(rows))):
                loss = F.cross_entropy(net(trained.train_images[rows]), trained.train_classes[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return net.eval()


def map_mean_variance(trained: Trained, over: str = "1") -> float:
    """How much more the mean of a feature map varies when whole maps are dropped than when pixels are.

    The maps are those at the first dropout layer that has any. A mask of variance v gives the mean of n pixels x the
    variance v * mean(x)^2 for whole maps and v * mean(x^2) / n for pixels: where neighbours agree, dropping pixels
    hardly touches the mean (Tompson et al. 2015, section 3.2, say it of the gradient).

    Args:
        trained: a network with feature maps.
        over: "theory": over n * mean(x)^2 / mean(x^2), sums over all maps; "1": as it is.
    """
    seen: list[Tensor] = []
    with ExitStack() as hooks:
        for layer in _layers(trained.net):
            hooks.enter_context(layer.register_forward_pre_hook(lambda _, args: seen.append(args[0])))
        _logits(trained.net, trained.images[:BATCH])
    maps = next(x for x in seen if x.ndim == 4)
    whole, pixels = (_variance_of_means(maps, mask, trained.seed) for mask in ("channel", "element"))
    ratio = whole / pixels
    if over == "1":
        return ratio
    x = maps.double().flatten(2)
    return float(ratio / (x.shape[2] * x.mean(2).square().sum() / x.square().mean(2).sum()))


def shared_masks(trained: Trained, ranks: int) -> float:
    """How much noisier a gradient is when so many ranks draw the same masks than when every row has its own.

    The batch stays the same, so the variance, summed over all parameters, is that of the masks alone. With rho the mean
    correlation of the gradients of two samples that share a mask, the ratio is about 1 + (ranks - 1) * rho.
    """
    net = copy.deepcopy(trained.net)
    for layer in _layers(net):
        layer.train()
    own = torch.arange(BATCH)
    shared = torch.arange(BATCH // ranks).repeat(ranks)
    return _gradient_variance(net, trained, shared) / _gradient_variance(net, trained, own)


def _variance_of_means(maps: Tensor, mask: str, seed: int) -> float:
    """Over masks, of the mean of each map, summed over all maps."""
    layer = Dropout(0.5, mask=mask)
    layer.name = mask
    means = []
    for step in range(DRAWS):
        with mask_keys(seed, step, range(len(maps))):
            means.append(layer(maps).mean((2, 3)))
    return float(torch.stack(means).double().var(0).sum())


def _gradient_variance(net: nn.Module, trained: Trained, rows: Tensor) -> float:
    """Over masks, of the mean gradient of the first training samples, which have the masks of these rows."""
    images, classes = trained.train_images[: len(rows)], trained.train_classes[: len(rows)]
    found = []
    for step in range(DRAWS):
        with mask_keys(trained.seed, step, rows):
            loss = F.cross_entropy(net(images), classes)
        gradients = torch.autograd.grad(loss, list(net.parameters()))
        found.append(torch.cat([gradient.flatten() for gradient in gradients]))
    return float(torch.stack(found).double().var(0).sum())


def _calibration_error(trained: Trained, _: str) -> float:
    probabilities = _logits(trained.net, trained.images).double().softmax(dim=1)
    return expected_calibration_error(probabilities.numpy(), trained.classes.numpy())


@contextmanager
def _removed(net: nn.Module, fraction: float, generator: torch.Generator) -> Iterator[None]:
    """Without a random fraction of the units of each dropout layer."""

    def remove(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        (x,) = args
        kept = torch.ones(x.shape[1])
        kept[torch.randperm(len(kept), generator=generator)[: round(fraction * len(kept))]] = 0
        return (x * kept.view(-1, *(1 for _ in x.shape[2:])),)

    with ExitStack() as hooks:
        for layer in _layers(net):
            hooks.enter_context(layer.register_forward_pre_hook(remove))
        yield


def _layers(net: nn.Module) -> list[Dropout]:
    return [module for module in net.modules() if isinstance(module, Dropout)]


@torch.no_grad()
def _logits(net: nn.Module, images: Tensor) -> Tensor:
    return net(images)  # type: ignore[no-any-return]


def _accuracy(trained: Trained, images: Tensor) -> float:
    return _score(_logits(trained.net, images), trained.classes)["acc"]


def _score(log_p: Tensor, classes: Tensor) -> dict[str, float]:
    """Of logarithms of probabilities, or logits: the same two numbers as in ``test/``."""
    loss = F.cross_entropy(log_p.double(), classes)
    return {"acc": float((log_p.argmax(1) == classes).double().mean()), "loss": float(loss)}


def _lost(accuracy: Callable[[Trained, float], float]) -> Callable[[Trained, str], float]:
    """Accuracy minus that of a network or image that is damaged so much."""
    return lambda trained, much: _accuracy(trained, trained.images) - accuracy(trained, float(much))


def _moved(change: Callable[[Trained, str], nn.Module]) -> Callable[[Trained, str], float]:
    """The largest |difference| that a change of the network makes to a logit, in units of the largest |logit|."""

    def moved(trained: Trained, how: str) -> float:
        before, after = (_logits(net, trained.images) for net in (trained.net, change(trained, how)))
        return float((after - before).abs().max() / before.abs().max())

    return moved


def _gained(what: str, predict: Callable[[Trained, str], Tensor]) -> Callable[[Trained, str], float]:
    """Accuracy or loss of another prediction than the network's own minus that of its own."""

    def gained(trained: Trained, how: str) -> float:
        before = _score(_logits(trained.net, trained.images), trained.classes)
        return _score(predict(trained, how), trained.classes)[what] - before[what]

    return gained


def _both(name: str, predict: Callable[[Trained, str], Tensor]) -> dict[str, Callable[[Trained, str], float]]:
    return {f"{name}/{what}": _gained(what, predict) for what in ("acc", "loss")}


def _seen(what: str, way: str, minus: str | None = None) -> Callable[[Trained, str], float]:
    """One number of a crowd, or its difference between two ways."""

    def seen(trained: Trained, p: str) -> float:
        one, *other = (
            float(getattr(crowd(trained.net, trained.images, each, float(p), trained.seed), what))
            for each in (way, minus)
            if each is not None
        )
        return one - sum(other)

    return seen


# Metric, or what stands before its last "/" -> how to get it from a trained network and what stands behind.
MEASURES: dict[str, Callable[[Trained, str], float]] = {
    "test/ece": _calibration_error,
    "unit_correlation": unit_correlation,
    "accuracy_lost/units": _lost(accuracy_without_units),
    "accuracy_lost/noise": _lost(accuracy_with_noise),
    **_both("monte_carlo", lambda trained, samples: sampled_networks(trained, int(samples))),
    **_both("ensemble", lambda trained, _: exact_ensemble(trained.net, trained.images).arithmetic.log()),
    "ensemble/geometric": lambda trained, _: geometric_difference(trained),
    **_both("new_statistics", lambda trained, _: _logits(with_new_statistics(trained), trained.images)),
    "moved/fold": _moved(lambda trained, _: fold(trained.net, trained.images[:2])),
    "moved/convert": _moved(lambda trained, _: converted(trained.net, trained.images[:2])),
    "moved/rate": _moved(lambda trained, p: with_rate(trained.net, float(p))),
    **_both("removed", lambda trained, _: _logits(without_layers(trained.net), trained.images)),
    **_both("fine_tuned", lambda trained, p: _logits(fine_tuned(trained, float(p)), trained.images)),
    **{f"{what}/{way}": _seen(what, way) for what in ("same_class", "probability", "dark") for way in WAYS},
    **{
        f"{what}/{way}-{other}": _seen(what, way, other)
        for what in ("same_class", "probability")
        for way, other in (("rescaled", "unscaled"), ("whole_maps", "rescaled"))
    },
    "eval_cost": lambda trained, what: eval_cost(trained.net, trained.images[:BATCH], what),
    "map_mean_variance": map_mean_variance,
    "shared_masks": lambda trained, ranks: shared_masks(trained, int(ranks)),
}
