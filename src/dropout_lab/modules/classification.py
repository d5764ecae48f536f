"""Classification: a network's loss on images or other samples with classes, and the numbers that are reported."""

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from dropout_lab.modules.base import Batch, Loss, Module
from dropout_lab.modules.columns import OF_CLASSIFICATION, Column
from dropout_lab.modules.sums import at_least_float32


class Classifier(Module):
    """Trains a network to classify; losses are in nats (mean cross-entropy), accuracies in [0, 1].

    Args:
        arguments: as for :class:`~dropout_lab.modules.base.Module`; its network gives logits (N, classes).
        loss: what training minimises, a function of logits and classes; None: cross-entropy, which all numbers but
            train/loss are of in any case.
        options: as for :class:`~dropout_lab.modules.base.Module`.
    """

    columns: ClassVar[tuple[Column, ...]] = OF_CLASSIFICATION

    def __init__(self, *arguments: Any, loss: Callable[[Tensor, Tensor], Tensor] | None = None, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._loss = loss or F.cross_entropy

    @staticmethod
    def outputs(data: Any) -> int:
        """One for each class."""
        if getattr(data, "of_tokens", False):
            name = type(data).__name__
            raise ValueError(f"{name} has a class for each token, and not one a sample: module=language_model takes it")
        if data.num_classes is None:
            numbers = f"targets of {type(data).__name__} are numbers"
            raise ValueError(f"classification needs classes, but {numbers}: module=regression takes them")
        return data.num_classes  # type: ignore[no-any-return]

    def loss(self, batch: Batch) -> Loss:
        """The loss of logits and classes."""
        x, y = batch
        return self._loss(at_least_float32(self.net(x)), y)

    def predict(self, x: Tensor) -> Tensor:
        """Log-probabilities of the classes, (N, classes)."""
        return F.log_softmax(at_least_float32(self.net(x)), dim=1)

    def mix(self, passes: Iterable[Tensor]) -> Tensor:
        """Logarithms of mean probabilities."""
        return torch.stack([log_p.exp() for log_p in passes]).mean(0).log()

    def monte_carlo(self, x: Tensor, samples: int) -> Tensor:
        """Logarithms of mean probabilities, what precedes the first dropout layer computed once."""
        if type(self).predict is not Classifier.predict or type(self).mix is not Classifier.mix:
            return super().monte_carlo(x, samples)  # type: ignore[no-any-return]
        from dropout_lab.dropout import monte_carlo  # a fork may have deleted it

        return monte_carlo(self.net, x, samples).mean.log()

    def scores(self, prediction: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy, and whether the likeliest class is right."""
        _, y = batch
        return {"loss": F.nll_loss(prediction, y, reduction="none"), "acc": prediction.argmax(1) == y}
