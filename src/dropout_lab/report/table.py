"""The table of a comparison, one row per strategy: as aligned text, Markdown and CSV."""

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from dropout_lab.report.columns import TableColumn, columns_of
from dropout_lab.runs.replicates import Replicate, units
from dropout_lab.runs.strategies import Strategy, baseline
from dropout_lab.verdict.statistics import Interval, interval

WIDTH = 120  # of a terminal


@dataclass(frozen=True)
class Row:
    """One row of the table: a strategy's numbers, or the reason why it has none."""

    strategy: Strategy
    columns: Sequence[TableColumn]  # of the table
    values: dict[str, Interval] = field(default_factory=dict)
    differences: dict[str, Interval] = field(default_factory=dict)  # to the baseline, at equal replicates

    @property
    def seeds(self) -> int:
        """The number of what the row's intervals are over: seeds, most often."""
        return len(self.strategy.units.runs)

    @property
    def name(self) -> str:
        """The name of its strategy, and at how many sites that has another mask, as its own does not fit them."""
        return " ".join([self.strategy.name, *(f"({words})" for words in self.strategy.remarks("elsewhere"))])

    @property
    def counted(self) -> str:
        """How many count, in words, and how many do not as their loss was no number: ``7 of 8, 1 diverged``."""
        lost = self.strategy.diverged
        if not lost:
            return str(self.seeds)
        whole = units([run.config for run in (*self.strategy.runs, *lost)])
        return f"{self.seeds} of {len(whole.runs)}, {len(lost)} diverged"


def rows(strategies: Sequence[Strategy]) -> list[Row]:
    """The rows of the table, in the order of the strategies."""
    base, columns = baseline(strategies), columns_of([run for strategy in strategies for run in strategy.runs])
    reference = {column: _by_replicate(base, column) for column in columns if column.compared} if base else {}
    table = []
    for strategy in strategies:
        over = strategy.units
        values = {each.key: interval(over.means(_values(strategy, each)), over.overlap) for each in columns}
        differences = {}
        if strategy.runs and strategy is not base:
            differences = _differences(strategy, reference)
        table.append(Row(strategy, columns, values if strategy.runs else {}, differences))
    return table


def keys_with_numbers(table: Sequence[Row]) -> set[str]:
    """The keys of the columns in which some row of the table has a number."""
    return {key for row in table for key, value in row.values.items() if value.n}


def columns_with_numbers(table: Sequence[Row]) -> Sequence[TableColumn]:
    """The columns in which some row of the table has a number; all of them, where there is no number at all."""
    keys = keys_with_numbers(table)
    columns = table[0].columns if table else []
    return [column for column in columns if column.key in keys] or columns


def replicated(table: Sequence[Row]) -> str:
    """What the rows' intervals are over, in one word: seeds, folds, splits."""
    nouns = {row.strategy.units.noun for row in table if row.seeds}
    return f"{nouns.pop()}s" if len(nouns) == 1 else "replicates" if nouns else "seeds"


def statistics(table: Sequence[Row]) -> set[str]:
    """The statistics of layers that any run of the table logged."""
    return {
        stat
        for row in table
        for run in row.strategy.runs
        for tracks in run.tracks.values()
        for stat, _ in tracks.columns
    }


def as_text(table: Sequence[Row]) -> str:
    """The table as text, its columns aligned for a terminal; of what was measured those that are shown there."""
    shown = [column for column in columns_with_numbers(table) if column.shown]
    heads = ["strategy", replicated(table), *(column.title for column in shown)]
    cells = [_cells(row, shown) for row in table]
    widths = [max(len(line[n]) for line in [heads, *cells] if n < len(line)) for n in range(len(heads))]
    lines = [_aligned(heads, widths), "-" * (sum(widths) + 2 * len(widths) - 2)]
    for row, line in zip(table, cells, strict=True):
        lines += [_aligned(line, widths)] if row.seeds else _reason_lines(row, widths[0])
    return "\n".join(lines)


def as_markdown(table: Sequence[Row]) -> str:
    """The table in Markdown."""
    shown = columns_with_numbers(table)
    heads = ["strategy", replicated(table), *(column.title for column in shown)]
    lines = []
    for row in table:
        reason = [str(row.strategy.reason), *[""] * (len(heads) - 3)]
        lines.append(_cells(row, shown) if row.seeds else [row.strategy.name, row.counted, *reason])
    return _markdown(heads, lines)


