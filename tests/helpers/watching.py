"""Meters for tests: attached to a few modules, and fed with batches."""

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from dropout_lab.activations import Meter, Tap


def watched(*modules: nn.Module, where: str = "output") -> Meter:
    meter = Meter([Tap(f"m{i}", module, where) for i, module in enumerate(modules)])
    meter.attach()
    return meter


def feed(meter: Meter, model: nn.Module, batches, mode: str = "train") -> None:
    for batch in batches:
        meter.start(mode)
        model(batch)
        meter.stop()


def around(layer: nn.Module) -> Meter:
    meter = Meter([Tap("drop_in", layer, "input"), Tap("drop", layer)])
    meter.attach()
    return meter


class Ops(TorchDispatchMode):
    """Names of the operations, what left the device, and where fp64 appeared."""

    def __init__(self):
        super().__init__()
        self.names: list[str] = []
        self.transfers, self.fp64 = 0, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.names.append(func.overloadpacket.__name__)
        if isinstance(out, torch.Tensor):
            self.transfers += out.is_cpu and any(isinstance(x, torch.Tensor) and not x.is_cpu for x in args)
            self.fp64 |= {out.device.type} if out.dtype == torch.float64 else set()
        return out


def gain_meter(layer: nn.Module) -> Meter:
    units = "channel" if isinstance(layer, nn.Dropout2d) or getattr(layer, "mask", "") == "channel" else "sample"
    meter = Meter([Tap("drop_in", layer, "input", units=units), Tap("drop", layer, units=units)])
    meter.attach()
    return meter
