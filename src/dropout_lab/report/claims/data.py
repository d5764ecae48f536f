"""Data on what an experiment claimed and what its runs say: the verdicts, and the numbers in its figures."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dropout_lab.cli import UserError
from dropout_lab.runs.read import Run
from dropout_lab.runs.replicates import Replicate, units
from dropout_lab.verdict.judge import (
    FAILS,
    HOLDS,
    NO_CLAIMS,
    NOT_WHOLE,
    TOO_FEW,
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
    """

    statement: Statement
    verdicts: list[Verdict]
    plots: list[tuple[Plot, dict[str, Points]]]
    filters: dict[str, np.ndarray]

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
        return ", ".join(f"{counts[word]} {word}" for word in (HOLDS, FAILS, TOO_FEW, NOT_WHOLE) if counts[word])


def read_claimed(runs: Sequence[Run]) -> Claimed:
    """Judge the claims that the runs were started with, and measure what their pictures show.

    Raises:
        UserError: the runs claim nothing or different things, or cannot be judged.
    """
    statement = find_statement(runs)
    if statement is None:
        raise UserError(NO_CLAIMS)
    arms = by_arm(runs)
    plots = [(plot, {name: _points(line, arms) for name, line in plot.lines.items()}) for plot in statement.figure]
    filters = {arm: _filters(arms[arm]) for arm in statement.filters if arm in arms}
    return Claimed(statement, judge(statement, arms, arms_not_whole(runs)), plots, filters)


def _filters(runs: Mapping[Replicate, Run]) -> np.ndarray:
    """The first layer's weights, as images, in the run of the first replicate."""
    from dropout_lab.verdict.trained_network import load  # torch takes seconds, and few experiments need it
    from dropout_lab.verdict.units import filters

    return filters(load(runs[min(runs)].folder))


def _points(line: Line, arms: Arms) -> Points:
    """The points of one line of a plot, measured at the runs of its arms."""
    values = []
    for arm, metric, _ in line.points:
        runs = [*arms.get(arm, {}).values()]
        values.append(units([run.config for run in runs]).means([measure(run, metric) for run in runs]))
    most = max(map(len, values))
    table = np.array([[*each, *[np.nan] * (most - len(each))] for each in values], dtype=float)
    return Points(np.array([x for *_, x in line.points]), *over_last_axis(table))
