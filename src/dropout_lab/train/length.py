"""The length of training: batches and optimizer steps of a job, and whether anything is validated before it ends."""

import math
from collections.abc import Mapping
from typing import Any

from dropout_lab.cli import UserError
from dropout_lab.modules.length import Length, length


def batches(trainer: Mapping[str, Any], part: str, there: int) -> int:
    """How many batches of a part an epoch takes: all that there are, or so many, or a fraction of them.

    Args:
        trainer: settings of the Trainer.
        part: train, val or test.
        there: batches that the part has.

    Raises:
        UserError: a fraction that is less than one batch.
    """
    key = f"limit_{part}_batches"
    limit = trainer.get(key)
    if limit is None or isinstance(limit, int):
        return there if limit is None else min(there, limit)
    if not (count := int(there * limit)):
        raise UserError(f"trainer.{key}={limit}: that is less than one batch of {there}; take more")
    return count


def planned_length(trainer: Mapping[str, Any], there: int) -> Length:
    """The length of a training with these settings of the Trainer, whose training part has so many batches."""
    epoch = batches(trainer, "train", there)
    return length(epoch, _together(trainer), trainer["max_epochs"], trainer.get("max_steps", -1))


def require_validation(trainer: Mapping[str, Any], epoch: int) -> None:
    """Refuse a training that would end before its first validation: no checkpoint would be the best, to be tested.

    Args:
        trainer: settings of the Trainer.
        epoch: batches of an epoch.

    Raises:
        UserError: with the setting that is in the way.
    """
    every, interval = trainer.get("check_val_every_n_epoch", 1), trainer.get("val_check_interval")
    if not (interval is None or isinstance(interval, int | float)):
        return  # by the clock
    if every is None:
        if not isinstance(interval, int):
            raise UserError(
                "trainer.check_val_every_n_epoch=null: validation comes after trainer.val_check_interval=N batches "
                "then, an integer: set it, too"
            )
        first = interval
    elif isinstance(interval, int) and interval > epoch:
        raise UserError(
            f"trainer.val_check_interval={interval}: an epoch has {epoch} batches; "
            "trainer.check_val_every_n_epoch=null counts over several epochs"
        )
    else:
        within = interval if isinstance(interval, int) else max(1, int(epoch * (1.0 if interval is None else interval)))
        first = (every - 1) * epoch + within
    if 0 <= trainer["max_epochs"] * epoch < first:
        _refuse(f"trainer.max_epochs={trainer['max_epochs']}", f"{-(-first // epoch)} epochs")
    most, (epochs, rest) = trainer.get("max_steps", -1), divmod(first - 1, epoch)
    before = epochs * math.ceil(epoch / _together(trainer)) + rest // _together(trainer)
    if 0 <= most <= before:
        _refuse(f"trainer.max_steps={most}", f"{before + 1} steps")


def _refuse(setting: str, first: str) -> None:
    raise UserError(
        f"{setting}: training would end before the first validation, after {first}; train for longer, or validate more "
        "often: trainer.check_val_every_n_epoch, trainer.val_check_interval"
    )


def _together(trainer: Mapping[str, Any]) -> int:
    """Batches of an optimizer step."""
    return int(trainer.get("accumulate_grad_batches", 1))
