"""Max-norm: no unit's incoming weight vector may be longer than c (Srivastava et al. 2014, section 5.1)."""

import math
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import FSDPStrategy
from torch import Tensor, nn


class MaxNorm(L.Callback):
    """Callback that projects the incoming weights of each unit onto the ball of radius c after each optimizer step.

    A unit is a row of a Linear, or a filter of a convolution, over all its channels and places; biases are free. All
    layers count, the classifier too, as in the paper's nets (appendix B). It is a function of the weights alone, so
    the number of processes does not change it; FSDP, where no process has whole vectors, is refused.

    The paper's c is for classic dropout. The same network as an inverted one has weights q times as large, so radius
    c*q behind dropout; with one radius for all layers only ``dropout=classic`` is the paper's. Classic dropout matched
    to inverted (``optimizer.match=inverted``) has radius c/q there, to train as its inverted twin with radius c: the
    parameter groups that matching makes carry that factor as ``scale``.

    Args:
        radius: c > 0; the paper's nets have 2 (MNIST) to 4.

    Raises:
        ValueError: a radius that is not a number > 0; at the start of training, parameters that are sharded.
    """

    def __init__(self, radius: float = 3.0) -> None:
        if isinstance(radius, bool) or not isinstance(radius, int | float) or not 0 < radius < math.inf:
            raise ValueError(f"callbacks.max_norm.radius={radius}: must be a number > 0")
        self.radius = radius

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Have each step of the optimizers followed by the projection from now on."""
        if isinstance(trainer.strategy, FSDPStrategy):
            raise ValueError("callbacks.max_norm: FSDP leaves no process the whole weights of a unit; use trainer=ddp")
        units = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
        weights = {id(module.weight) for module in pl_module.modules() if isinstance(module, units)}

        def project(optimizer: torch.optim.Optimizer, *_: Any) -> None:
            for group in optimizer.param_groups:
                for weight in group["params"]:
                    if id(weight) in weights:
                        shorten(weight, self.radius * group.get("scale", 1.0))

        for optimizer in trainer.optimizers:
            optimizer.register_step_post_hook(project)


@torch.no_grad()
def shorten(weight: Tensor, radius: float) -> None:
    """Scale, in place, the rows ``weight[i]`` that are longer than ``radius`` to that length; others stay as they are.

    Twice the weights and the radius give twice the result, to the last bit, on which matched training rests.
    ``Tensor.renorm_`` divides by the norm + 1e-7 and does not.

    Args:
        weight: (units, ...), floating point.
        radius: the greatest Euclidean norm of a row, > 0.
    """
    norms = torch.linalg.vector_norm(weight.flatten(1), dim=1).view(-1, *[1] * (weight.ndim - 1))
    weight.mul_((radius / norms).clamp(max=1.0))
