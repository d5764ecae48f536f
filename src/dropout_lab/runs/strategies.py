"""Strategies: runs that differ in nothing but the replicate, as rows of the table and lines of the pictures."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

from dropout_lab.jobs.overrides import flat
from dropout_lab.runs.read import Run
from dropout_lab.runs.replicates import Units, units
from dropout_lab.runs.settings import NOT_OF_THE_STRATEGY, differing_keys, ignored_by_none, of_the_strategy

LONGEST = 300  # characters of a name: beyond any label with what else tells runs apart


@dataclass(frozen=True)
class Strategy:
    """A strategy: the runs of one configuration, over its replicates.

    Attributes:
        name: the label of its runs, and the options or settings that tell it from others of that label.
        base: the name without what it says of ``dropout.p``: strategies of one base are a line over p.
        kind: inverted, classic, spatial, unscaled, gaussian, none, or another strategy's class.
        scaling: the law it follows, one of theory.SCALINGS of the report; None where that is not known.
        p: the drop probability; None where the config does not say.
        runs: the runs that count.
        reason: why there is nothing to show; None where there is.
        diverged: runs whose loss was NaN or infinite, which do not count.
    """

    name: str
    base: str
    kind: str
    scaling: str | None = None
    p: float | None = None
    runs: list[Run] = field(default_factory=list)
    reason: str | None = None
    diverged: list[Run] = field(default_factory=list)

    @property
    def config(self) -> Mapping[str, Any]:
        """The configuration that all runs of the strategy share, apart from the replicate."""
        return self.runs[0].config if self.runs else {}

    def remarks(self, key: str) -> list[str]:
        """What its runs recorded of noise in their network under ``more``, ``off``, ``on`` or ``elsewhere``."""
        noise = self.config.get("noise")
        found = noise.get(key) if isinstance(noise, Mapping) else None
        return [str(each) for each in found] if isinstance(found, list) else []

    @cached_property
    def units(self) -> Units:
        """What an interval of the strategy is over, of its runs."""
        return units([run.config for run in self.runs])

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


class _Part(NamedTuple):
    """Runs that belong into one row, with its name and the name's ``base``."""

    name: str
    base: str
    runs: list[Run]


def group(runs: Iterable[Run], skipped: Mapping[str, str]) -> tuple[list[Strategy], list[Run]]:
    """Group runs into strategies, in the order of their first run; and the runs that are not counted.

    Of two runs with the same configuration and replicate the newer one counts: a seed seen twice is not two samples.
    """
    runs = list(runs)
    labelled: dict[str, list[Run]] = {}
    for run in runs:
        if run.config:
            labelled.setdefault(_label(run.config), []).append(run)
    parts = [part for label, members in labelled.items() for part in _told_apart(label, members)]
    strategies: list[Strategy] = []
    left_out = [run for run in runs if not run.config]
    for part in _named(_joined(parts)):
        counted, repeated = _newest_of_each([run for run in part.runs if run.counted])
        failures = [run for run in part.runs if not run.counted]
        left_out += repeated + failures
        found = _strategy(part, counted, None if counted else _why(failures))
        again = {run.replicate for run in counted}
        lost = [run for run in failures if run.status == "diverged" and run.replicate not in again]
        strategies.append(replace(found, diverged=lost))
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


def arm_of(config: Mapping[str, Any]) -> str:
    """What an experiment calls a run: the sweep's arm, else the option of dropout; of older runs, the kind."""
    return str(config.get("arm") or _choices(config).get("dropout") or kind_of(config.get("dropout") or {})[0])


def _label(config: Mapping[str, Any]) -> str:
    """What a run was called when it started, without the seed; runs of before labels were saved have their arm."""
    return str((config.get("run") or {}).get("label") or arm_of(config))


def _choices(config: Mapping[str, Any]) -> Mapping[str, str]:
    """Group -> the option that was chosen; empty for runs of before this was saved."""
    return (config.get("run") or {}).get("choices") or {}


def _told_apart(label: str, members: list[Run]) -> list[_Part]:
    """The runs of one label, those of each configuration apart: named by the options or settings that differ."""
    configs = [run.config for run in members]
    keys = differing_keys(configs, _irrelevant(configs))
    leaves = [flat(config) for config in configs]
    brought = _brought(keys, configs, leaves)
    short = Counter(key.rpartition(".")[2] for key in keys if key not in brought)
    base = " ".join(word for word in label.split(" ") if word.partition("=")[0] != "dropout.p")
    parts: dict[str, _Part] = {}
    for run, values in zip(members, leaves, strict=True):
        said = {}
        for key in keys:
            if option_of := brought.get(key):
                said[option_of] = f"{option_of}={_choices(run.config).get(option_of, 'null')}"
            else:
                last = key.rpartition(".")[2]
                said[key] = f"{last if short[last] == 1 else key}={values.get(key)}"
        name = " ".join([label, *said.values()])
        without_p = [text for key, text in said.items() if key != "dropout.p"]
        parts.setdefault(name, _Part(name, " ".join([base, *without_p]), [])).runs.append(run)
    return list(parts.values())


