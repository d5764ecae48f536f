"""SIGTERM in a job on several processes: each ends at once."""

import signal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from dropout_lab.jobs.processes import leave


class EndAtOnce(Callback):
    """A callback in the place of Lightning's answer to SIGTERM, which is a broadcast from within the handler.

    It meets whatever the other processes are at, and all of them may wait for ever (Lightning 2.6). Checkpoints are
    whole at any moment, so there is nothing to wait for.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set our handler after Lightning has set its own, which it takes back at the end."""
        signal.signal(signal.SIGTERM, leave)

    on_test_start = on_train_start
