"""Knowledge distillation (Hinton et al. 2015): a network also learns from what another one says, a teacher."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dropout_lab.cli import UserError
from dropout_lab.jobs.build import module_class
from dropout_lab.modules.classification import Classifier
from dropout_lab.modules.frozen import Frozen
from dropout_lab.modules.sums import at_least_float32
from dropout_lab.runs.folder import read_status
from dropout_lab.runs.network import restore
from dropout_lab.runs.start_from import source


class Distillation(Classifier):
    """Minimises (1 - weight) * loss + weight * T^2 * KL(teacher || student), both softened by the temperature T.

    The teacher says what it does in evaluation, without dropout, to the very inputs that the network has: augmented
    ones, too. Only training asks it.

    Args:
        arguments: as for :class:`~dropout_lab.modules.classification.Classifier`.
        teacher: folder of the run that trained it, whose best weights are taken, or one of its checkpoint files.
        temperature: both networks' logits are divided by it.
        weight: of what the teacher says, in [0, 1].
        options: as for :class:`~dropout_lab.modules.classification.Classifier`.
    """

    def __init__(
        self, *arguments: Any, teacher: str, temperature: float = 4.0, weight: float = 0.9, **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        if not temperature > 0:
            raise ValueError(f"temperature={temperature}: must be a number > 0")
        if not 0 <= weight <= 1:
            raise ValueError(f"weight={weight}: must be a number in [0, 1]")
        self._run, self._temperature, self._weight = teacher, temperature, weight
        self._teacher: Frozen | None = None

    def begin(self, data: Any) -> None:
        """Load the teacher.

        Raises:
            UserError: there is none, it is not trained to the end, or it answers another question.
        """
        file, key = source(self._run, "module.teacher"), f"module.teacher={self._run}"
        folder = file.parent.parent
        if (status := read_status(folder)["status"]) != "ok":
            raise UserError(f"{key}: that run has the status {status}; a teacher has to be trained to its end (ok)")
        with torch.random.fork_rng(devices=[]):  # its initial weights are overwritten
            there = restore(folder, file.stem)
        kind = module_class(there.config)
        if not issubclass(kind, Classifier):
            raise UserError(f"{key}: that run is no classification, but {kind.__name__}")
        theirs, own = (f"{each.shape} and {kind.outputs(each)} classes" for each in (there.data, data))
        if theirs != own:
            raise UserError(f"{key}: that run has inputs {theirs}, but here they are {own}; both have to be the same")
        self._teacher = Frozen(there.net)

    def loss(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and its part of the teacher as ``train/distillation``."""
        assert self._teacher is not None, "training begins with `begin`"
        x, y = batch
        student = at_least_float32(self.net(x))
        wanted = F.log_softmax(at_least_float32(self._teacher(x)) / self._temperature, 1)
        said = F.log_softmax(student / self._temperature, 1)
        distance = self._temperature**2 * F.kl_div(said, wanted, reduction="batchmean", log_target=True)
        return (1 - self._weight) * self._loss(student, y) + self._weight * distance, {"distillation": distance}
