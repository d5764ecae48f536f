"""A small network with two sizes of map, to be looked at."""

import numpy as np
import torch
from torch import nn

from dropout_lab.look.subject import Subject
from dropout_lab.look.views import CONDITIONS


class Net(nn.Module):
    """Two convolutions with one ReLU, in place and called twice; a hidden layer with dropout."""

    def __init__(self, dropout):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 24, 3, padding=1), nn.Conv2d(24, 40, 3, padding=1)
        self.relu, self.pool = nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(2)
        self.hidden, self.drop, self.head = nn.Linear(160, 30), dropout, nn.Linear(30, 7)

    def forward(self, x):
        x = self.relu(self.second(self.relu(self.first(x))))
        return self.head(self.drop(self.hidden(self.pool(x).flatten(1))))


def subject(net=None):
    torch.manual_seed(0)
    net = (net or Net(nn.Dropout(0.3))).eval()
    x = torch.randn(1, 1, 8, 8)
    return Subject(net, x, np.zeros((8, 8)), [f"c{i}" for i in range(7)], "net", "noise", False, 0.5)


FIRST, SECOND, VECTOR = "01_relu", "03_relu_call2", "06_drop"


def outputs(look, layer):
    return [look.views[condition].outputs[layer] for condition in CONDITIONS]
