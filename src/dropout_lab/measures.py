"""Numbers of runs that claims are about: scalars, layer statistics, and what only the checkpoints tell.

test/acc, gap/loss, ...             the last value in metrics.csv
dropout_gain_train|eval/LAYER       mean out / mean in of a dropout layer, last value
activation_ratio/LAYER              mean in train / in eval, end to end, last value of the probe
test/ece                            expected calibration error of best.ckpt on the test part, 15 equal bins
METRIC/difference                   of two runs: the largest |a - b| of a scalar over training
weights/difference                  of two runs: the largest |a / c - b| over all parameters and saved checkpoints,
                                    relative to the largest |b|; c is the factor of matched training (1/q or 1)
weights/norm_ratio                  of two runs: norm of a / norm of b at the end, over the weights fed by dropout
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from dropout_lab.errors import UserError
from dropout_lab.report.runs import Run

if TYPE_CHECKING:
    import torch

LAYER_METRICS = {
    "dropout_gain_train": ("train", "gain"),
    "dropout_gain_eval": ("eval", "gain"),
    "activation_ratio": ("probe", "ratio"),
}
BINS = 15


def measure(run: Run, metric: str) -> float:
    """A number of one run; NaN where the run has none."""
    kind, _, layer = metric.partition("/")
    if kind in LAYER_METRICS:
        return run.at_layer(*LAYER_METRICS[kind], layer)
    if metric == "test/ece":
        return _calibration_error(run)
    return run.final(metric)


def measure_pair(a: Run, b: Run, metric: str) -> float:
    """A number of two runs of one seed; NaN where they have none.

    Raises:
        UserError: no such metric.
    """
    if metric in _OF_WEIGHTS:
        return _OF_WEIGHTS[metric](a, b)
    scalar = metric.removesuffix("/difference")
    if scalar == metric:
        raise UserError(f"metric={metric}: of pairs there are {', '.join(_OF_WEIGHTS)} and METRIC/difference")
    if scalar not in a.metrics or scalar not in b.metrics:
        return float("nan")
    return float((a.metrics[scalar] - b.metrics[scalar]).abs().max())


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


def _calibration_error(run: Run) -> float:
    import torch

    from dropout_lab.rebuild import rebuild

    rebuilt = rebuild(run.folder)
    rebuilt.data.setup("test")
    found, true = [], []
    with torch.no_grad():
        for images, classes in rebuilt.data.test_dataloader():
            found.append(rebuilt.net(rebuilt.data.prepare(images)).double().softmax(dim=1))
            true.append(classes)
    return expected_calibration_error(torch.cat(found).numpy(), torch.cat(true).numpy())


def _weight_difference(a: Run, b: Run) -> float:
    factors = _factors(a)
    names = [path.name for path in sorted((a.folder / "checkpoints").glob("*.ckpt")) if path.name != "best.ckpt"]
    worst = float("nan")
    for name in names:
        if not (b.folder / "checkpoints" / name).is_file():
            continue
        of_a, of_b = _weights(a, name), _weights(b, name)
        largest = max(float(value.abs().max()) for value in of_b.values())
        away = max(float((of_a[key] / factors.get(key, 1.0) - of_b[key]).abs().max()) for key in of_b)
        worst = float(np.fmax(worst, away / largest))
    return worst


def _norm_ratio(a: Run, b: Run) -> float:
    fed = _factors(a)
    of_a, of_b = _weights(a, "last.ckpt"), _weights(b, "last.ckpt")
    return float((sum(of_a[key].square().sum() for key in fed) / sum(of_b[key].square().sum() for key in fed)) ** 0.5)


def _factors(run: Run) -> dict[str, float]:
    """Parameter -> factor of matched training, of those whose factor is not 1."""
    import torch

    from dropout_lab.dropout.match import scales
    from dropout_lab.rebuild import rebuild

    rebuilt = rebuild(run.folder, "last")
    return scales(rebuilt.net.train(), torch.zeros(2, *rebuilt.data.shape))


def _weights(run: Run, checkpoint: str) -> "dict[str, torch.Tensor]":
    import torch

    state = torch.load(run.folder / "checkpoints" / checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    return {key.removeprefix("net."): value.double() for key, value in state.items() if value.is_floating_point()}


_OF_WEIGHTS: dict[str, Callable[[Run, Run], float]] = {
    "weights/difference": _weight_difference,
    "weights/norm_ratio": _norm_ratio,
}