def _brought(keys: list[str], configs: list[Mapping[str, Any]], leaves: list[dict[str, Any]]) -> dict[str, str]:
    """Key -> the group whose option brings its values, where runs with the same option have the same value."""
    choices = [_choices(config) for config in configs]
    if not all(choices):
        return {}
    groups = dict.fromkeys(group for chosen in choices for group in chosen if group not in NOT_OF_THE_STRATEGY)
    # Groups that are no section of the configuration, such as experiment, may bring keys of any section.
    general = [group for group in groups if group.partition("/")[0] not in configs[0]]
    brought = {}
    for key in keys:
        for group in [*(group for group in groups if key.startswith(f"{group.replace('/', '.')}.")), *general]:
            options = [chosen.get(group) for chosen in choices]
            pairs = {(option, repr(values.get(key))) for option, values in zip(options, leaves, strict=True)}
            if len(pairs) == len(set(options)):
                brought[key] = group
                break
    return brought


def _joined(parts: Iterable[_Part]) -> list[_Part]:
    """The parts, those of one configuration as one: two commands may have used other words for the same.

    Arms of one configuration stay two: an experiment may compare them.
    """
    joined: list[_Part] = []
    alike: dict[tuple[Any, str], list[_Part]] = {}  # but for seeds, which only all runs together tell to be the run's
    for part in parts:
        config = part.runs[0].config
        rest = {key: value for key, value in of_the_strategy(config).items() if key.rpartition(".")[2] != "seed"}
        candidates = alike.setdefault((config.get("arm"), repr(sorted(rest.items()))), [])
        for other in candidates:
            if not differing_keys([run.config for run in (*other.runs, *part.runs)]):
                other.runs.extend(part.runs)
                break
        else:
            candidates.append(part)
            joined.append(part)
    return joined


def _named(parts: list[_Part]) -> list[_Part]:
    """The parts, names cut that no table has room for, and that another can't be taken for."""
    return [
        part if len(part.name) <= LONGEST else part._replace(name=f"{part.name[:LONGEST]}… ({number})")
        for number, part in enumerate(parts, 1)
    ]


def _irrelevant(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys that don't tell runs of these configurations apart."""
    kinds = {kind_of(config.get("dropout") or {})[0] for config in configs}
    return ignored_by_none(configs[0]) if kinds == {"none"} else []


def _newest_of_each(runs: list[Run]) -> tuple[list[Run], list[Run]]:
    """The newest run of each replicate, in the order given, and the older ones, marked as duplicates."""
    newest: dict[Any, Run] = {}
    repeated = []
    for run in sorted(runs, key=lambda run: run.ended):
        which = run.name if run.seed is None else run.replicate
        if which in newest:
            repeated.append((newest[which], run))
        newest[which] = run
    older = [
        replace(old, status="duplicate", reason=f"same configuration and seed as {new.name}, which is newer")
        for old, new in repeated
    ]
    return [run for run in runs if run in newest.values()], older


def _changes_over_time(config: Mapping[str, Any]) -> bool:
    """Whether a schedule changes p, as it may within a flush, of which one p is recorded."""
    parts = [config, *(config.get("more_dropout") or {}).values()]
    found = [part["dropout_schedule"] for part in parts if part.get("dropout_schedule")]
    return any(not str(schedule.get("_target_")).endswith(".constant") for schedule in found)


def _why(failures: list[Run]) -> str:
    """The reason why nothing of a strategy counts: that of its first failure, and how many others there are."""
    first, *others = dict.fromkeys(run.reason for run in failures if run.reason) or ["no run of it"]
    return f"{first} (and {len(others)} other reasons)" if others else str(first)


def _strategy(part: _Part, runs: list[Run], reason: str | None) -> Strategy:
    """A strategy, its kind, law and p read from the configuration of one of its runs."""
    config = part.runs[0].config
    kind, scaling = kind_of(dropout := config.get("dropout") or {})
    law = None if config.get("more_dropout") else scaling  # laws are of one strategy in all places
    p = 0.0 if kind == "none" else dropout.get("p")
    return Strategy(part.name, part.base, kind, law, float(p) if isinstance(p, int | float) else None, runs, reason)
