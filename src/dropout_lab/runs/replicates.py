"""Replicates: the runs of one configuration that a row of the table averages over, as seeds, folds or splits are."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from dropout_lab.jobs.overrides import flat

NOUNS = {"seed": "seed", "data.fold": "fold", "data.split": "split", "data.split_seed": "split"}


class Replicate(NamedTuple):
    """What tells a run from the others of its row.

    Attributes:
        part: of the data that it is trained and tested on, as key and value: its fold, its split.
        rest: its seed, and what else was listed.
    """

    part: tuple[tuple[str, Any], ...]
    rest: tuple[tuple[str, Any], ...]

    def __str__(self) -> str:
        """Names of keys as people say them: ``fold 2, seed 0``."""
        return ", ".join(f"{NOUNS.get(key, key)} {value}" for key, value in (*self.part, *self.rest))


def replicate_words(config: Mapping[str, Any], seed: int, given: Iterable[str]) -> str:
    """The words that tell a job from the others of its row: its seed, and those about what is listed besides."""
    own = keys(config)
    return " ".join(
        [f"seed={seed}", *(word.lstrip("+") for word in given if _key(word) in own and _key(word) != "seed")]
    )


def keys(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The keys of a configuration that tell replicates apart: the seed, and what it lists."""
    return tuple(dict.fromkeys(("seed", *(config.get("replicates") or ()))))


def replicate(config: Mapping[str, Any]) -> Replicate:
    """The replicate that a run with this configuration is; a key that its data set has not counts for nothing."""
    found = values(config).items()
    return Replicate(
        tuple(pair for pair in found if pair[0].startswith("data.")),
        tuple(pair for pair in found if not pair[0].startswith("data.")),
    )


def values(config: Mapping[str, Any]) -> dict[str, Any]:
    """What the keys that tell replicates apart are in a configuration."""
    leaves = flat(config)
    return {key: leaves[key] for key in keys(config) if key in leaves}


@dataclass(frozen=True)
class Units:
    """What the interval of a row is over: independent of each other, as far as that can be had.

    Seeds on the same part of the data are averaged first where there are several parts: they share its luck.

    Attributes:
        runs: the positions of the runs of each unit.
        overlap: test samples for each training sample, by which the variance of folds is corrected, as they share
            training samples (Nadeau and Bengio 2003); 0: nothing is corrected.
        noun: what a unit is: seed, fold, split.
        each: what is to be said of a unit besides; "": nothing.
    """

    runs: tuple[tuple[int, ...], ...]
    overlap: float = 0.0
    noun: str = "seed"
    each: str = ""

    def means(self, values: Any) -> np.ndarray[Any, Any]:
        """The means of units from the values of runs, along the last axis; NaN where no run of a unit has a value."""
        of_runs: np.ndarray[Any, Any] = np.asarray(values, dtype=float)
        if not self.runs:
            return of_runs
        known = np.isfinite(of_runs)
        sums = np.stack([np.where(known, of_runs, 0.0)[..., [*unit]].sum(-1) for unit in self.runs], -1)
        counts = np.stack([known[..., [*unit]].sum(-1) for unit in self.runs], -1)
        means: np.ndarray[Any, Any] = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
        return means


def units(configs: Sequence[Mapping[str, Any]]) -> Units:
    """The units of the runs of a row, from their configurations."""
    replicates = [replicate(config) for config in configs]
    parts = list(dict.fromkeys(one.part for one in replicates))
    if len(parts) < 2:
        return Units(tuple((position,) for position in range(len(configs))), each=_each_split(configs))
    runs = tuple(tuple(n for n, one in enumerate(replicates) if one.part == part) for part in parts)
    varied = [key for key, _ in parts[0] if len({repr(dict(part).get(key)) for part in parts}) > 1]
    folds = configs[0]["data"].get("folds")
    overlap = 1 / (folds - 1) if folds and "data.fold" in varied else 0.0
    each = ["each the mean of its seeds"] if max(map(len, runs)) > 1 else []
    each += ["wider as they share training samples (Nadeau and Bengio 2003)"] if overlap else []
    return Units(runs, overlap, " and ".join(dict.fromkeys(NOUNS.get(key, key) for key in varied)), ", ".join(each))


def _each_split(configs: Sequence[Mapping[str, Any]]) -> str:
    """What is to be said of seeds where the split of the data moves with them."""
    splits = {repr((config.get("data") or {}).get("split_seed")) for config in configs}
    return "each with a split of its own" if len(splits) == len(configs) > 1 else ""


def _key(word: str) -> str:
    """The key that a word is about."""
    return word.partition("=")[0].lstrip("+")
