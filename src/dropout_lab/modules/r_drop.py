"""R-Drop (Liang et al. 2021): two passes with different dropout masks have to agree."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from dropout_lab.modules.classification import Classifier
from dropout_lab.modules.sums import at_least_float32


class RDrop(Classifier):
    """Minimises the sum of the losses of two passes + alpha * (KL(1 || 2) + KL(2 || 1)) / 2, as the paper does.

    As a sum it has twice the gradient and the ``train/loss`` of one pass: with SGD, lr / 2 compares like with like.
    """

    passes = 2

    def __init__(self, *arguments: Any, alpha: float = 1.0, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if not alpha >= 0:
            raise ValueError(f"alpha={alpha}: must be a number >= 0")
        self.alpha = alpha

    def loss(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and the mean of both divergences, in nats, as ``train/kl``."""
        x, y = batch
        one, two = (at_least_float32(self.net(x)) for _ in range(2))
        p, q = F.log_softmax(one, 1), F.log_softmax(two, 1)
        kl = ((p.exp() - q.exp()) * (p - q)).sum(1).mean() / 2  # of both directions
        return self._loss(one, y) + self._loss(two, y) + self.alpha * kl, {"kl": kl}
