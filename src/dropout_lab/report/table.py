"""The table of a comparison, one row per strategy: as aligned text, Markdown and CSV."""

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from dropout_lab.report.depth import expected_ratio
from dropout_lab.report.runs import Run
from dropout_lab.report.statistics import Interval, interval, paired
from dropout_lab.report.strategies import Strategy, baseline

WIDTH = 120
NOTHING = "–"


@dataclass(frozen=True)
class Column:
    """One number of the table: how to read it from a run, and how to print it."""

    key: str
    title: str
    explained: str
    read: Callable[[Run, str | None], float]  # the run and its strategy's last dropout layer
    decimals: int = 2
    factor: float = 1.0
    signed: bool = False
    with_interval: bool = True
    compared: bool = False  # paired differences to the baseline are worth a look

    def text(self, value: Interval, seeds: int) -> str:
        """The mean, its interval where there is one, and the number of seeds where some lack the value."""
        if not value.n:
            return NOTHING
        sign = "+" if self.signed else ""
        text = f"{value.mean * self.factor:{sign}.{self.decimals}f}"
        if self.with_interval and value.n > 1:
            text += f" ± {value.half * self.factor:.{self.decimals}f}"
        return text if value.n == seeds else f"{text} (n={value.n})"


@dataclass(frozen=True)
class Row:
    """One strategy's numbers, or the reason why it has none."""

    strategy: Strategy
    values: dict[str, Interval] = field(default_factory=dict)
    differences: dict[str, Interval] = field(default_factory=dict)  # to the baseline, at equal seeds

    @property
    def seeds(self) -> int:
        """The number of runs that count."""
        return len(self.strategy.runs)


COLUMNS = (
    Column(
        "test_acc",
        "test acc %",
        "accuracy on the test set",
        lambda run, _: run.final("test/acc"),
        2,
        100,
        compared=True,
    ),
    Column(
        "test_nll",
        "test NLL",
        "cross-entropy on the test set, nats",
        lambda run, _: run.final("test/loss"),
        3,
        compared=True,
    ),
    Column(
        "gap_nll",
        "gap (NLL)",
        "generalisation gap at the last epoch: validation minus training cross-entropy, both in eval mode, nats",
        lambda run, _: run.final("gap/loss"),
        3,
        signed=True,
        compared=True,
    ),
    Column(
        "gain_train",
        "gain train",
        "mean out / mean in of the last dropout layer, while training",
        lambda run, layer: run.at_layer("train", "gain", layer or ""),
        with_interval=False,
    ),
    Column(
        "gain_eval",
        "gain eval",
        "mean out / mean in of the last dropout layer, in eval",
        lambda run, layer: run.at_layer("eval", "gain", layer or ""),
        with_interval=False,
    ),
    Column(
        "ratio",
        "train/eval",
        "mean at the last dropout layer's output in train / in eval, for the same inputs and weights",
        lambda run, layer: run.at_layer("probe", "ratio", layer or ""),
    ),
    Column("seconds", "s/run", "wall time of a run, seconds", lambda run, _: _seconds(run), 1, with_interval=False),
)


def rows(strategies: Sequence[Strategy]) -> list[Row]:
    """The table's rows, in the order of the strategies."""
    base = baseline(strategies)
    reference = {column.key: _by_seed(base, column) for column in COLUMNS if column.compared} if base else {}
    table = []
    for strategy in strategies:
        values = {column.key: interval(_values(strategy, column)) for column in COLUMNS}
        differences = {}
        if strategy.runs and strategy is not base:
            differences = {key: paired(_by_seed(strategy, _column(key)), of_base) for key, of_base in reference.items()}
        table.append(Row(strategy, values if strategy.runs else {}, differences))
    return table


def as_text(table: Sequence[Row]) -> str:
    """Columns aligned for a terminal."""
    heads = ["strategy", "seeds", *(column.title for column in COLUMNS)]
    cells = [_cells(row) for row in table]
    widths = [max(len(line[n]) for line in [heads, *cells] if n < len(line)) for n in range(len(heads))]
    lines = [_aligned(heads, widths), "-" * (sum(widths) + 2 * len(widths) - 2)]
    for row, line in zip(table, cells, strict=True):
        lines += [_aligned(line, widths)] if row.seeds else _reason_lines(row, widths[0])
    return "\n".join(lines)


