"""Warm-up: learning rates that rise before they fall (Goyal et al. 2017, section 2.2)."""

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, SequentialLR


def warmup_cosine(optimizer: Optimizer, warmup: int, total: int) -> LRScheduler:
    """Schedule of the learning rate: times 1/(w+1), 2/(w+1), ... in a warm-up of w, then down to 0 along a cosine.

    A large batch at its full rate diverges in the first steps (Goyal et al. 2017, section 2.2); the cosine is that of
    Loshchilov and Hutter 2017 without restarts. The rates of the parameter groups keep their ratios.

    Args:
        optimizer: with the rate that the warm-up leads to.
        warmup: w >= 0 epochs, or steps of the optimizer where the schedule is stepped at these; 0: the cosine alone. A
            run that is shorter ends within it.
        total: of the whole run, in the same unit.

    Raises:
        ValueError: ``warmup`` is negative.
    """
    if warmup < 0:
        raise ValueError(f"lr_scheduler.warmup={warmup}: must be a number of epochs, or of steps, >= 0")
    if warmup == 0:  # a sequence that begins with its second part goes wrong in torch 2.11
        return CosineAnnealingLR(optimizer, T_max=total)
    rise = LinearLR(optimizer, start_factor=1 / (warmup + 1), total_iters=warmup)
    fall = CosineAnnealingLR(optimizer, T_max=max(1, total - warmup))
    return SequentialLR(optimizer, [rise, fall], milestones=[warmup])
