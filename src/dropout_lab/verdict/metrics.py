"""Numbers of runs that claims are about: scalars, layer statistics, and what only the checkpoints tell.

test/acc, gap/loss, ...             the last value in metrics.csv
dropout_gain_train|eval/LAYER       mean out / mean in of a dropout layer, last value
dropout_p/LAYER                     its drop probability, last value
activation_mean_eval/LAYER          mean of a layer's output over the validation part, last value
activation_zeros_eval/LAYER         fraction of exact zeros in it
activation_ratio/LAYER              mean in train / in eval, end to end, last value of the probe
activation_variance_ratio/LAYER     variance in train / in eval, as above
METRIC/difference                   of two runs: the largest |a - b| of a scalar over training
weights/difference                  of two runs: the largest |a / c - b| over all parameters and saved checkpoints,
                                    relative to the largest |b|; c is the factor of matched training (1/q or 1)
weights/norm_ratio                  of two runs: norm of a / norm of b at the end, over the weights fed by dropout

of the best checkpoint on the test part (see network_metrics.py):
test/ece                            expected calibration error, 15 equal bins
unit_correlation/LAYER              mean |correlation| of two units that go into a dropout layer
accuracy_lost/units/F               accuracy minus that without a random fraction F of the units
accuracy_lost/noise/S               accuracy minus that with Gaussian noise of standard deviation S on the images
monte_carlo/acc|loss/K              of the mean prediction of K thinned networks, minus that of weight scaling; of a run
                                    trained with other masks than this package draws there is none
ensemble/acc|loss                   of the mean prediction of all 2^n thinned networks, minus that of weight scaling
ensemble/geometric                  largest |geometric mean of them all - weight scaling| of a probability
new_statistics/acc|loss             with BatchNorm's statistics estimated anew, dropout off, minus before
moved/fold, moved/convert           largest change of a logit / largest |logit|, by folding or converting the network
moved/rate/P                        the same, by giving its dropout layers another p
removed/acc|loss                    without its dropout layers, nothing folded, minus before
fine_tuned/acc|loss/P               with another p, and trained on for 5 epochs, minus before
same_class/WAY/P                    how often the class stays that of dropout off, with dropout of P on the maps; ways:
                                    rescaled, unscaled (its very masks), whole_maps, and differences: rescaled-unscaled,
                                    whole_maps-rescaled
probability/WAY/P                   the mean probability of the class of dropout off; the same ways
dark/WAY/P                          fraction of what is lit in the first maps that goes dark
eval_cost/kept|folded               CPU time in eval mode / without dropout layers: as it is, or folded into weights
eval_cost/control                   the same of the network without them: 1, but for noise
map_mean_variance/1|theory          variance of a map's mean if maps are dropped / if pixels are; over what theory says
shared_masks/W                      variance of the gradient over masks that W ranks share / that every row has alone
"""

import logging
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dropout_lab.cli import UserError
from dropout_lab.runs.folder import checkpoint, checkpoints
from dropout_lab.runs.read import Run

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

Networks = Callable[..., float]  # of a metric and one or two runs

LAYER_METRICS = {
    "dropout_p": ("train", "p"),
    "dropout_gain_train": ("train", "gain"),
    "dropout_gain_eval": ("eval", "gain"),
    "activation_mean_eval": ("eval", "mean"),
    "activation_zeros_eval": ("eval", "zeros"),
    "activation_ratio": ("probe", "ratio"),
    "activation_variance_ratio": ("probe", "variance_ratio"),
}


def measure(run: Run, metric: str, of_networks: Networks | None = None) -> float:
    """A number of one run; NaN where the run has none.

    Args:
        run: whose number.
        metric: its name.
        of_networks: what is asked for numbers that only trained networks tell; None: these are measured.
    """
    kind, _, layer = metric.partition("/")
    if kind in LAYER_METRICS:
        return run.at_layer(*LAYER_METRICS[kind], layer)
    if metric in run.metrics:
        return run.final(metric)
    return (of_networks or measured)(metric, run)


