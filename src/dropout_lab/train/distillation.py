"""Knowledge distillation (Hinton et al. 2015): a network also learns from what a larger one says."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dropout_lab.modules.classification import Classifier
from dropout_lab.runs import read


class Distillation(Classifier):
    """Minimises (1 - weight) * loss + weight * T^2 * KL(teacher || student), both softened by the temperature T.

    Args:
        teacher: folder of the run that trained it; its best weights are taken, without dropout.
        temperature: both networks' logits are divided by it.
        weight: of what the teacher says, in [0, 1].
    """

    def __init__(
        self, *arguments: Any, teacher: str, temperature: float = 4.0, weight: float = 0.9, **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self.teacher = read.open(Path(teacher)).network().requires_grad_(False)
        self.temperature, self.weight = temperature, weight

    def loss(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and its part of the teacher as ``train/distillation``."""
        x, y = batch
        student = self.net(x)
        with torch.no_grad():
            wanted = F.log_softmax(self.teacher(x) / self.temperature, 1)
        said = F.log_softmax(student / self.temperature, 1)
        distance = self.temperature**2 * F.kl_div(said, wanted, reduction="batchmean", log_target=True)
        return (1 - self.weight) * self._loss(student, y) + self.weight * distance, {"distillation": distance}
