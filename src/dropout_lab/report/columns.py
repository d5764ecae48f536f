"""Columns of the table: what each of its numbers is, how it is read from a run, and how it is printed."""

from collections.abc import Callable
from dataclasses import dataclass

from dropout_lab.runs.read import Run
from dropout_lab.verdict.statistics import Interval


@dataclass(frozen=True)
class Column:
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
        "cross-entropy on the validation data minus that on the training data, both with dropout off, last epoch, nats",
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
        "ratio",
        "ratio",
        "mean at the last dropout layer in train over that in eval, for the same inputs and weights",
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
