"""Language models: each token from those before it, and the numbers that are reported a token."""

from collections.abc import Iterable, Mapping
from math import exp, log
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from dropout_lab.modules.base import Batch, Loss
from dropout_lab.modules.classification import Classifier
from dropout_lab.modules.columns import Column
from dropout_lab.modules.sums import at_least_float32

LARGEST = 700.0  # nats of which the exponential is a number


class LanguageModel(Classifier):
    """Trains a network to predict the next token of each; the loss is in nats a token, perplexity its exponential.

    Every token counts the same, whatever windows, batches and processes the parts of a text are cut into.

    Args:
        arguments, loss, options: as for :class:`~dropout_lab.modules.classification.Classifier`; its network takes
            tokens (N, T) and gives logits (N, T, tokens).
    """

    columns: ClassVar[tuple[Column, ...]] = (
        Column("loss", "NLL a token", "nats", short="NLL"),
        Column("perplexity", "perplexity", decimals=2),
        Column("acc", "accuracy", "%", 2, "more", "acc"),
    )

    @staticmethod
    def outputs(data: Any) -> int:
        """One for each token of the vocabulary."""
        if not getattr(data, "of_tokens", False):
            raise ValueError(f"a language model needs a text, and {type(data).__name__} is none: data=text is")
        return data.num_classes  # type: ignore[no-any-return]

    def samples(self, data: Any) -> int:
        """Tokens: windows times their length."""
        return super().samples(data) * data.example(1)[1].numel()  # type: ignore[no-any-return]

    def loss(self, batch: Batch) -> Loss:
        """The mean loss of a token."""
        x, y = batch
        return self._loss(at_least_float32(self.net(x)).flatten(0, 1), y.flatten())

    def predict(self, x: Tensor) -> Tensor:
        """Log-probabilities of the tokens, (N, T, tokens)."""
        return F.log_softmax(at_least_float32(self.net(x)), dim=2)

    def mix(self, passes: Iterable[Tensor]) -> Tensor:
        """Logarithms of mean probabilities of each token."""
        every = torch.stack(list(passes))
        return every.logsumexp(0) - log(len(every))

    def scores(self, prediction: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy, and whether the likeliest token is right, a row a token."""
        log_p, y = prediction.flatten(0, 1), batch[1].flatten()
        return {"loss": F.nll_loss(log_p, y, reduction="none"), "acc": log_p.argmax(1) == y}

    def summarize(self, means: Mapping[str, Any]) -> Mapping[str, float]:
        """Perplexity is that of the mean loss."""
        return {**means, "perplexity": exp(min(means["loss"], LARGEST))}
