"""BatchNorm over the batches of all processes (Peng et al. 2018, "MegDet"), on CPUs as well.

torch's SyncBatchNorm runs on accelerators only. With this one a net with BatchNorm is the same on any number of
processes too, and that can be seen without a GPU.
"""

from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.plugins.layer_sync import TorchSyncBatchNorm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class CpuSyncBatchNorm(_BatchNorm):
    """BatchNorm that normalises over the rows of all processes while training; each has equally many."""

    def forward(self, input: Tensor) -> Tensor:
        """Activations (N, C, ...) to normalised ones of the same shape."""
        if not self.training:
            return super().forward(input)
        dims, shape = [0, *range(2, input.ndim)], (1, -1, *(1,) * (input.ndim - 2))
        count = input.numel() // input.shape[1] * dist.get_world_size()
        exact = input.to(torch.promote_types(input.dtype, torch.float32))
        mean = _total(exact.sum(dims)) / count
        centred = exact - mean.view(shape)
        variance = _total(centred.square().sum(dims)) / count
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            share = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean.detach().to(self.running_mean.dtype), share)
            unbiased = variance.detach() * (count / (count - 1))
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), share)
        out = centred * (variance + self.eps).rsqrt().view(shape)
        return (out * self.weight.view(shape) + self.bias.view(shape) if self.affine else out).to(input.dtype)

    def _check_input_dim(self, input: Tensor) -> None:
        """Accept any shape: the layer that this one stands for has made sure of it."""


class SyncBatchNorm(TorchSyncBatchNorm):
    """Lightning's plugin for ``trainer.sync_batchnorm=true``: torch's layer on GPUs, ``CpuSyncBatchNorm`` on CPUs."""

    def __init__(self) -> None:
        self._replaced: dict[nn.Module, type[nn.Module]] = {}

    def apply(self, model: nn.Module) -> nn.Module:
        """Replace the BatchNorm layers of a model; parameters and buffers stay the same objects."""
        if next(model.parameters()).device.type != "cpu":
            return super().apply(model)
        for layer in model.modules():
            if isinstance(layer, _BatchNorm):
                self._replaced[layer] = type(layer)
                layer.__class__ = CpuSyncBatchNorm
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        """Put back the BatchNorm layers that were there."""
        for layer, kind in self._replaced.items():
            layer.__class__ = kind
        return super().revert(model)


class _Total(torch.autograd.Function):
    """A sum over all processes, whose gradient is one, too, as every process computes with the sum."""

    @staticmethod
    def forward(ctx: Any, of_this_process: Tensor) -> Tensor:
        total = of_this_process.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        total = grad.clone()
        dist.all_reduce(total)
        return total


def _total(of_this_process: Tensor) -> Tensor:
    """A tensor summed over all processes, with its gradient."""
    total: Tensor = _Total.apply(of_this_process)  # type: ignore[no-untyped-call]
    return total
