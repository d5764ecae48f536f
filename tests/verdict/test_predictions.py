"""Calibration and ensembles, on networks whose predictions are known by hand."""

import numpy as np
import pytest
import torch
from chosen_networks import linear, network_of, one_hidden_layer
from torch import nn

from dropout_lab.dropout import Dropout
from dropout_lab.verdict.network_metrics import MEASURES
from dropout_lab.verdict.predictions import expected_calibration_error, mean_of_sampled_networks


def test_calibration_error_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]])
    # at 0.9 half are right: |0.5 - 0.9| for 2 of 4; at 0.6 all are: |1 - 0.6| for 2 of 4
    assert expected_calibration_error(probabilities, np.array([0, 1, 0, 1])) == pytest.approx(0.4)
    assert expected_calibration_error(np.eye(3), np.arange(3)) == 0


def test_the_sample_s_prediction_is_a_mean_of_probabilities():
    """Masks of the layer keep unit 1 or not, so each network is sure of class 0 or of class 1."""
    x = torch.ones(2000, 1)
    one = network_of(Dropout(0.25), linear([[0], [100]], [50, 0]), images=x, classes=torch.ones(2000).long())
    probabilities = mean_of_sampled_networks(one, 64).exp()
    assert float(probabilities[:, 1].mean()) == pytest.approx(0.75, abs=0.01)
    assert float(probabilities[:, 1].std()) == pytest.approx((0.75 * 0.25 / 64) ** 0.5, rel=0.1)


def test_the_sample_is_compared_with_weight_scaling():
    one = network_of(Dropout(0.25), linear([[0], [100]], [50, 0]), images=torch.ones(2000, 1))
    assert MEASURES["monte_carlo/acc"](one, "1") == pytest.approx(0.25, abs=0.03)  # weight scaling is always wrong
    assert MEASURES["monte_carlo/loss"](one_hidden_layer(p=0.0), "1") == pytest.approx(0, abs=1e-6)


def test_the_geometric_mean_is_weight_scaling_with_one_hidden_layer_only():
    one = one_hidden_layer(p=0.3)
    assert MEASURES["ensemble/geometric"](one, "") < 1e-6
    one.net.append(nn.ReLU()).append(nn.Linear(4, 4))
    assert MEASURES["ensemble/geometric"](one, "") > 1e-3


def test_the_ensemble_s_loss_is_that_of_the_arithmetic_mean():
    """Half of the networks give class 1 a probability of 1, half of 1/2: log(3/4). Weight scaling is sure."""
    one = network_of(Dropout(0.5), linear([[0], [100]]), images=torch.ones(3, 1), classes=torch.ones(3).long())
    assert MEASURES["ensemble/loss"](one, "") == pytest.approx(-np.log(0.75))
    assert MEASURES["ensemble/acc"](one, "") == 0
