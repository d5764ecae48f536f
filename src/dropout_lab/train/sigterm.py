"""SIGTERM on several processes: each ends at once."""

import signal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from dropout_lab.jobs.processes import leave


class EndAtOnce(Callback):
    """Takes the place of Lightning's answer to SIGTERM, which is a broadcast from within the handler.

    It meets whatever the other processes are at, and all of them may wait for ever (Lightning 2.6). Checkpoints are
    whole at any moment, so there is nothing to wait for.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After Lightning has set its handler, which it takes back at the end."""
        signal.signal(signal.SIGTERM, leave)

    on_test_start = on_train_start