def differences_as_markdown(table: Sequence[Row], base: Strategy | None) -> str:
    """The paired differences to the baseline as a table in Markdown; empty where there are none."""
    lines = [_difference_cells(row) for row in table if any(one.n for one in row.differences.values())]
    if base is None or not lines:
        return ""
    heads = [f"minus {base.name}", "pairs", *(column.title for column in table[0].columns if column.compared)]
    return f"Paired differences at equal {replicated(table)}:\n\n{_markdown(heads, lines)}"


def as_frame(table: Sequence[Row], base: Strategy | None) -> pd.DataFrame:
    """The table as a frame, every number in full: accuracies are fractions, ``_ci95`` is the half width."""
    records = []
    for row in table:
        record: dict[str, object] = {
            "strategy": row.strategy.name,
            "seeds": row.seeds,
            "reason": row.strategy.reason,
        }
        record["diverged"] = len(row.strategy.diverged)
        for column in row.columns:
            record |= _record(column.key, row.values.get(column.key))
        for column in row.columns:
            if column.compared:
                record |= _record(f"{column.key}_minus_baseline", row.differences.get(column.key))
        records.append(record | {"baseline": base.name if base else None})
    return pd.DataFrame.from_records(
        [{_inert(key): _inert(value) for key, value in record.items()} for record in records]
    )


def as_markdown_text(text: str) -> str:
    """A text as Markdown that ends no cell, and is neither a link, a picture nor HTML."""
    return re.sub(r"([|<\[])", r"\\\1", text)


def _inert(value: Any) -> Any:
    """A value of a CSV file that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value


def wrapped(text: str, indent: str = "") -> str:
    """Text broken at the terminal table's width."""
    return textwrap.fill(text, WIDTH, subsequent_indent=indent)


def _markdown(heads: list[str], lines: list[list[str]]) -> str:
    """A table in Markdown, numbers to the right."""
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *lines]
    return "\n".join("| " + " | ".join(map(as_markdown_text, line)) + " |" for line in lines)


def _by_replicate(strategy: Strategy, column: TableColumn) -> dict[Replicate, float]:
    """Replicate -> the number that its run has in a column."""
    layer = _last(strategy)
    return {run.replicate: column.read(run, layer) for run in strategy.runs if run.seed is not None}


def _differences(strategy: Strategy, reference: Mapping[TableColumn, Mapping[Replicate, float]]) -> dict[str, Interval]:
    """Column -> the difference to the baseline's numbers over the replicates that both have.

    At one replicate the runs share masks, initial weights and data, so that it is much less noisy than the two means.
    """
    found = {}
    both = [run for run in strategy.runs if all(run.replicate in of_base for of_base in reference.values())]
    over = units([run.config for run in both])
    for column, of_base in reference.items():
        own = _by_replicate(strategy, column)
        each = [own[run.replicate] - of_base[run.replicate] for run in both]
        found[column.key] = interval(over.means(each), over.overlap)
    return found


def _values(strategy: Strategy, column: TableColumn) -> list[float]:
    """The numbers that a strategy's runs have in a column."""
    layer = _last(strategy)
    return [column.read(run, layer) for run in strategy.runs]


def _last(strategy: Strategy) -> str | None:
    """The last dropout layer of a strategy, whose gain and ratio the table has."""
    return next(reversed(strategy.dropout_layers), None)


def _cells(row: Row, shown: Sequence[TableColumn]) -> list[str]:
    """The cells of a row as text."""
    if not row.seeds:
        return [row.strategy.name, row.counted]
    return [row.name, row.counted, *(c.text(row.values[c.key], row.seeds) for c in shown)]


def _difference_cells(row: Row) -> list[str]:
    """The cells of a row of paired differences as text."""
    pairs = max(difference.n for difference in row.differences.values())
    compared = [replace(column, signed=True) for column in row.columns if column.compared]
    texts = (column.text(row.differences[column.key], pairs) for column in compared)
    return [row.strategy.name, str(pairs), *texts]


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Cells padded to the widths of their columns, the first to the left, numbers to the right."""
    first, *rest = zip(cells, widths, strict=True)
    return "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)])


def _reason_lines(row: Row, width: int) -> list[str]:
    """The lines of a row that has a reason in place of numbers."""
    start = f"{row.strategy.name.ljust(width)}  "
    text = textwrap.fill(str(row.strategy.reason), WIDTH, initial_indent=start, subsequent_indent=" " * len(start))
    return text.splitlines()


def _record(key: str, value: Interval | None) -> dict[str, object]:
    """The parts of one number of the frame: mean, half width and count."""
    value = value or Interval(np.nan, np.nan, 0)
    return {f"{key}_mean": value.mean, f"{key}_ci95": value.half, f"{key}_n": value.n}
