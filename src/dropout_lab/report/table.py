"""The table of a comparison, one row per strategy: as aligned text, Markdown and CSV."""

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from dropout_lab.runs.read import Run
from dropout_lab.runs.strategies import Strategy, baseline
from dropout_lab.verdict.statistics import Interval, interval, paired

WIDTH = 120
NOTHING = "–"


@dataclass(frozen=True)
class Column:
    """One number of the table: how to read it from a run, and how to print it."""

    key: str
    title: str  # in the terminal
    label: str  # on the page
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


def _seconds(run: Run) -> float:
    seconds = run.about.get("seconds")
    return float(seconds) if isinstance(seconds, int | float) else float("nan")


COLUMNS = (
    Column(
        "test_acc",
        "test acc %",
        "test accuracy, %",
        "accuracy on the test set",
        lambda run, _: run.final("test/acc"),
        2,
        100,
        compared=True,
    ),
    Column(
        "test_nll",
        "test NLL",
        "test NLL, nats",
        "cross-entropy on the test set, nats",
        lambda run, _: run.final("test/loss"),
        3,
        compared=True,
    ),
    Column(
        "gap_nll",
        "gap (NLL)",
        "gap in NLL, nats",
        "generalisation gap at the last epoch: validation minus training cross-entropy, both in eval mode, nats",
        lambda run, _: run.final("gap/loss"),
        3,
        signed=True,
        compared=True,
    ),
    Column(
        "gain_train",
        "gain train",
        "gain in train",
        "mean out / mean in of the last dropout layer, while training",
        lambda run, layer: run.at_layer("train", "gain", layer or ""),
        with_interval=False,
    ),
    Column(
        "gain_eval",
        "gain eval",
        "gain in eval",
        "mean out / mean in of the last dropout layer, in eval",
        lambda run, layer: run.at_layer("eval", "gain", layer or ""),
        with_interval=False,
    ),
    Column(
        "ratio",
        "train/eval",
        "ratio train/eval",
        "mean at the last dropout layer's output in train / in eval, for the same inputs and weights",
        lambda run, layer: run.at_layer("probe", "ratio", layer or ""),
    ),
    Column(
        "seconds",
        "s/run",
        "seconds per run",
        "wall time of a run, seconds",
        lambda run, _: _seconds(run),
        1,
        with_interval=False,
    ),
)


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


def columns(table: Sequence[Row]) -> Sequence[Column]:
    """The columns to show: those in which some row has a number; all, where there is none at all."""
    return [column for column in COLUMNS if any(row.values and row.values[column.key].n for row in table)] or COLUMNS


def watched(table: Sequence[Row]) -> bool:
    """Whether any run logged statistics of activations."""
    return any(run.layers for row in table for run in row.strategy.runs)


def as_text(table: Sequence[Row]) -> str:
    """Columns aligned for a terminal."""
    shown = columns(table)
    heads = ["strategy", "seeds", *(column.title for column in shown)]
    cells = [_cells(row, shown) for row in table]
    widths = [max(len(line[n]) for line in [heads, *cells] if n < len(line)) for n in range(len(heads))]
    lines = [_aligned(heads, widths), "-" * (sum(widths) + 2 * len(widths) - 2)]
    for row, line in zip(table, cells, strict=True):
        lines += [_aligned(line, widths)] if row.seeds else _reason_lines(row, widths[0])
    return "\n".join(lines)


def as_markdown(table: Sequence[Row]) -> str:
    """A Markdown table."""
    shown = columns(table)
    heads = ["strategy", "seeds", *(column.title for column in shown)]
    lines = []
    for row in table:
        reason = [str(row.strategy.reason), *[""] * (len(heads) - 3)]
        lines.append(_cells(row, shown) if row.seeds else [row.strategy.name, "0", *reason])
    return _markdown(heads, lines)


def differences_as_markdown(table: Sequence[Row], base: Strategy | None) -> str:
    """A Markdown table of the paired differences to the baseline; empty where there are none."""
    lines = [_difference_cells(row) for row in table if any(one.n for one in row.differences.values())]
    if base is None or not lines:
        return ""
    heads = [f"minus {base.name}", "pairs", *(column.title for column in COLUMNS if column.compared)]
    return f"Paired differences at equal seeds:\n\n{_markdown(heads, lines)}"


def as_frame(table: Sequence[Row], base: Strategy | None) -> pd.DataFrame:
    """Every number in full, one row per strategy; accuracies are fractions, ``_ci95`` is the half width."""
    records = []
    for row in table:
        record: dict[str, object] = {"strategy": row.strategy.name, "seeds": row.seeds, "reason": row.strategy.reason}
        for column in COLUMNS:
            record |= _record(column.key, row.values.get(column.key))
        for column in COLUMNS:
            if column.compared:
                record |= _record(f"{column.key}_minus_baseline", row.differences.get(column.key))
        records.append(record | {"baseline": base.name if base else None})
    return pd.DataFrame.from_records(records)


def wrapped(text: str, indent: str = "") -> str:
    """Text broken at the terminal table's width."""
    return textwrap.fill(text, WIDTH, subsequent_indent=indent)


def _markdown(heads: list[str], lines: list[list[str]]) -> str:
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *lines]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _by_seed(strategy: Strategy, column: Column) -> dict[object, float]:
    layer = _last(strategy)
    return {run.seed: column.read(run, layer) for run in strategy.runs}


def _values(strategy: Strategy, column: Column) -> list[float]:
    layer = _last(strategy)
    return [column.read(run, layer) for run in strategy.runs]


def _last(strategy: Strategy) -> str | None:
    return next(reversed(strategy.dropout_layers), None)


def _column(key: str) -> Column:
    return next(column for column in COLUMNS if column.key == key)


def _cells(row: Row, shown: Sequence[Column]) -> list[str]:
    if not row.seeds:
        return [row.strategy.name, "0"]
    return [row.strategy.name, str(row.seeds), *(c.text(row.values[c.key], row.seeds) for c in shown)]


def _difference_cells(row: Row) -> list[str]:
    pairs = max(difference.n for difference in row.differences.values())
    texts = (replace(_column(key), signed=True).text(one, pairs) for key, one in row.differences.items())
    return [row.strategy.name, str(pairs), *texts]


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = zip(cells, widths, strict=True)
    return "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)])


def _reason_lines(row: Row, width: int) -> list[str]:
    start = f"{row.strategy.name.ljust(width)}  "
    text = textwrap.fill(str(row.strategy.reason), WIDTH, initial_indent=start, subsequent_indent=" " * len(start))
    return text.splitlines()


def _record(key: str, value: Interval | None) -> dict[str, object]:
    value = value or Interval(np.nan, np.nan, 0)
    return {f"{key}_mean": value.mean, f"{key}_ci95": value.half, f"{key}_n": value.n}
