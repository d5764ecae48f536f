"""The length of a training, in epochs, in steps of the optimizer and in batches, as what ends it says."""

import math
from typing import NamedTuple

import lightning


class Length(NamedTuple):
    """How long a training takes: three numbers for one stretch, whose last epoch may be cut short.

    Attributes:
        epochs: those that begin.
        steps: of the optimizer.
        batches: of all epochs together; processes share each of them.
    """

    epochs: int
    steps: int
    batches: int


def length(epoch: int, together: int, max_epochs: int | None, max_steps: int) -> Length:
    """The length of a training that the first of two limits ends.

    Args:
        epoch: batches of an epoch.
        together: batches of a step; what is left of an epoch is a step of its own.
        max_epochs: the one limit; -1 or None: there is none.
        max_steps: the other one; -1: there is none.

    Raises:
        ValueError: there is neither.
    """
    of_epoch = math.ceil(epoch / together)
    limits = [limit for limit in (-1 if max_epochs is None else max_epochs * of_epoch, max_steps) if limit >= 0]
    if not limits:
        raise ValueError("a training without max_epochs and max_steps has no length for its schedules to follow")
    whole, rest = divmod(min(limits), of_epoch)
    return Length(whole + (rest > 0), min(limits), whole * epoch + rest * together)


def length_of(trainer: lightning.Trainer) -> Length:
    """The length of the training that a Trainer is in."""
    epoch, together = int(trainer.num_training_batches), trainer.accumulate_grad_batches
    return length(epoch, together, trainer.max_epochs, trainer.max_steps)
