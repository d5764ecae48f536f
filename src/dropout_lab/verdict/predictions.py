"""Predictions of a trained network: how well calibrated they are, and what its thinned networks predict together."""

import numpy as np
from torch import Tensor

from dropout_lab.dropout import exact_ensemble, mask_keys, monte_carlo
from dropout_lab.verdict.trained_network import TrainedNetwork, logits

BINS = 15  # of confidence


def calibration_error(network: TrainedNetwork) -> float:
    """The expected calibration error of a network on the test part."""
    probabilities = logits(network.net, network.images).double().softmax(dim=1)
    return expected_calibration_error(probabilities.numpy(), network.classes.numpy())


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


def mean_of_sampled_networks(network: TrainedNetwork, samples: int) -> Tensor:
    """Log-probabilities (N, classes) of the mean over so many thinned networks."""
    with mask_keys(network.seed, 0, range(len(network.images))):
        return monte_carlo(network.net, network.images, samples).mean.log()


def mean_of_all_networks(network: TrainedNetwork) -> Tensor:
    """Log-probabilities (N, classes) of the arithmetic mean over all 2^n thinned networks."""
    return exact_ensemble(network.net, network.images).arithmetic.log()


def geometric_difference(network: TrainedNetwork) -> float:
    """The largest |geometric mean of all thinned networks - weight scaling| of a class probability."""
    ensemble = exact_ensemble(network.net, network.images)
    return float((ensemble.geometric - ensemble.weight_scaling).abs().max())
