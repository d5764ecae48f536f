"""Metrics that only a trained network tells, by their names; metrics.py says in words what each of them is."""

from collections.abc import Callable

from torch import Tensor, nn

from dropout_lab.dropout import fold
from dropout_lab.verdict.changed_network import fine_tuned, with_new_statistics, with_other_scaling, with_rate
from dropout_lab.verdict.cost import eval_cost, without_layers
from dropout_lab.verdict.darkened_maps import WAYS, compare_with_darkened
from dropout_lab.verdict.mask_variance import map_mean_variance, shared_masks
from dropout_lab.verdict.predictions import (
    calibration_error,
    geometric_difference,
    mean_of_all_networks,
    mean_of_sampled_networks,
)
from dropout_lab.verdict.robustness import accuracy_with_noise, accuracy_without_units
from dropout_lab.verdict.trained_network import TrainedNetwork, accuracy, logits, score
from dropout_lab.verdict.units import unit_correlation

COST_BATCH = 64  # images of a forward pass that is timed

Measure = Callable[[TrainedNetwork, str], float]  # of a network and what stands behind the metric's last "/"


def _loses(accuracy_when_damaged: Callable[[TrainedNetwork, float], float]) -> Measure:
    """Accuracy minus that when network or images are damaged as much as the metric says."""
    return lambda network, much: accuracy(network, network.images) - accuracy_when_damaged(network, float(much))


def _moves(change: Callable[[TrainedNetwork, str], nn.Module]) -> Measure:
    """The largest |difference| that a change of the network makes to a logit, in units of the largest |logit|."""

    def measure(network: TrainedNetwork, how: str) -> float:
        before, after = (logits(net, network.images) for net in (network.net, change(network, how)))
        return float((after - before).abs().max() / before.abs().max())

    return measure


def _gains(name: str, predict: Callable[[TrainedNetwork, str], Tensor]) -> dict[str, Measure]:
    """NAME/acc and NAME/loss: accuracy and loss of another prediction minus those of the network's own."""

    def gain(what: str) -> Measure:
        def measure(network: TrainedNetwork, how: str) -> float:
            before = score(logits(network.net, network.images), network.classes)
            return score(predict(network, how), network.classes)[what] - before[what]

        return measure

    return {f"{name}/{what}": gain(what) for what in ("acc", "loss")}


def _in_the_dark(what: str, way: str, minus: str | None = None) -> Measure:
    """One number of a comparison with darkened maps, or its difference between two ways."""

    def measure(network: TrainedNetwork, p: str) -> float:
        one, *other = (
            float(getattr(compare_with_darkened(network.net, network.images, each, float(p), network.seed), what))
            for each in (way, minus)
            if each is not None
        )
        return one - sum(other)

    return measure


# Metric, or what stands before its last "/" -> how it is measured.
MEASURES: dict[str, Measure] = {
    "test/ece": lambda network, _: calibration_error(network),
    "unit_correlation": unit_correlation,
    "accuracy_lost/units": _loses(accuracy_without_units),
    "accuracy_lost/noise": _loses(accuracy_with_noise),
    **_gains("monte_carlo", lambda network, samples: mean_of_sampled_networks(network, int(samples))),
    **_gains("ensemble", lambda network, _: mean_of_all_networks(network)),
    "ensemble/geometric": lambda network, _: geometric_difference(network),
    **_gains("new_statistics", lambda network, _: logits(with_new_statistics(network), network.images)),
    "moved/fold": _moves(lambda network, _: fold(network.net, network.images[:2])),
    "moved/convert": _moves(lambda network, _: with_other_scaling(network.net, network.images[:2])),
    "moved/rate": _moves(lambda network, p: with_rate(network.net, float(p))),
    **_gains("removed", lambda network, _: logits(without_layers(network.net), network.images)),
    **_gains("fine_tuned", lambda network, p: logits(fine_tuned(network, float(p)), network.images)),
    **{f"{what}/{way}": _in_the_dark(what, way) for what in ("same_class", "probability", "dark") for way in WAYS},
    **{
        f"{what}/{way}-{other}": _in_the_dark(what, way, other)
        for what in ("same_class", "probability")
        for way, other in (("rescaled", "unscaled"), ("whole_maps", "rescaled"))
    },
    "eval_cost": lambda network, what: eval_cost(network.net, network.images[:COST_BATCH], what),
    "map_mean_variance": map_mean_variance,
    "shared_masks": lambda network, ranks: shared_masks(network, int(ranks)),
}
