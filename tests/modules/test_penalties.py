"""What dropout layers add to the loss."""

import pytest
import torch
from torch import nn

from dropout_lab.dropout import Dropout, Placement, install
from dropout_lab.modules.penalties import Penalties


class Told(Dropout):
    """Costs the rows, times the units that it feeds."""

    def penalty(self, fed, rows):
        return torch.tensor(float(rows * sum(layer.out_features for layer in fed)))


def test_each_layer_is_given_what_it_feeds_and_the_number_of_samples():
    net = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 7))
    install(net, Told, Placement("activations", p=0.5))
    penalties = Penalties(net)
    penalties.samples = 10
    assert penalties.total() == 10 * (5 + 7)


def test_layers_without_one_add_nothing():
    net = nn.Sequential(nn.Linear(2, 4), Dropout(0.5))
    assert Penalties(net).terms == []


def test_a_network_that_can_not_be_followed_is_refused_where_a_layer_has_one():
    class Changing(nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            return self.layer(x) if x.sum() > 0 else x

    assert Penalties(Changing(Dropout(0.5))).terms == []
    with pytest.raises(ValueError, match=r"^Changing can't be traced by torch\.fx"):
        Penalties(Changing(Told(0.5)))
