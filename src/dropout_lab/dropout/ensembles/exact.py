"""The exact ensemble: a network with n dropped units is 2^n thinned networks, whose predictions are all averaged."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from dropout_lab.dropout.ensembles.prefix import Prefix, active_layers
from dropout_lab.dropout.folding.operations import kind_of
from dropout_lab.dropout.graph.hooks import intercepting
from dropout_lab.dropout.graph.modes import dropout_only
from dropout_lab.dropout.layer import Dropout

MAX_UNITS = 20


class Ensemble(NamedTuple):
    """Predictions of an exact ensemble, class probabilities (N, classes) each.

    Attributes:
        arithmetic: mean over all thinned networks, weighted by the probability of their masks.
        geometric: weighted geometric mean, renormalised to sum to 1.
        weight_scaling: of the one network with all units and scaled weights, that is, eval mode.
    """

    arithmetic: Tensor
    geometric: Tensor
    weight_scaling: Tensor


def exact_ensemble(model: nn.Module, x: Tensor, progress: Callable[[range], Iterable[int]] = iter) -> Ensemble:
    """Average the predictions of all 2^n thinned networks of a model.

    With dropout on the one hidden layer of a network and a softmax on top, the geometric mean equals weight scaling
    exactly (Hinton et al. 2012; Baldi and Sadowski 2013); with a second non-linear layer it is an approximation.

    Args:
        model: returns logits (N, classes); its dropout layers are Bernoulli ones of the lab or torch's own.
        x: a batch, (N, ...).
        progress: wraps the chunks of masks as they are worked through; ``tqdm`` shows a bar.

    Returns:
        float64 probabilities.

    Raises:
        ValueError: more than 20 dropped units for each sample, over all calls of dropout layers together; Gaussian
            noise or a strategy of its own, whose masks can't be listed; an output that is not logits (N, classes).

    Source: Srivastava et al. 2014, section 1 (2^n thinned networks) and 7.5; Warde-Farley et al. 2013.
    """
    for path, layer in active_layers(model).items():
        _require_listable(path, layer)
    with dropout_only(model, on=False):
        parts = Prefix(model)
        values = parts.start(x)
        size = parts.largest_chunk(x, values)
        with _observed(model, len(x)) as calls:
            weight_scaling = parts.finish(values)[0].double().softmax(-1)
        _require_few_units(calls)
        kept = torch.tensor([1 - call.layer.p for call in calls for _ in range(call.drops)], dtype=torch.float64)
        total = 2 ** len(kept)
        arithmetic, logs = torch.zeros_like(weight_scaling), torch.zeros_like(weight_scaling)
        for start in progress(range(0, total, size)):
            keep = _masks(range(start, min(start + size, total)), len(kept))
            weight = torch.where(keep, kept, 1 - kept).prod(1).to(weight_scaling)
            with _forced(calls, keep.to(x.device)):
                each = parts.finish(values, len(keep)).double().log_softmax(-1)
            arithmetic += torch.einsum("m,mnc->nc", weight, each.exp())
            logs += torch.einsum("m,mnc->nc", weight, each)
    return Ensemble(arithmetic, logs.softmax(-1), weight_scaling)


def _require_listable(path: str, layer: _DropoutNd) -> None:
    kind: Any = type(layer)
    if isinstance(layer, Dropout):
        listable = kind.draw is Dropout.draw and kind.forward is Dropout.forward and layer.noise == "bernoulli"
    else:
        listable = kind_of(layer) in _TORCH_UNITS
    if not listable:
        raise ValueError(
            f"dropout layer {getattr(layer, 'name', None) or path!r} ({layer}): its masks can't be listed; "
            "exact_ensemble needs Bernoulli noise of the lab's or torch's own layers, monte_carlo takes any"
        )


# Leading dimensions of the input that have masks of their own, for torch's layers; None is all of them.
_TORCH_UNITS: dict[type[nn.Module], int | None] = {
    nn.Dropout: None, nn.Dropout1d: 2, nn.Dropout2d: 2, nn.Dropout3d: 2,
}  # fmt: skip


class _Call(NamedTuple):
    """One call of a dropout layer in a forward pass; `units` is the shape of the mask of one sample."""

    layer: _DropoutNd
    units: tuple[int, ...]

    @property
    def drops(self) -> int:
        """How many units of one sample are dropped or kept on their own."""
        return math.prod(self.units)


@contextmanager
def _observed(model: nn.Module, rows: int) -> Iterator[list[_Call]]:
    """Note the calls of active dropout layers within the context, for a batch of so many rows."""
    calls: list[_Call] = []

    def note(layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(layer, _DropoutNd)
        (x,) = args
        if len(x) != rows:
            raise ValueError(
                f"{layer} gets an input of shape {tuple(x.shape)} for {rows} samples; exact_ensemble needs the batch "
                "as the leading dimension of every dropout layer's input"
            )
        if isinstance(layer, Dropout):
            shape = layer.noise_shape(x)
        else:
            kept = _TORCH_UNITS[kind_of(layer)]
            shape = torch.Size([*x.shape[:kept], *(1 for _ in x.shape[kept:])] if kept else x.shape)
        calls.append(_Call(layer, tuple(shape[1:])))

    with intercepting(active_layers(model).values(), after=note):
        yield calls


@contextmanager
def _forced(calls: list[_Call], keep: Tensor) -> Iterator[None]:
    """Have dropout layers apply given masks (copies, all units) to copies x N rows, call by call."""
    masks = iter(zip(calls, torch.split(keep, [call.drops for call in calls], dim=1), strict=True))

    def drop(layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        (x,), (call, mask) = args, next(masks)
        assert call.layer is layer
        scale = 1 / (1 - call.layer.p) if getattr(layer, "scaling", "inverted") == "inverted" else 1.0
        factors = mask.view(len(keep), 1, *call.units).to(x.dtype) * scale
        return (x.view(len(keep), -1, *x.shape[1:]) * factors).reshape(output.shape)

    with intercepting({call.layer for call in calls}, after=drop):
        yield


def _require_few_units(calls: list[_Call]) -> None:
    count = sum(call.drops for call in calls)
    if count > MAX_UNITS:
        shares = " + ".join(str(call.drops) for call in calls)
        raise ValueError(
            f"{count} dropped units for each sample ({shares}) make 2^{count} thinned networks; "
            f"exact_ensemble takes at most {MAX_UNITS} units, monte_carlo any number"
        )


def _masks(numbers: range, units: int) -> Tensor:
    """Masks by their numbers, (len(numbers), units): bit u of a number says whether unit u is kept."""
    return (torch.arange(numbers.start, numbers.stop)[:, None] >> torch.arange(units)) & 1 == 1
