"""The surroundings of training in a process: what Lightning says, how many threads torch has, when W&B is done."""

import logging
import sys
import warnings
from functools import cache


def quieten_lightning() -> None:
    """Leave out Lightning's advice that does not apply here, and its lists of devices."""
    import lightning.pytorch  # noqa: F401  # which sets the level itself when it is imported

    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",  # batches are cut from memory
        ".*smaller than the logging interval.*",  # the rest of an epoch is logged at its end
        ".*exists and is not empty.*",
        ".*isinstance.treespec, LeafSpec.*",  # Lightning 2.6 with torch 2.15
        ".*`srun` command is available.*",
        ".*sync_dist=True.*",  # what is logged has been summed over processes
        ".*multiple `ModelCheckpoint` callbacks.*",  # the first holds the best
    ):
        warnings.filterwarnings("ignore", message)


def set_threads(count: int | None) -> None:
    """Set how many CPU threads an operation has; None: as many as torch has chosen, whatever an earlier job had."""
    import torch

    chosen = _chosen_threads()
    torch.set_num_threads(chosen if count is None else count)


@cache
def _chosen_threads() -> int:
    import torch

    return torch.get_num_threads()


def close_wandb() -> None:
    """Write W&B's buffers: its own finish() returns before the files are complete."""
    if "wandb" in sys.modules:
        sys.modules["wandb"].teardown()
