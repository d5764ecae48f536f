"""Judgement of the claims of an experiment: whether they hold, by its run folders, one rule for all of them.

The claims are those that the runs were started with: the section ``verdict`` of their config.yaml. The value of one
seed is a weighted sum over the arms' runs with that seed, or a number of two such runs; seeds at which a run is missing
are left out. A sign-flip permutation test over the seeds gives a one-sided p-value in the claimed direction (for
"equal": the worse of the tests against both margins), corrected by Holm over all claims of the experiment. Then

    holds                   the corrected p-value is at most alpha;
    too few seeds to tell   it is not, and n seeds could not have made it so (2^-n times the number of claims is above
                            alpha), or the 95 % bootstrap interval still contains values that would matter: an effect of
                            the size ``matters`` in the claimed direction, or, for "equal", a value inside the margin;
    does not hold here      it is not, and the interval contains no such value;
    not judged, runs diverged   a run of one of its arms has: what survives in that arm is no fair part of it;
    not measured            only trained networks tell it, and a report builds none: the command verdict does.

A claim about every layer (``*``) holds where it holds at each: the largest p-value counts, and the layer it is of is
the one that is shown.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dropout_lab.cli import UserError
from dropout_lab.runs.read import Run
from dropout_lab.runs.replicates import Replicate, units
from dropout_lab.runs.strategies import arm_of, group
from dropout_lab.verdict.metrics import Networks, measure, measure_pair
from dropout_lab.verdict.numbers import Numbers
from dropout_lab.verdict.statement import Claim, Statement, read_statement
from dropout_lab.verdict.statistics import bootstrap_interval, holm, p_equal, p_greater, p_less, smallest_p

HOLDS, FAILS, TOO_FEW = "holds", "does not hold here", "too few seeds to tell"
NOT_WHOLE, UNMEASURED = "not judged, runs diverged", "not measured"
NO_CLAIMS = "these runs claim nothing; those of scripts/compare experiment=NAME do"

Arms = Mapping[str, Mapping[Replicate, Run]]  # arm -> replicate -> run


@dataclass(frozen=True)
class Verdict:
    """What the runs say about a claim.

    Attributes:
        claim: as stated.
        metric: the claim's; of a claim about every layer, with the layer that is worst.
        theory: the value it was compared with.
        bound: the claim's margin, or the smallest effect that matters.
        value: mean over seeds; NaN without seeds.
        low: lower end of its 95 % interval.
        high: upper end.
        seeds: number of pairs.
        p: corrected by Holm.
        word: holds, does not hold here, too few seeds to tell, not judged, runs diverged, or not measured.
    """

    claim: Claim
    metric: str
    theory: float
    bound: float
    value: float
    low: float
    high: float
    seeds: int
    p: float
    word: str = ""

    @property
    def claimed(self) -> str:
        """What was claimed of the value: ``< 0``, ``1 ± 0.03``."""
        if self.claim.direction == "equal":
            return f"{self.theory:.4g} ± {self.bound:.4g}"
        return f"{'>' if self.claim.direction == 'greater' else '<'} {self.theory:.4g}"

    @property
    def measured(self) -> str:
        """The value with its interval."""
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]" if self.seeds else "no seeds"


def find_statement(runs: Sequence[Run]) -> Statement | None:
    """The claims that the runs were started with; None where they state none.

    Raises:
        UserError: not all state the same ones.
    """
    sections = [run.config.get("verdict") for run in runs if run.config]
    if any(section != sections[0] for section in sections):
        raise UserError("these runs state different claims: give the folder of one sweep")
    return read_statement(sections[0]) if sections and sections[0] else None


def by_arm(runs: Sequence[Run]) -> dict[str, dict[Replicate, Run]]:
    """The runs that count, by arm and replicate; of two of one configuration the newer one.

    Raises:
        UserError: runs of one arm differ in more than the replicate, or are folds of one set of samples.
    """
    arms: dict[str, dict[Replicate, Run]] = {}
    for strategy in group(runs, {})[0]:
        if not strategy.runs:
            continue
        arm = arm_of(strategy.config)
        if arm in arms:
            raise UserError(f"arm {arm}: its runs differ in more than the {strategy.units.noun}, e.g. {strategy.name}")
        if strategy.units.overlap:
            raise UserError("claims are tested on runs that do not depend on each other, as folds do: sweep seeds")
        arms[arm] = {run.replicate: run for run in strategy.runs}
    return arms


def arms_not_whole(runs: Sequence[Run]) -> set[str]:
    """The arms of which a run has diverged."""
    return {arm_of(run.config) for strategy in group(runs, {})[0] for run in strategy.diverged}


def judge(
    statement: Statement, arms: Arms, not_whole: Collection[str] = (), numbers: Numbers | None = None
) -> list[Verdict]:
    """The verdict on every claim, in their order; none on those about arms that are not whole, or not measured.

    Args:
        statement: with the claims.
        arms: their runs.
        not_whole: arms of which a run has diverged.
        numbers: those that only trained networks tell; None: they are measured.
    """
    tests = [_worst_layer(claim, arms, numbers) for claim in statement.claims]
    tests = [replace(test, p=1.0, word=NOT_WHOLE) if {*test.claim.arms} & {*not_whole} else test for test in tests]
    corrected = holm([test.p for test in tests])
    return [
        replace(test, p=p, word=test.word or _word(test, p, len(tests), statement.alpha))
        for test, p in zip(tests, corrected, strict=True)
    ]


def as_text(verdicts: Sequence[Verdict], statement: Statement) -> str:
    """The verdicts for a terminal: two lines for each claim, and how they were tested."""
    lines = []
    for verdict in verdicts:
        lines += [
            f"{verdict.word.upper()}: {verdict.claim.says}",
            f"    {verdict.metric}, {formula(verdict.claim)}: {verdict.measured}, claimed {verdict.claimed}; "
            f"{verdict.seeds} seeds, p = {verdict.p:.2g}",
        ]
    return "\n".join([*lines, rule(statement)])


def rule(statement: Statement) -> str:
    """The way to p-values and intervals, in a sentence."""
    return (
        "Sign-flip tests over paired seeds, one-sided in the claimed direction,\n"
        f"Holm over the experiment's claims, alpha {statement.alpha:g}; [...] is a 95 % bootstrap interval."
    )


def formula(claim: Claim) -> str:
    """The arms of a claim as a formula, what is added first: ``unscaled - inverted``."""
    if claim.pair is not None:
        return f"{claim.pair[0]} to {claim.pair[1]}"
    terms: list[str] = []
    for arm, weight in sorted((claim.contrast or {}).items(), key=lambda term: term[1] < 0):
        factor = "" if abs(weight) == 1 else f"{abs(weight):.3g} "
        sign = ("- " if weight < 0 else "+ ") if terms else ("-" if weight < 0 else "")
        terms.append(f"{sign}{factor}{arm}")
    return " ".join(terms)


def _worst_layer(claim: Claim, arms: Arms, numbers: Numbers | None) -> Verdict:
    """The test of a claim, its p-value not corrected yet; of several layers that with the largest p-value."""
    layers = _layers(claim, arms)
    metrics = [claim.metric[:-1] + layer for layer in layers] if layers else [claim.metric]
    theory = _each(claim.theory, len(metrics), claim, layers)
    bound = _each(claim.matters if claim.margin is None else claim.margin, len(metrics), claim, layers)
    of_networks = numbers.of if numbers else None
    tests = [_test(claim, arms, *about, of_networks) for about in zip(metrics, theory, bound, strict=True)]
    worst = max(tests, key=lambda test: (test.p, abs(test.value - test.theory)))
    known = not numbers or numbers.unmeasured.isdisjoint(metrics)
    return worst if known else replace(worst, p=1.0, word=UNMEASURED)


def _layers(claim: Claim, arms: Arms) -> list[str]:
    """The dropout layers that the star of a claim's metric stands for; none where it has no star."""
    runs = [run for arm in claim.arms for run in arms.get(arm, {}).values()]
    return max((run.dropout_layers for run in runs), key=len, default=[]) if claim.metric.endswith("/*") else []


