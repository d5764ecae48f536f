"""Metrics by their names: each reaches its measure, with what stands behind the last slash."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from chosen_networks import classic_and_inverted, linear, network_of, one_hidden_layer

from dropout_lab.dropout import Dropout, none
from dropout_lab.runs.read import Run
from dropout_lab.verdict import network_metrics, trained_network
from dropout_lab.verdict.changed_network import fine_tuned
from dropout_lab.verdict.cost import without_layers
from dropout_lab.verdict.darkened_maps import Darkened
from dropout_lab.verdict.mask_variance import gradient_variance
from dropout_lab.verdict.metrics import measure
from dropout_lab.verdict.network_metrics import COST_BATCH, MEASURES
from dropout_lab.verdict.predictions import mean_of_sampled_networks
from dropout_lab.verdict.robustness import accuracy_with_noise, accuracy_without_units


def test_a_metric_names_the_measure_and_how_much(monkeypatch, tmp_path):
    one = network_of(none(), linear([[0.0], [1.0]], [0.5, 0]), images=torch.ones(4, 1), classes=torch.ones(4).long())
    monkeypatch.setattr(trained_network, "load", lambda folder: one)
    run = Run(tmp_path, "0", "ok")
    assert measure(run, "accuracy_lost/units/1") == 1
    assert measure(run, "accuracy_lost/units/0") == 0
    assert measure(run, "test/ece") == pytest.approx(0.3775, abs=1e-4)  # 1 - 1 / (1 + exp(-0.5))
    assert np.isnan(measure(run, "accuracy_lost"))


def test_arms_of_one_seed_meet_the_same_draws_and_other_seeds_other_ones():
    one = one_hidden_layer(images=64)
    for measure_of in (
        lambda one: accuracy_without_units(one, 0.5),
        lambda one: accuracy_with_noise(one, 1.0),
        lambda one: float(mean_of_sampled_networks(one, 2).sum()),
        lambda one: float(fine_tuned(one, 0.5)[0].weight.detach().sum()),
        lambda one: gradient_variance(one.net.train(), one, torch.arange(64)),
    ):
        first, again, other = (measure_of(replace(one, seed=seed)) for seed in (1, 1, 2))
        assert first == again != other


def test_removing_layers_folds_nothing():
    classic, inverted = classic_and_inverted()
    assert MEASURES["removed/loss"](inverted, "") == 0
    assert torch.equal(without_layers(classic.net)(classic.images), inverted.net(inverted.images))
    assert MEASURES["removed/loss"](classic, "") != 0
    assert any(isinstance(layer, Dropout) for layer in classic.net)  # the network is as it was


def test_two_ways_of_dropping_are_compared_in_one_network(monkeypatch):
    seen = {"rescaled": 0.75, "unscaled": 0.5, "whole_maps": 0.25}
    monkeypatch.setattr(
        network_metrics, "compare_with_darkened", lambda net, images, way, p, seed: Darkened(seen[way], p, seed)
    )
    one = replace(one_hidden_layer(), seed=4)
    assert MEASURES["same_class/rescaled"](one, "0.1") == 0.75
    assert MEASURES["same_class/rescaled-unscaled"](one, "0.1") == 0.25
    assert MEASURES["same_class/whole_maps-rescaled"](one, "0.1") == -0.5
    assert MEASURES["probability/unscaled"](one, "0.1") == 0.1
    assert MEASURES["dark/whole_maps"](one, "0.1") == 4


def test_the_cost_in_eval_mode_is_that_of_one_batch(monkeypatch):
    monkeypatch.setattr(network_metrics, "eval_cost", lambda net, images, what: (len(images), what))
    assert MEASURES["eval_cost"](one_hidden_layer(images=100), "folded") == (COST_BATCH, "folded")
