"""Records of activations: the numbers of a run as rows of a long CSV file, and as metrics for loggers.

The file is readable at every moment, also after the process that writes it was killed.
"""

from collections.abc import Iterable
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import NamedTuple

from torch.nn.modules.dropout import _DropoutNd

from dropout_lab.activations.probe import compare
from dropout_lab.activations.readings import Readings
from dropout_lab.activations.taps import Tap

_STATS = ("mean", "std", "zeros")


class Row(NamedTuple):
    """One number of one layer; ``mode`` is "train", "eval" or "probe"."""

    step: int
    epoch: int
    mode: str
    layer: str
    stat: str
    value: float


def rows(readings: Readings, step: int, epoch: int) -> list[Row]:
    """The rows of a flush, one for each number: modes that saw batches, then the probe."""
    found = []
    for mode in (mode for mode, batches in readings.batches.items() if batches):
        for layer, one in readings.stats(mode).items():
            found += [Row(step, epoch, mode, layer, stat, getattr(one, stat)) for stat in (*_STATS, "count")]
        for layer, gain in readings.gains(mode).items():
            found.append(Row(step, epoch, mode, layer, "gain", gain.value))
            found.append(Row(step, epoch, mode, layer, "gain_se", gain.se))
    if readings.extra is not None:
        for layer, comparison in zip(readings.names, compare(readings.extra), strict=True):
            values = asdict(comparison).items() if comparison else ()
            found += [Row(step, epoch, "probe", layer, stat, value) for stat, value in values if value is not None]
    return found


def rates(taps: Iterable[Tap], step: int, epoch: int) -> list[Row]:
    """The rows of the drop probability of each dropout layer, which a schedule may change."""
    return [
        Row(step, epoch, "train", tap.name, "p", float(tap.module.p))
        for tap in taps
        if isinstance(tap.module, _DropoutNd) and tap.where == "output"
    ]


def key(row: Row, before_norm: set[str]) -> str | None:
    """The metric that a row is; None for what goes to the file only. ``before_norm``: layers that a BatchNorm reads."""
    if row.mode == "probe":
        logged = row.stat in ("shift", "ratio") or (row.stat == "variance_ratio" and row.layer in before_norm)
        return f"activation_{row.stat}/{row.layer}" if logged else None
    if row.stat == "p":
        return f"dropout_p/{row.layer}"
    if row.stat == "gain":
        return f"dropout_gain_{row.mode}/{row.layer}"
    return f"activation_{row.stat}_{row.mode}/{row.layer}" if row.stat in _STATS else None


def final(rows: Iterable[Row]) -> dict[str, float]:
    """A run's summary: gain in train and in eval and the ratio at the last dropout layer, as far as they are known."""
    rows = list(rows)
    last = max((row.layer for row in rows if row.stat == "gain"), default=None)
    names = {("train", "gain"): "gain_train", ("eval", "gain"): "gain_eval", ("probe", "ratio"): "ratio"}
    found = {names.get((row.mode, row.stat)): row.value for row in rows if row.layer == last and isfinite(row.value)}
    return {f"final/{name}": value for name, value in found.items() if name}


def append(path: Path, rows: Iterable[Row]) -> None:
    """Append rows to the file, after a header if it is new, in one write; the file is closed afterwards.

    A last line that a killed process left unfinished is removed first.
    """
    text = "".join(",".join(map(str, row)) + "\n" for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        start = file.seek(max(0, file.seek(0, 2) - 4096))
        file.truncate(start + file.read().rfind(b"\n") + 1)
        header = "" if file.seek(0, 2) else ",".join(Row._fields) + "\n"
        file.write((header + text).encode())
