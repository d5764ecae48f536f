"""Data on what an experiment claimed and what its runs say: the verdicts, and the numbers in its figures."""

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dropout_lab.cli import UserError
from dropout_lab.runs.read import Run
from dropout_lab.runs.replicates import units
from dropout_lab.verdict.judge import (
    FAILS,
    HOLDS,
    NO_CLAIMS,
    NOT_WHOLE,
    TOO_FEW,
    UNMEASURED,
    Arms,
    Verdict,
    arms_not_whole,
    as_text,
    by_arm,
    find_statement,
    formula,
    judge,
)
from dropout_lab.verdict.metrics import measure
from dropout_lab.verdict.numbers import Numbers
from dropout_lab.verdict.statement import Line, Plot, Statement
from dropout_lab.verdict.statistics import over_last_axis

HEAD = ("claim", "measured as", "here", "claimed", "seeds", "p", "verdict")


@dataclass(frozen=True)
class Points:
    """A line of a plot: x, and over the seeds the mean and the half width of its 95 % interval, (points,) each."""

    x: np.ndarray
    mean: np.ndarray
    half: np.ndarray


@dataclass(frozen=True)
class Claimed:
    """What was claimed and what came out, as verdicts and as numbers of the figures.

    Attributes:
        verdicts: one for each claim, in their order.
        plots: what is drawn besides, with the points of each of its lines.
        filters: arm -> the weights of its first layer as images, (units, H, W, C), of its first seed.
        unmeasured: the sentence on what has yet to be measured, and how; "": nothing.
    """

    statement: Statement
    verdicts: list[Verdict]
    plots: list[tuple[Plot, dict[str, Points]]]
    filters: dict[str, np.ndarray]
    unmeasured: str = ""

    @property
    def text(self) -> str:
        """The verdicts as text for a terminal."""
        return as_text(self.verdicts, self.statement)

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """The verdicts as rows of a table with the columns HEAD."""
        return [
            (v.claim.says, f"{v.metric}, {formula(v.claim)}", v.measured, v.claimed, str(v.seeds), f"{v.p:.2g}", v.word)
            for v in self.verdicts
        ]

    @property
    def counted(self) -> str:
        """How many verdicts there are of each kind: ``2 holds, 1 does not hold here``."""
        counts = Counter(verdict.word for verdict in self.verdicts)
        words = (HOLDS, FAILS, TOO_FEW, NOT_WHOLE, UNMEASURED)
        return ", ".join(f"{counts[word]} {word}" for word in words if counts[word])


def read_claimed(runs: Sequence[Run], numbers: Numbers) -> Claimed:
    """Judge the claims that the runs were started with, and read what their pictures show.

    Args:
        runs: of the experiment.
        numbers: those that only trained networks tell.

    Raises:
        UserError: the runs claim nothing or different things, or cannot be judged.
    """
    statement = find_statement(runs)
    if statement is None:
        raise UserError(NO_CLAIMS)
    arms = by_arm(runs)
    verdicts = judge(statement, arms, arms_not_whole(runs), numbers)
    plots = [
        (plot, {name: _points(line, arms, numbers) for name, line in plot.lines.items()}) for plot in statement.figure
    ]
    first = {arm: arms[arm][min(arms[arm])] for arm in statement.filters if arm in arms}  # of its runs
    filters = {arm: images for arm, run in first.items() if (images := numbers.filters(arm, run)) is not None}
    return Claimed(statement, verdicts, plots, filters, _unmeasured(verdicts, numbers))


def _unmeasured(verdicts: Sequence[Verdict], numbers: Numbers) -> str:
    """The sentence on what only trained networks tell, and how to have them asked; empty where nothing is missing."""
    if not numbers.unmeasured:
        return ""
    said = [f"“{verdict.claim.says}”" for verdict in verdicts if verdict.word == UNMEASURED]
    what = ", ".join(said or ["what is drawn of trained networks"])
    return f"Not measured: {what}; scripts/lab verdict {shlex.quote(str(numbers.folder))} does it."


def _points(line: Line, arms: Arms, numbers: Numbers) -> Points:
    """The points of one line of a plot, measured at the runs of its arms."""
    values = []
    for arm, metric, _ in line.points:
        runs = [*arms.get(arm, {}).values()]
        each = [measure(run, metric, numbers.of) for run in runs]
        values.append(units([run.config for run in runs]).means(each))
    most = max(map(len, values))
    table = np.array([[*each, *[np.nan] * (most - len(each))] for each in values], dtype=float)
    return Points(np.array([x for *_, x in line.points]), *over_last_axis(table))
