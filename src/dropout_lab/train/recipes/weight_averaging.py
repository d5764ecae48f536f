"""Weight averaging: the average along training is validated, tested and saved (Polyak and Juditsky 1992)."""

import inspect
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.trainer.states import TrainerFn


class WeightAveraging(EMAWeightAveraging):
    """Lightning's exponential moving average of the weights, also in the test that follows training.

    In a checkpoint ``state_dict`` is the average, ``current_model_state`` what training goes on from. Lightning loads
    the latter whenever a fit has come before, so that a test of the best checkpoint would not be of its ``state_dict``.

    Statistics of activations in validation are of the average; those of training batches and of the probe are of the
    weights that are being trained.

    Args:
        options: as of Lightning's, which would find out in training that there is no such option.
    """

    def __init__(self, **options: Any) -> None:
        if unknown := options.keys() - inspect.signature(EMAWeightAveraging).parameters:
            raise TypeError(f"got an unexpected keyword argument {min(unknown)!r}")
        super().__init__(**options)

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Go on averaging from a checkpoint; for a test its ``state_dict`` is all there is to load."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)