def as_markdown(table: Sequence[Row]) -> str:
    """A Markdown table."""
    heads = ["strategy", "seeds", *(column.title for column in COLUMNS)]
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    for row in table:
        reason = [f"{row.strategy.reason}", *[""] * (len(heads) - 3)]
        lines.append(_cells(row) if row.seeds else [row.strategy.name, "0", *reason])
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def as_frame(table: Sequence[Row], base: Strategy | None) -> pd.DataFrame:
    """Every number in full, one row per strategy; accuracies are fractions, ``_ci95`` is the half width."""
    records = []
    for row in table:
        record: dict[str, object] = {"strategy": row.strategy.name, "seeds": row.seeds, "not_run": row.strategy.reason}
        for column in COLUMNS:
            record |= _record(column.key, row.values.get(column.key))
        for column in COLUMNS:
            if column.compared:
                record |= _record(f"{column.key}_minus_baseline", row.differences.get(column.key))
        records.append(record | {"baseline": base.name if base else None})
    return pd.DataFrame.from_records(records)


def sentences(table: Sequence[Row]) -> list[str]:
    """What the train/eval ratio is, why it drifts, and what "matched" means; with this table's own numbers."""
    return [_drift(table), _matched(), _definitions()]


def wrapped(text: str, indent: str = "") -> str:
    """Text broken at the terminal table's width."""
    return textwrap.fill(text, WIDTH, subsequent_indent=indent)


def _by_seed(strategy: Strategy, column: Column) -> dict[object, float]:
    layer = _last(strategy)
    return {run.seed: column.read(run, layer) for run in strategy.runs}


def _values(strategy: Strategy, column: Column) -> list[float]:
    layer = _last(strategy)
    return [column.read(run, layer) for run in strategy.runs]


def _last(strategy: Strategy) -> str | None:
    return next(reversed(strategy.dropout_layers()), None)


def _column(key: str) -> Column:
    return next(column for column in COLUMNS if column.key == key)


def _seconds(run: Run) -> float:
    seconds = run.about.get("seconds")
    return float(seconds) if isinstance(seconds, int | float) else float("nan")


def _cells(row: Row) -> list[str]:
    if not row.seeds:
        return [row.strategy.name, "0"]
    return [row.strategy.name, str(row.seeds), *(c.text(row.values[c.key], row.seeds) for c in COLUMNS)]


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = zip(cells, widths, strict=True)
    return "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)])


def _reason_lines(row: Row, width: int) -> list[str]:
    start = f"{row.strategy.name.ljust(width)}  "
    text = textwrap.fill(f"{row.strategy.reason}", WIDTH, initial_indent=start, subsequent_indent=" " * len(start))
    return text.splitlines()


def _record(key: str, value: Interval | None) -> dict[str, object]:
    value = value or Interval(np.nan, np.nan, 0)
    return {f"{key}_mean": value.mean, f"{key}_ci95": value.half, f"{key}_n": value.n}


def _drift(table: Sequence[Row]) -> str:
    text = (
        "train/eval is the mean at the last dropout layer in train over that in eval, for the same inputs and weights: "
        "even correct inverted dropout does not keep it at 1 in a ReLU net, since the mask keeps the mean but adds "
        "variance, and the next ReLU turns variance into mean (theory at He init: about q^(-(l-1)/2) at dropout l, "
        "unscaled q^((l+1)/2)"
    )
    for row in table:
        qs = row.strategy.keeps()
        if qs and row.strategy.scaling != "none":
            inverted, unscaled = expected_ratio("inverted", qs), expected_ratio("unscaled", qs)
            here = f"; here l = {len(qs)}, q = {qs[-1]:.3g}: {inverted:.2f} and {unscaled:.2f}"
            return f"{text}{here if len(set(qs)) == 1 else ''}); training then moves it."
    return f"{text}); training then moves it."


def _matched() -> str:
    return (
        '"matched" makes classic and inverted the same optimisation problem: the weights behind classic dropout '
        "start at init/q and train with lr/q^2 and weight decay*q^2; unmatched, with inverted's own numbers, classic "
        "starts smaller by q and learns slower by q^2."
    )


def _definitions() -> str:
    return (
        "± is the half width of a 95 % interval (Student t over seeds); gain is mean out / mean in of the last dropout "
        "layer; gap is validation minus training NLL, in eval mode, at the last epoch; q = 1 - p is what is kept."
    )
