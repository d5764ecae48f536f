"""Small models with dropout where it matters to passes that share work, and batches for them."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dropout_lab.dropout import Dropout


class Residual(nn.Module):
    """A skip around dropout; a size of the input used after it if `size_from_input`; sequence-first if `turned`."""

    def __init__(self, size_from_input: bool = False, turned: bool = False) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)
        self.drop, self.shift = Dropout(0.4), nn.Parameter(torch.rand(8))
        self.size_from_input, self.turned = size_from_input, turned
        self.calls = 0
        self.first.register_forward_hook(self._count)

    def _count(self, *_: object) -> None:
        self.calls += 1

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.first(x)).relu()
        y = self.drop(h.t()).t() if self.turned else self.drop(h)
        y = (h + y + self.shift).relu()
        return self.last(y.view(x.shape[0] if self.size_from_input else -1, 8))


class Images(nn.Module):
    """Code around a convolution: how much work it is shows in a pass only, and the batch is the leading dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.drop, self.last = nn.Conv2d(1, 4, 1), Dropout(0.4), nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.drop(self.first(x).relu()).flatten(1))


def make(kind: Callable[[], nn.Module] = Residual) -> nn.Module:
    torch.manual_seed(0)
    model = kind().double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d) and module.track_running_stats:
            module.running_mean.uniform_()
    return model


def batch(rows: int = 5, kind: str = "") -> Tensor:
    x = torch.randn(rows, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return x.view(rows, 1, 2, 3) if kind == "images" else x


KINDS = {
    "residual": Residual,
    "images": Images,
    "size": lambda: Residual(size_from_input=True),
    "turned": lambda: Residual(turned=True),
    "input": lambda: nn.Sequential(Dropout(0.2), nn.Linear(6, 8), nn.ReLU(), Dropout(0.5), nn.Linear(8, 3)),
    "torch": lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3)),
    "gaussian": lambda: nn.Sequential(nn.Linear(6, 8), Dropout(0.5, noise="gaussian"), nn.Linear(8, 3)),
}
