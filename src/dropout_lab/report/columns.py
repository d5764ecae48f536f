"""Columns of the table: what each of its numbers is, how it is read from a run, and how it is printed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dropout_lab.modules.columns import Column, declared
from dropout_lab.runs.read import Run
from dropout_lab.verdict.statistics import Interval


@dataclass(frozen=True)
class TableColumn:
    """One column of the table: how its number is read from a run, and how it is printed."""

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
    shown: bool = True  # in the terminal, too

    def text(self, value: Interval, seeds: int) -> str:
        """A cell: the mean, its interval where there is one, and the number of seeds where some lack the value."""
        if not value.n:
            return "–"
        sign = "+" if self.signed else ""
        text = f"{value.mean * self.factor:{sign}.{self.decimals}f}"
        if self.with_interval and value.n > 1:
            text += f" ± {value.half * self.factor:.{self.decimals}f}"
        return text if value.n == seeds else f"{text} (n={value.n})"


def _seconds(run: Run) -> float:
    """The wall time of a run; NaN where it is not recorded."""
    seconds = run.about.get("seconds")
    return float(seconds) if isinstance(seconds, int | float) else float("nan")


def columns_of(runs: Sequence[Run]) -> list[TableColumn]:
    """The columns of a table of runs: what they measured, the gap in their loss, and what dropout does in layers."""
    measured = declared(run.config for run in runs)
    gaps = [_gap(column) for column in measured if column.key == "loss"]
    return [*map(_tested, measured), *gaps, *OF_EVERY_RUN]


def _tested(column: Column) -> TableColumn:
    """The column of what was measured of the test part, or by a callback of another."""
    part, there = ("test", " on the test set") if column.tested else ("", "")
    name = f"{part} {column.brief}".strip()
    return TableColumn(
        name.lower().replace(" ", "_"),
        f"{name}{' %' if column.unit == '%' else ''}",
        column.named(part),
        f"{column.title}{there}" + (f", {column.unit}" if column.unit else ""),
        lambda run, _: run.final(column.of("test")),
        column.decimals,
        column.factor,
        compared=True,
        shown=column.shown,
    )


def _gap(column: Column) -> TableColumn:
    """The column of how much worse the loss is on validation than on training samples."""
    return TableColumn(
        f"gap_{column.brief.lower()}",
        f"gap ({column.brief})",
        column.named("gap in"),
        f"{column.named('generalisation gap at the last epoch: validation minus training')}, both in eval mode",
        lambda run, _: run.final(column.of("gap")),
        column.decimals,
        column.factor,
        signed=True,
        compared=True,
    )


OF_EVERY_RUN = (
    TableColumn(
        "gain_train",
        "gain train",
        "gain in train",
        "mean out / mean in of the last dropout layer, while training",
        lambda run, layer: run.at_layer("train", "gain", layer or ""),
    ),
    TableColumn(
        "gain_eval",
        "gain eval",
        "gain in eval",
        "mean out / mean in of the last dropout layer, in eval",
        lambda run, layer: run.at_layer("eval", "gain", layer or ""),
    ),
    TableColumn(
        "ratio",
        "ratio",
        "ratio",
        "mean at the last dropout layer in train over that in eval, for the same inputs and weights",
        lambda run, layer: run.at_layer("probe", "ratio", layer or ""),
    ),
    TableColumn(
        "seconds",
        "s/run",
        "seconds per run",
        "wall time of a run, seconds",
        lambda run, _: _seconds(run),
        1,
        with_interval=False,
    ),
)
