"""Classification whose calibration is measured, too: ECE (Guo et al. 2017) and the Brier score."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from dropout_lab.modules.classification import Classifier
from dropout_lab.modules.columns import Column

BINS = 15


class Calibration(Classifier):
    """Trains as classification does; the expected calibration error is exact, over all rows of all processes."""

    columns = (*Classifier.columns, Column("ece", "ECE", "%", 2), Column("brier", "Brier score", decimals=4))

    def scores(self, prediction: Tensor, batch: Any) -> dict[str, Tensor]:
        """Those of classification, the squared error, and by bin of confidence how much more it is than right."""
        confidence, likeliest = prediction.exp().max(1)
        right = likeliest == batch[1]
        bins = F.one_hot((confidence * BINS).ceil().long().clamp(1, BINS) - 1, BINS)
        misses = prediction.exp() - F.one_hot(batch[1], prediction.shape[1])
        excess = bins * (confidence - right.float())[:, None]
        return {**super().scores(prediction, batch), "brier": misses.square().sum(1), "excess": excess}

    def summarize(self, means: dict[str, Any]) -> dict[str, Any]:  # type: ignore[override]
        """The sum over bins, beside the means."""
        return {**means, "ece": sum(map(abs, means["excess"]))}
