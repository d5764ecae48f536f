"""Run by test_processes.py on several processes: trains what the configuration in each of these folders says.

python -m torch.distributed.run --nproc-per-node 2 folder_ranks.py FOLDER ...
"""

import sys
from pathlib import Path

from torch import nn

from dropout_lab import processes


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


if __name__ == "__main__":
    with processes.leaving_nothing():
        for folder in sys.argv[1:]:
            processes.main(Path(folder))