@lru_cache(maxsize=4096)  # a claim and a figure may ask for the same; a Run is equal to itself only
def measured(metric: str, run: Run, other: Run | None = None) -> float:
    """A metric that only trained networks tell; NaN where it is not one of those, or is refused."""
    if other is not None:
        return _OF_WEIGHTS[metric](run, other)
    from dropout_lab.runs.masks import why_other_masks
    from dropout_lab.verdict.network_metrics import MEASURES
    from dropout_lab.verdict.trained_network import load

    if metric in MEASURES:
        return MEASURES[metric](load(run.folder), "")
    name, _, argument = metric.rpartition("/")
    if name not in MEASURES:
        return float("nan")
    if name.startswith("monte_carlo/") and (why := why_other_masks(run.folder)):
        _warn_of_no_monte_carlo(why)
        return float("nan")
    return MEASURES[name](load(run.folder), argument)


@lru_cache  # once for all runs and metrics
def _warn_of_no_monte_carlo(why: str) -> None:
    """Tell why claims about Monte Carlo have no number, which the other claims need not go without."""
    log.warning(
        "claims about Monte Carlo are left without a number: runs %s; the version of this package that trained them "
        "can judge these claims",
        why,
    )


def measure_pair(a: Run, b: Run, metric: str, of_networks: Networks | None = None) -> float:
    """A number of two runs of one seed; NaN where they have none.

    Args:
        a, b: the runs.
        metric: its name.
        of_networks: as of :func:`measure`.

    Raises:
        UserError: no such metric.
    """
    if metric in _OF_WEIGHTS:
        return (of_networks or measured)(metric, a, b)
    scalar = metric.removesuffix("/difference")
    if scalar == metric:
        raise UserError(f"metric={metric}: of pairs there are {', '.join(_OF_WEIGHTS)} and METRIC/difference")
    if scalar not in a.metrics or scalar not in b.metrics:
        return float("nan")
    return float((a.metrics[scalar] - b.metrics[scalar]).abs().max())


def _weight_difference(a: Run, b: Run) -> float:
    """The largest difference of two runs' weights over all checkpoints that both saved; NaN where there are none.

    Those in the best epoch are left out: it need not be the same one in both.
    """
    factors = _matching_factors(a)
    worst = float("nan")
    for ours in checkpoints(a.folder):
        theirs = checkpoint(b.folder, ours.stem)
        if ours == checkpoint(a.folder, "best") or not theirs.is_file():
            continue
        of_a, of_b = _weights(ours), _weights(theirs)
        largest = max(float(value.abs().max()) for value in of_b.values())
        away = max(float((of_a[key] / factors.get(key, 1.0) - of_b[key]).abs().max()) for key in of_b)
        worst = float(np.fmax(worst, away / largest))
    return worst


def _norm_ratio(a: Run, b: Run) -> float:
    """Norm of the weights that dropout feeds, of one run / of the other, in their last checkpoints."""
    fed = _matching_factors(a)
    of_a, of_b = (_weights(checkpoint(run.folder, "last")) for run in (a, b))
    return float((sum(of_a[key].square().sum() for key in fed) / sum(of_b[key].square().sum() for key in fed)) ** 0.5)


def _matching_factors(run: Run) -> dict[str, float]:
    """The factors of matched training, parameter -> factor, of those whose factor is not 1."""
    import torch

    from dropout_lab.dropout.folding.match import factors_of_matching
    from dropout_lab.runs.network import restore

    restored = restore(run.folder, "last")
    return factors_of_matching(restored.net.train(), torch.zeros(2, *restored.data.shape))


def _weights(path: Path) -> "dict[str, torch.Tensor]":
    """The floating-point weights in a checkpoint file, in double precision."""
    from dropout_lab.runs.network import read_checkpoint

    state = read_checkpoint(path).net
    return {key: value.double() for key, value in state.items() if value.is_floating_point()}


_OF_WEIGHTS: dict[str, Callable[[Run, Run], float]] = {
    "weights/difference": _weight_difference,
    "weights/norm_ratio": _norm_ratio,
}
