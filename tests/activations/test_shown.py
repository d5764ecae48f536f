"""Laws of which watched tensors go to the loggers."""

import pytest
from torch import nn

from dropout_lab.activations import taps_of
from dropout_lab.activations.shown import shown
from dropout_lab.dropout import Dropout


def taps(*kinds):
    return taps_of(nn.Sequential(*(nn.ReLU() if kind == "r" else Dropout(0.5) for kind in kinds)))


@pytest.mark.parametrize("most", [6, 7, None])
def test_all_are_shown_where_they_fit(most):
    found = taps(*"rrrrd")
    assert shown(found, most) == {tap.name for tap in found}


def test_dropout_layers_come_first_and_others_are_evenly_spaced():
    assert shown(taps(*"rrrrrdr"), 5) == {"05_5_in", "05_5", "00_0", "03_3", "06_6"}


def test_too_many_dropout_layers_are_evenly_spaced_each_with_its_input():
    assert shown(taps(*"ddddddddd"), 6) == {"00_0_in", "00_0", "04_4_in", "04_4", "08_8_in", "08_8"}


def test_of_two_the_last_dropout_layer_is_kept():
    assert shown(taps(*"rrdrrd"), 2) == {"05_5_in", "05_5"}


@pytest.mark.parametrize("most", range(2, 22))
def test_exactly_as_many_are_shown_as_may_be(most):
    found = taps(*"rrdrrrrdrrrrrrrdrr")  # 15 and 3 with an input
    assert len(shown(found, most)) == min(most, len(found))
