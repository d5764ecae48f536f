"""Monte Carlo dropout: predict with a sample of thinned networks, and say what kind of uncertainty there is."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dropout_lab.dropout import keys
from dropout_lab.dropout.ensembles.prefix import Prefix, logits
from dropout_lab.dropout.graph.calls import is_leaf
from dropout_lab.dropout.graph.hooks import intercepting
from dropout_lab.dropout.graph.modes import dropout_only

# Seconds that a CPU takes for a call of a module, a number of its output, and a multiply-add; elsewhere the calls cost
# most. Rough numbers, and never measured ones: how it is computed decides which masks are drawn, so it must not vary.
_CALL, _NUMBER, _MULTIPLY_ADD = 8e-6, 3e-9, 5e-11
_TRACING = 2.5e-4  # for each module of a model that is cut


class MonteCarlo(NamedTuple):
    """Predictions of a sample of thinned networks, and how far they disagree.

    Attributes:
        mean: class probabilities, (N, classes).
        variance: of each probability over the sample (divided by the number of samples), (N, classes).
        entropy: of the mean, in nats, (N,): all uncertainty there is.
        mutual_information: between prediction and mask, in nats, (N,): the part on which the networks disagree.
    """

    mean: Tensor
    variance: Tensor
    entropy: Tensor
    mutual_information: Tensor


def monte_carlo(model: nn.Module, x: Tensor, samples: int) -> MonteCarlo:
    """Predict with a sample of thinned networks of a model.

    What comes before the first dropout layer is computed once. The rest runs pass by pass or for many passes at once,
    whichever should be faster; shapes, the number of parameters and the kind of device decide, so one seed of torch's
    generator gives one answer. Inside ``mask_keys`` it runs pass by pass, and sample t meets the masks of the t-th
    forward pass in that context. A model without active dropout runs once. Only dropout MODULES are active:
    functional dropout, that inside attention, and stochastic depth stay in eval mode.

    Args:
        model: returns logits (N, classes).
        x: a batch, (N, ...).
        samples: number of forward passes, >= 1.

    Raises:
        ValueError: samples < 1, or an output that is not logits (N, classes).

    Source: Gal and Ghahramani 2016 (their model precision is for regression and not added to the variance); Gal 2016,
        section 3.3 (entropy and mutual information); Srivastava et al. 2014, section 7.5, needed 50 samples to be as
        good as weight scaling.
    """
    if samples < 1:
        raise ValueError(f"samples is the number of forward passes and must be >= 1, got {samples}")
    moments = _Moments()
    with dropout_only(model, on=True):
        for logits in _passes(model, x, samples):
            moments.add(logits)
    return moments.result()


def _passes(model: nn.Module, x: Tensor, samples: int) -> Iterator[Tensor]:
    """The logits of all passes, in chunks (copies, N, classes)."""
    parts = Prefix(model, cut=False)
    samples = samples if parts.layers else 1
    if parts.whole and samples > 1:
        enough = _TRACING * (10 + len(parts.modules))
        seconds = _least_seconds(parts.modules, x)
        if samples * seconds <= enough and x.ndim > 2:  # how often weights are used depends on sizes between the layers
            output, seconds = _observed_pass(model, x, parts)
            yield output[None]
            samples -= 1
        if samples * seconds > enough:
            parts.cut()
    values = parts.start(x) if samples else []
    # Keyed masks belong to the rows of the batch; and to see whether copies work may take as long as two passes.
    largest = 1 if samples <= 4 or keys.active() else parts.largest_chunk(x, values)
    while samples:
        now = min(samples, largest)
        samples -= now
        yield parts.finish(values, now)


def _least_seconds(modules: list[nn.Module], x: Tensor) -> float:
    """A bound below the time of a pass: each parameter meets each row, those of convolutions a 256th of its pixels."""
    pixels = max(1, math.prod(x.shape[2:]) // 256)
    parameters = [parameter for module in modules for parameter in module.parameters(recurse=False)]
    products = sum(parameter.numel() * (pixels if parameter.ndim > 2 else 1) for parameter in parameters)
    return products * len(x) * _MULTIPLY_ADD


def _observed_pass(model: nn.Module, x: Tensor, parts: Prefix) -> tuple[Tensor, float]:
    """The logits of one pass, and the seconds that it should take up to its first active dropout layer."""
    seconds, over = 0.0, False

    def count(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        nonlocal seconds, over
        over = over or module in parts.layers
        if over or not isinstance(output, Tensor):
            return
        seconds += _CALL
        if x.device.type == "cpu":
            weight = getattr(module, "weight", None)
            each = weight[0].numel() if isinstance(weight, Tensor) and weight.ndim else 0  # products for one number
            seconds += output.numel() * (_NUMBER + _MULTIPLY_ADD * each)

    with intercepting(filter(is_leaf, parts.modules), after=count):
        output = logits(model(x.clone()))  # which may write to its input
    return output, seconds


class _Moments:
    """Running sums over passes; deviations are taken from the first pass, so that small variances survive."""

    def __init__(self) -> None:
        self.count = 0
        self.sums: tuple[Tensor, ...] = ()

    def add(self, logits: Tensor) -> None:
        """Count the logits (copies, N, classes) of passes."""
        dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
        copies, _, classes = logits.shape
        # Classes come first: along a short last dimension a softmax takes ten times as long.
        probability = logits.flatten(0, 1).t().contiguous().softmax(0, dtype=dtype).view(classes, copies, -1)
        if not self.sums:
            self.first = probability[:, :1]
        deviation = probability - self.first
        new = deviation.sum(1), deviation.square().sum(1), torch.special.entr(probability).sum((0, 1))
        self.sums = tuple(map(torch.add, self.sums, new)) if self.sums else new
        self.count += copies

    def result(self) -> MonteCarlo:
        """The moments of all passes so far."""
        deviation, square, entropy = self.sums
        share = 1 / self.count
        mean = torch.add(self.first[:, 0], deviation, alpha=share)
        variance = torch.sub(square, deviation.square(), alpha=share).mul_(share).clamp_min_(0)
        total = torch.special.entr(mean).sum(0)
        mutual = torch.sub(total, entropy, alpha=share).clamp_min_(0)
        return MonteCarlo(mean.t().contiguous(), variance.t().contiguous(), total, mutual)
