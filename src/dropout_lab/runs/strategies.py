"""Strategies: runs that differ in nothing but the seed, as rows of the table and lines of the pictures."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from dropout_lab.jobs.overrides import flat
from dropout_lab.runs.read import Run
from dropout_lab.runs.settings import differing_keys


@dataclass(frozen=True)
class Strategy:
    """A strategy: the runs of one configuration, over seeds.

    Attributes:
        name: ``base`` and the settings that tell it from others of that base.
        base: the sweep's arm, else the kind of dropout.
        kind: inverted, classic, spatial, unscaled, gaussian, none, or the class of a strategy of one's own.
        scaling: the law it follows, one of theory.SCALINGS of the report; None where that is not known.
        p: the drop probability; None where the config does not say.
        runs: the runs that count.
        reason: why there is nothing to show; None where there is.
    """

    name: str
    base: str
    kind: str
    scaling: str | None = None
    p: float | None = None
    runs: list[Run] = field(default_factory=list)
    reason: str | None = None

    @property
    def config(self) -> Mapping[str, Any]:
        """The configuration that all runs of the strategy share, apart from the seed."""
        return self.runs[0].config if self.runs else {}

    @cached_property
    def dropout_layers(self) -> list[str]:
        """The dropout layers of the strategy's network, first to last."""
        return max((run.dropout_layers for run in self.runs), key=len, default=[])

    def keeps(self) -> list[float] | None:
        """q = 1 - p of each dropout layer, as recorded; None where p was not, or changes, or no law asks for it."""
        if self.scaling is None or _changes_over_time(self.config):
            return None
        recorded = [self._recorded(layer) for layer in self.dropout_layers]
        return [1 - p for (p,) in recorded] if all(len(ps) == 1 for ps in recorded) else None

    def _recorded(self, layer: str) -> set[float]:
        """The drop probabilities that a layer had, at any step of any run."""
        tracks = [run.tracks["train"] for run in self.runs if "train" in run.tracks]
        return {float(p) for one in tracks for p in one.logged("p", layer)}


def group(runs: Iterable[Run], skipped: Mapping[str, str]) -> tuple[list[Strategy], list[Run]]:
    """Group runs into strategies, in the order of their first run; and the runs that are not counted.

    Of two runs with the same configuration and seed the newer one counts: a seed seen twice is not two samples.
    """
    runs = list(runs)
    named: dict[str, list[Run]] = {}
    for run in runs:
        if run.config:
            named.setdefault(_base_name(run.config), []).append(run)
    strategies: list[Strategy] = []
    left_out = [run for run in runs if not run.config]
    for base, members in named.items():
        differing = differing_keys([run.config for run in members], _irrelevant(members[0].config))
        parts: dict[str, list[Run]] = {}
        for run in members:
            parts.setdefault(_with_settings(base, run.config, differing), []).append(run)
        for name, part in parts.items():
            counted, repeated = _newest_of_each_seed([run for run in part if run.counted])
            failures = [run for run in part if not run.counted]
            left_out += repeated + failures
            reason = None if counted else _why(failures)
            strategies.append(_strategy(name, base, part[0].config, counted, reason))
    position = {run.name: n for n, run in enumerate(runs)}
    for name, reason in skipped.items():
        if all(strategy.name != name for strategy in strategies):
            strategies.append(Strategy(name, name, name, reason=f"could not be applied: {reason}"))
    return strategies, sorted(left_out, key=lambda run: position[run.name])


def baseline(strategies: Iterable[Strategy]) -> Strategy | None:
    """The strategy that others are compared with: "none" where it ran, else the first that did."""
    ran = [strategy for strategy in strategies if strategy.runs]
    return next((strategy for strategy in ran if strategy.kind == "none"), ran[0] if ran else None)


def kind_of(dropout: Mapping[str, Any]) -> tuple[str, str | None]:
    """Name of a dropout config (inverted, spatial, ...) and the scaling law it follows, None where unknown."""
    target = str(dropout.get("_target_", "")).rpartition(".")[2]
    if target == "none" or dropout.get("p") == 0:
        return "none", "none"
    if target != "Dropout":
        return target or "no dropout in the config", None
    scaling = str(dropout.get("scaling", "inverted"))
    mask, noise = dropout.get("mask", "element"), dropout.get("noise", "bernoulli")
    words = [{"channel": "spatial", "element": ""}.get(mask, str(mask)), "" if noise == "bernoulli" else str(noise)]
    words = [word for word in words if word]
    if not words or scaling != "inverted":
        words.append(scaling)
    return " ".join(words), None if mask == "sample" else scaling  # the depth laws are for masks within a sample


def _base_name(config: Mapping[str, Any]) -> str:
    """The name of a run's strategy without its settings: the sweep's arm, else the kind of dropout."""
    return str(config.get("arm") or kind_of(config.get("dropout") or {})[0])


def _irrelevant(config: Mapping[str, Any]) -> list[str]:
    """The keys that don't tell runs of this kind of dropout apart."""
    # "none" accepts a p so that sweeps match, and drops nothing.
    return ["dropout.p", "placement.p"] if kind_of(config.get("dropout") or {})[0] == "none" else []


def _with_settings(base: str, config: Mapping[str, Any], keys: list[str]) -> str:
    """The name of a strategy with those of its settings that differ, as short as they are told apart."""
    leaves = flat(config)
    short = [key.rpartition(".")[2] for key in keys]
    settings = [
        f"{last if short.count(last) == 1 else key}={leaves.get(key)}" for key, last in zip(keys, short, strict=True)
    ]
    return " ".join([base, *settings])


def _newest_of_each_seed(runs: list[Run]) -> tuple[list[Run], list[Run]]:
    """The newest run of each seed, in the order given, and the older ones, marked as duplicates."""
    newest: dict[Any, Run] = {}
    repeated = []
    for run in sorted(runs, key=lambda run: run.ended):
        seed = run.name if run.seed is None else run.seed
        if seed in newest:
            repeated.append((newest[seed], run))
        newest[seed] = run
    older = [
        replace(old, status="duplicate", reason=f"same configuration and seed as {new.name}, which is newer")
        for old, new in repeated
    ]
    return [run for run in runs if run in newest.values()], older


def _changes_over_time(config: Mapping[str, Any]) -> bool:
    """Whether a schedule changes p, as it may within a flush, of which one p is recorded."""
    schedule = config.get("dropout_schedule") or {}
    return bool(schedule) and not str(schedule.get("_target_")).endswith(".constant")


def _why(failures: list[Run]) -> str:
    """The reason why nothing of a strategy counts: that of its first failure, and how many others there are."""
    reasons = list(dict.fromkeys(run.reason for run in failures if run.reason))
    more = f" (and {len(reasons) - 1} other reasons)" if len(reasons) > 1 else ""
    return f"{reasons[0]}{more}" if reasons else "no run of it"


def _strategy(name: str, base: str, config: Mapping[str, Any], runs: list[Run], reason: str | None) -> Strategy:
    """A strategy, its kind, law and p read from the configuration of one of its runs."""
    dropout = config.get("dropout") or {}
    kind, scaling = kind_of(dropout)
    p = 0.0 if kind == "none" else dropout.get("p")
    return Strategy(name, base, kind, scaling, float(p) if isinstance(p, int | float) else None, runs, reason)
