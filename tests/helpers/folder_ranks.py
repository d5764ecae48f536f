"""What test_processes.py has several processes do: train what the configuration in each of some folders says."""

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from dropout_lab.train import job


class Smooth(nn.Sequential):
    """A small CNN whose gradient has no jumps: no ReLU, no maximum."""

    def __init__(self, input_shape, num_classes):
        super().__init__(
            nn.Conv2d(input_shape[0], 16, 3, padding=1),
            nn.Tanh(),
            nn.AvgPool2d(2),
            nn.Dropout(),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.Tanh(),
            nn.AvgPool2d(2),
            nn.Dropout(),
            nn.Flatten(),
            nn.Linear(128, num_classes),
        )


def train(folders: Sequence[Path]) -> None:
    for folder in folders:
        job.one_of_several(folder)
