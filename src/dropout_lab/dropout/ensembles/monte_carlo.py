"""Monte Carlo dropout: predict with a sample of thinned networks, and say what kind of uncertainty there is."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dropout_lab.dropout import keys
from dropout_lab.dropout.ensembles.prefix import Prefix, active_layers, chunk, logits
from dropout_lab.dropout.graph.modes import dropout_only

_FEW_ROWS = 2**8  # a chunk of so many is tried at once
# Seconds that all passes together must take for each module of a model before it is cut: 20 times what cutting takes.
_TRACING = 6e-3


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
    whichever turns out to be faster. Inside ``mask_keys`` it runs pass by pass, and sample t meets the masks of the
    t-th forward pass in that context. A model without active dropout runs once. Only dropout MODULES are active:
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
        for logits in _passes(model, x, samples if active_layers(model) else 1):
            moments.add(logits)
    return moments.result()


def _passes(model: nn.Module, x: Tensor, samples: int) -> Iterator[Tensor]:
    """The logits of all passes, in chunks (copies, N, classes)."""
    enough = _TRACING * (10 + sum(1 for _ in model.modules()))
    best: dict[int, float] = {}  # copies in one chunk -> least seconds for each
    cut = samples * _least_seconds(model, x) > enough
    if not cut:
        seconds, output = _timed(lambda: model(x), x.device)
        yield logits(output)[None]
        samples -= 1
        cut = samples * seconds > enough
        best = {} if cut else {1: seconds}
    parts = Prefix(model, cut)
    values = parts.start(x)
    largest = 1
    if samples > 4 and not keys.active():  # keyed masks belong to the rows of the batch
        with dropout_only(model, on=False):
            largest = chunk(values, len(x)) if parts.batches(x, values) else 1
    while samples:
        now = min(samples, largest, _next_size(best, len(x)))
        seconds, output = _timed(lambda n=now: parts.finish(values, n), x.device)  # type: ignore[misc]
        best[now] = min(best.get(now, math.inf), seconds / now)
        samples -= now
        yield output


def _next_size(best: dict[int, float], rows: int) -> int:
    """The size of the next chunk: the fastest so far, or a larger one where that made a clear difference before.

    Where there are many rows only a little larger: it is seldom faster there, and to find that out should cost little.
    """
    if not best:
        return 1
    fastest, last = min(best, key=best.__getitem__), max(best)
    clear = best[last] < 0.6 * min((best[size] for size in best if size != last), default=math.inf)
    return max(2 * last, _FEW_ROWS // rows) if fastest == last and clear else fastest


def _least_seconds(model: nn.Module, x: Tensor) -> float:
    """A bound below the time of one pass: each parameter meets each row at least once."""
    return sum(parameter.numel() for parameter in model.parameters()) * len(x) / 2e10


def _timed(run: Callable[[], Tensor], device: torch.device) -> tuple[float, Tensor]:
    if device.type == "cpu":  # the thread's own time: on a busy machine the wall clock tells about the neighbours
        start = time.thread_time()
        output = run()
        return time.thread_time() - start, output
    torch.accelerator.synchronize()
    start = time.perf_counter()
    output = run()
    torch.accelerator.synchronize()
    return time.perf_counter() - start, output


class _Moments:
    """Running sums over passes; deviations are taken from the first pass, so that small variances survive."""

    def __init__(self) -> None:
        self.count = 0
        self.sums: list[Tensor] = []

    def add(self, logits: Tensor) -> None:
        """Count the logits (copies, N, classes) of passes."""
        dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
        probability = logits.softmax(-1, dtype=dtype)
        if not self.sums:
            self.first = probability[0]
        deviation = probability - self.first
        parts = deviation, deviation.square(), torch.special.entr(probability).sum(-1)
        new = [part.sum(0) for part in parts]
        self.sums = [old + part for old, part in zip(self.sums, new, strict=True)] if self.sums else new
        self.count += len(logits)

    def result(self) -> MonteCarlo:
        """The moments of all passes so far."""
        deviation, square, entropy = (total / self.count for total in self.sums)
        mean = self.first + deviation
        total = torch.special.entr(mean).sum(-1)
        variance = (square - deviation.square()).clamp_min(0)
        return MonteCarlo(mean, variance, total, (total - entropy).clamp_min(0))
