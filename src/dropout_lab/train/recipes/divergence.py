"""The end of a training whose loss is NaN or infinite: at once, or when its length is over."""

import lightning as L


class Divergence(L.Callback):
    """Callback that ends a training as soon as a loss that is NaN or infinite is logged, before a checkpoint has it.

    Losses are looked at where they are logged, one step in ``trainer.log_every_n_steps`` and after each validation, so
    that no step waits for the device. Without this callback, too, such a job ends as diverged, and is not counted.

    Args:
        stop: whether training ends then; otherwise it goes on to its end.

    Raises:
        ValueError: ``stop`` is neither true nor false.
    """

    def __init__(self, stop: bool = True) -> None:
        if not isinstance(stop, bool):
            raise ValueError(f"callbacks.divergence.stop={stop}: must be true or false")
        self.stop = stop

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Tell the module."""
        pl_module.ends_diverged = self.stop  # type: ignore[assignment]
