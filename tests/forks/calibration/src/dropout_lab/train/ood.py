"""Does the network know what it does not know? AUROC of its confidence in test samples against noise."""

from typing import Any

import lightning
import torch
from torch import Tensor

from dropout_lab.modules.columns import Column


class OutOfDistribution(lightning.Callback):
    """Logs ``auroc/test``: the chance that a test sample gets a larger maximal probability than an image of noise.

    Of the samples of one process; a run has one, unless it is given more devices.

    Args:
        seed: of the noise, standard normal as the standardised samples are.
    """

    columns = (Column("auroc/test", "OOD AUROC", "%", 2, "more"),)

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self._known: list[Tensor] = []
        self._noise: list[Tensor] = []

    def on_test_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Keep how sure the network is of a batch, and of as many images of noise."""
        generator = torch.Generator().manual_seed(self.seed + batch_idx)
        noise = torch.randn(batch[0].shape, generator=generator).to(batch[0])
        for kept, x in ((self._known, batch[0]), (self._noise, noise)):
            kept.append(pl_module.predict(x).max(1).values)

    def on_test_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Log the area under the curve, which is the share of pairs in the right order."""
        known, noise = torch.cat(self._known), torch.cat(self._noise)
        order = (known[:, None] > noise).float() + 0.5 * (known[:, None] == noise).float()
        for logger in trainer.loggers:
            logger.log_metrics({"auroc/test": float(order.mean()), "epoch": trainer.current_epoch}, trainer.global_step)
        self._known, self._noise = [], []