def _each(value: float | list[float] | None, count: int, claim: Claim, layers: list[str]) -> list[float]:
    """The values that a claim states, one for each layer; without any layers the first.

    Raises:
        UserError: they are values for another number of layers.
    """
    values = value if isinstance(value, list) else [float(value or 0)] * count
    if layers and len(values) != count:
        raise UserError(f"{claim.says!r} states {len(values)} values for the layers; these runs have {count}")
    return values[:count]


def _test(claim: Claim, arms: Arms, metric: str, theory: float, bound: float, of_networks: Networks | None) -> Verdict:
    """The test of a claim about one metric, over the replicates that all of its arms have; no word yet."""
    of_arms = [arms.get(arm, {}) for arm in claim.arms]
    both = sorted(set.intersection(*(set(runs) for runs in of_arms)))
    each = [_value(claim, metric, [runs[replicate] for runs in of_arms], of_networks) for replicate in both]
    means = units([of_arms[0][replicate].config for replicate in both]).means(each)
    values = [float(value) for value in means if np.isfinite(value)]
    if claim.direction == "equal":
        p = p_equal([value - theory for value in values], bound)
    else:
        p = p_greater(values, theory) if claim.direction == "greater" else p_less(values, theory)
    mean = float(np.mean(values)) if values else float("nan")
    return Verdict(claim, metric, theory, bound, mean, *bootstrap_interval(values), len(values), p)


def _value(claim: Claim, metric: str, runs: Sequence[Run], of_networks: Networks | None) -> float:
    """The value of a claim at one seed, from the run of each of its arms."""
    if claim.contrast is None:
        return measure_pair(runs[0], runs[1], metric, of_networks)
    weighted = zip(claim.contrast.values(), runs, strict=True)
    return sum(weight * measure(run, metric, of_networks) for weight, run in weighted)


def _word(test: Verdict, p: float, claims: int, alpha: float) -> str:
    """The word on a claim, by the rule at the top of this file."""
    if p <= alpha:
        return HOLDS
    return TOO_FEW if claims * smallest_p(test.seeds) > alpha or _may_matter(test) else FAILS


def _may_matter(test: Verdict) -> bool:
    """Whether the interval contains values that would make the claim worth stating."""
    low, high = test.low - test.theory, test.high - test.theory
    if test.claim.direction == "equal":
        return low < test.bound and high > -test.bound
    return high >= test.bound if test.claim.direction == "greater" else low <= -test.bound
