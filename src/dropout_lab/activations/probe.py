"""The probe: one batch with dropout and without, which shows what dropout itself does to each activation.

Statistics that pass by in training and in validation differ also because inputs and weights do. The probe runs one
batch through the model in eval mode, and again with several dropout masks and everything else in eval mode.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from math import nan, sqrt
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dropout_lab.activations.meter import Meter
from dropout_lab.activations.sums import Partial, doubled
from dropout_lab.dropout import mask_keys
from dropout_lab.dropout.graph.modes import dropout_only, in_mode

SEED = 0x70726F6265  # "probe": masks of its own, whatever the seed of training


@dataclass(frozen=True, slots=True)
class Comparison:
    """What dropout does to one activation on the same inputs; standard errors over samples and masks.

    ``shift`` = (mean_train - mean_eval) / std_eval; ``variance_ratio`` = var_train / var_eval (the "variance shift" of
    Li et al. 2019); ``ratio`` = mean_train / mean_eval, None where the activation is negative somewhere in eval mode,
    since a signed mean may be anywhere near 0. NaN where the denominator is 0, or for the error from one sample.
    """

    shift: float
    shift_se: float
    variance_ratio: float
    ratio: float | None
    ratio_se: float | None


@torch.no_grad()
def probe(
    meter: Meter,
    model: nn.Module,
    x: Tensor,
    masks: int = 4,
    step: int = 0,
    rows: Tensor | None = None,
    *,
    keyed: bool = True,
) -> Tensor:
    """Run the probe: its sums, which :func:`compare` turns into numbers, add up over processes.

    Everything runs in eval mode, with the dropout layers (any ``_DropoutNd``) switched on for the passes in train
    mode: BatchNorm statistics, gradients, modes and generators stay as they are. Dropout that is not a module of that
    kind (inside ``nn.MultiheadAttention``, calls of ``F.dropout``) stays off.

    Args:
        meter: watches the model, attached; what it has counted is not touched.
        model: what the meter's taps belong to, or a module around it.
        x: a batch (N, ...).
        masks: number of passes with dropout.
        step: another step, other masks.
        rows: global positions of the batch's rows, default 0..N-1; processes that share a batch hold different ones.
        keyed: masks of this package's layers are a pure function of step and row; else all come from torch's
            generator, seeded for the occasion.

    Raises:
        ValueError: ``keyed``, and a layer's leading dimension is not the batch.
    """
    rows = torch.arange(len(x)) if rows is None else rows
    passes = []
    with in_mode(model, training=False), _generators_kept(x.device), torch.compiler.set_stance("force_eager"):
        with meter.record() as plain:
            model(x)
        for draw in range(masks * step, masks * (step + 1)):
            _seed(x.device, SEED + draw + (int(rows[0]) << 40))
            keys = mask_keys(SEED, draw, rows) if keyed else nullcontext()
            with dropout_only(model, on=True), keys, meter.record() as partials:
                model(x)
            passes.append({partial.row: partial for partial in partials})
    sums, seen = no_probe(meter), [one for one in plain if all(one.row in dropped for dropped in passes)]
    if seen:  # in one transfer
        table = [torch.stack(_sums(one, [dropped[one.row] for dropped in passes])) for one in seen]
        sums[[one.row for one in seen]] = torch.stack(table).cpu()
    return sums


def no_probe(meter: Meter) -> Tensor:
    """The sums of a process that has no batch to probe with."""
    return torch.zeros(len(meter.taps), len(_Sums._fields), dtype=torch.float64)


def compare(sums: Tensor) -> list[Comparison | None]:
    """The comparison for each tap of the meter that :func:`probe` was given, in its order; None if it saw nothing."""
    return [_comparison(_Sums(*row)) if row[0] else None for row in sums.tolist()]


class KeptBatch:
    """The first batch of a validation, kept to be probed after it; processes hold contiguous rows of it each.

    Args:
        masks: of dropout, as for :func:`probe`.
        size: how many rows of the whole batch are probed.
        warn: told in a line why something can't be probed as it should.
    """

    def __init__(self, masks: int, size: int, warn: Callable[[str], None]) -> None:
        self.masks, self.size, self.warn = masks, size, warn
        self._x: Tensor | None = None
        self._keyed = True

    @property
    def rows(self) -> int:
        """How many rows are kept."""
        return 0 if self._x is None else len(self._x)

    def keep(self, batch: Any) -> None:
        """Keep the inputs of a batch, a tensor or what begins with one, for the next probe."""
        x = batch[0] if isinstance(batch, list | tuple) and batch else batch
        if isinstance(x, Tensor) and x.ndim:
            self._x = x[: self.size].detach().clone()
            return
        self._x = None
        self.warn("the probe needs batches that are a tensor or begin with one, (x, y); probe_masks=0 turns it off")

    def probe(self, meter: Meter, model: nn.Module, step: int, first: int) -> Tensor:
        """The sums of :func:`probe` for the kept batch, which is forgotten.

        Args:
            meter: attached to the model.
            model: called with the inputs alone.
            step: another step, other masks.
            first: how many rows the processes before this one hold.
        """
        x, self._x = self._x, None
        if x is None:
            return no_probe(meter)
        x = x[: max(0, self.size - first)]
        try:
            if len(x):
                return self._probed(meter, model, x, step, first)
            # And processes meet in each of its forward passes: this one comes along, uncounted.
            self._probed(meter, model, x.new_zeros(1, *x.shape[1:]), step, first)
        except (NotImplementedError, TypeError) as error:
            self.warn(f"the probe calls the model with the inputs alone: {error}; probe_masks=0 turns it off")
        return no_probe(meter)

    def _probed(self, meter: Meter, model: nn.Module, x: Tensor, step: int, first: int) -> Tensor:
        """The sums of the probe, with keyed masks as long as these can be had."""
        rows = torch.arange(first, first + len(x))
        if self._keyed:
            try:
                return probe(meter, model, x, self.masks, step, rows)
            except ValueError as error:
                self._keyed = False
                self.warn(f"the probe draws its masks from torch's generator: {error}")
        return probe(meter, model, x, self.masks, step, rows, keyed=False)


class _Sums(NamedTuple):
    """The sums of the probe at one tap, over elements or units (e in eval; d = mean over masks - e); all additive."""

    elements: Any
    total_eval: Any
    square_eval: Any
    total_train: Any
    square_train: Any
    negative: Any
    units: Any
    dd: Any
    de: Any
    ee: Any


def _sums(plain: Partial, dropped: Sequence[Partial]) -> _Sums:
    e = doubled(plain.sum)
    d = doubled(torch.stack([one.sum for one in dropped])).mean(0) - e
    square_train = doubled(torch.stack([one.norm for one in dropped])).square().sum() / len(dropped)
    assert plain.least is not None
    return _Sums(
        elements=e.new_tensor(plain.elements),
        total_eval=e.sum(),
        square_eval=doubled(plain.norm).square().sum(),
        total_train=(e + d).sum(),
        square_train=square_train,
        negative=doubled((plain.least < 0).sum()),
        units=e.new_tensor(e.numel()),
        dd=(d * d).sum(),
        de=(d * e).sum(),
        ee=(e * e).sum(),
    )


def _comparison(s: _Sums) -> Comparison:
    mean_eval, mean_train = s.total_eval / s.elements, s.total_train / s.elements
    var_eval, var_train = s.square_eval / s.elements - mean_eval**2, s.square_train / s.elements - mean_train**2
    spread = s.units / (s.units - 1) if s.units > 1 else nan  # makes a sum of squared deviations unbiased
    deviations = s.dd - (s.total_train - s.total_eval) ** 2 / s.units
    shift_se = sqrt(max(deviations, 0.0) * spread) / s.elements
    std_eval = sqrt(var_eval) if var_eval > 1e-7 * mean_eval**2 else nan  # less is rounding of fp32 sums
    ratio, ratio_se = (None, None) if s.negative else (nan, nan)
    if s.total_eval > 0 and not s.negative:
        ratio = s.total_train / s.total_eval
        residual = s.dd + 2 * (1 - ratio) * s.de + (1 - ratio) ** 2 * s.ee
        ratio_se = sqrt(max(residual, 0.0) * spread) / s.total_eval
    return Comparison(
        shift=(mean_train - mean_eval) / std_eval,
        shift_se=shift_se / std_eval,
        variance_ratio=var_train / std_eval**2,
        ratio=ratio,
        ratio_se=ratio_se,
    )


@contextmanager
def _generators_kept(device: torch.device) -> Iterator[None]:
    """Keep the random states of CPU and device: after the context they are as before it."""
    own = [] if device.type in ("cpu", "mps") else [device]
    mps = torch.mps.get_rng_state() if device.type == "mps" else None
    with torch.random.fork_rng(devices=own, device_type=device.type if own else "cpu"):
        yield
    if mps is not None:
        torch.mps.set_rng_state(mps)


def _seed(device: torch.device, seed: int) -> None:
    # Not torch.manual_seed: without CUDA it notes each call, with a stack trace, for a CUDA that may yet start.
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)
