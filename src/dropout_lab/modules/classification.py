"""Classification: a network's loss on images or other samples with classes, and the numbers that are reported."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dropout_lab.modules.base import Batch, Module

MONITORED = (  # what callbacks can monitor: known after each validation
    "train/loss",
    *(f"{part}/{key}" for part in ("val", "train_eval", "gap") for key in ("loss", "acc")),
)


class Classifier(Module):
    """Trains a network to classify; losses are in nats (mean cross-entropy), accuracies in [0, 1].

    Args:
        net: network from samples (N, ...) to logits (N, classes), dropout installed.
        arguments: as for :class:`~dropout_lab.modules.base.Module`.
        loss: what training minimises, a function of logits and classes; None: cross-entropy, which all numbers but
            train/loss are of in any case.
        options: as for :class:`~dropout_lab.modules.base.Module`.
    """

    measured = ("loss", "acc")

    def __init__(
        self,
        net: nn.Module,
        *arguments: Any,
        loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(net, *arguments, **options)
        self._loss = loss or F.cross_entropy

    def loss(self, batch: Batch) -> Tensor:
        """The loss of logits and classes."""
        x, y = batch
        return self._loss(_at_least_float32(self.net(x)), y)

    def sums(self, batch: Batch) -> Tensor:
        """Cross-entropy and right answers of a batch, and its size."""
        x, y = batch
        if self._monte_carlo_samples:
            from dropout_lab.dropout import monte_carlo

            log_p = monte_carlo(self.net, x, self._monte_carlo_samples).mean.log()
        else:
            log_p = F.log_softmax(_at_least_float32(self.net(x)), dim=1)
        loss = F.nll_loss(log_p, y, reduction="sum")
        correct = (log_p.argmax(dim=1) == y).sum()
        return torch.stack([loss, correct.to(loss), torch.full_like(loss, len(y))])


def _at_least_float32(logits: Tensor) -> Tensor:
    """Logits in float32 or more: sums in half precision would have two or three digits."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
