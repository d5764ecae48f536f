"""The tables of a run, metrics.csv and activations.csv, read into frames and arrays; built for hundreds of runs."""

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from dropout_lab.cli import plain
from dropout_lab.runs.folder import ACTIVATIONS, METRICS

LAYER_KEYS = ("activation_", "dropout_gain_")  # the layers' columns of metrics.csv: activations.csv says more
STATS = ("mean", "std", "zeros", "gain", "ratio", "shift", "variance_ratio", "p")
LOGGED = re.compile(  # of the keys of metrics.csv, whose numbers activations.csv has, too
    r"(?:activation|dropout)_(mean|std|zeros|gain|ratio|shift|variance_ratio)(?:_(train|eval))?/(.+)"
)
KEPT_STEPS = 60  # flushes kept per run and mode: more than a picture can show


@dataclass(frozen=True, eq=False)
class Tracks:
    """Tracks of a run in one mode: the statistics of its layers over training.

    Attributes:
        steps: shape (S,), rising.
        columns: (stat, layer) -> column of ``values``.
        values: shape (S, columns), NaN where nothing was logged.
    """

    steps: np.ndarray
    columns: Mapping[tuple[str, str], int]
    values: np.ndarray

    def logged(self, stat: str, layer: str) -> np.ndarray:
        """The values that were logged of one statistic of a layer, in order."""
        column = self.columns.get((stat, layer))
        values = self.values[:, column] if column is not None else np.empty(0)
        return values[np.isfinite(values)]


def thinned(length: int, kept: int) -> np.ndarray:
    """Positions of at most ``kept`` evenly spaced items, the first and the last among them."""
    return np.unique(np.linspace(0, length - 1, min(kept, length)).round().astype(int))


def logged_keys(folder: Path) -> list[str]:
    """The columns of a run's ``metrics.csv``, which has to be there; those of the layers are among them."""
    with (folder / METRICS).open(newline="") as file:
        return next(csv.reader(file), [])


def read_metrics(folder: Path) -> pd.DataFrame:
    """Read a run's scalar metrics from a wide ``epoch,step,<key>...`` file: index step, columns epoch and the keys.

    A row logged again after a resume replaces the first; a line cut off by a kill keeps what is left of it.

    Raises:
        OSError, ValueError: the file is not there, or not such a file.
    """
    table = pd.read_csv(
        folder / METRICS, usecols=lambda key: not key.startswith(LAYER_KEYS), on_bad_lines="skip", low_memory=False
    )
    if "step" not in table:
        raise ValueError("it has no column 'step'")
    table = table.apply(pd.to_numeric, errors="coerce").dropna(subset=["step"])
    return table.groupby("step").last()  # per column: the last value that is there


def read_activations(folder: Path) -> pd.DataFrame:
    """Read a run's statistics of layers as they were logged: columns step, epoch, mode, layer, stat, value.

    A row logged again after a resume replaces the first.

    Raises:
        OSError, ValueError: the file is not there, or not such a file.
    """
    table = _long(folder / ACTIVATIONS, "epoch").drop_duplicates(["step", "mode", "layer", "stat"], keep="last")
    plain = {"step": int, "epoch": int, "mode": str, "layer": str, "stat": str}
    return table.astype(plain).reset_index(drop=True)


def read_tracks(folder: Path) -> dict[str, Tracks]:
    """Read a run's statistics of layers into arrays: mode (train, eval, probe) -> its tracks.

    At most ``KEPT_STEPS`` evenly spaced steps are kept per mode, the first and the last among them.

    Raises:
        OSError, ValueError: the file is not there, or not such a file.
    """
    table = _long(folder / ACTIVATIONS)
    codes = table["mode"].cat.codes.to_numpy()
    return {mode: _tracks(table[codes == n]) for n, mode in enumerate(table["mode"].cat.categories)}


def read_numbers(path: Path, keys: Sequence[str]) -> "pd.Series[float]":
    """Read either table of a run with one number a row, as they were logged; empty where the run has none.

    Args:
        path: of the file.
        keys: columns that tell the numbers apart, ``step`` and ``epoch`` first.

    Raises:
        OSError, ValueError: it is no such table.
    """
    if not path.is_file() or not path.stat().st_size:
        return pd.Series(dtype=float, index=pd.MultiIndex.from_tuples([], names=keys))
    table = pd.read_csv(path)
    if missing := [key for key in ("step", "epoch") if key not in table]:
        raise ValueError(f"it has no column {missing[0]!r}")
    if "value" not in table:
        table = table.melt(["epoch", "step"], var_name="key")
    if missing := [key for key in keys if key not in table]:
        raise ValueError(f"it has no column {missing[0]!r}")
    table = table.dropna(subset="value")
    numbers = table[["step", "epoch", "value"]].apply(pd.to_numeric)
    if not np.isfinite(numbers["step"].astype(float)).all():
        raise ValueError("a row of it has no step")
    return table.assign(**numbers).drop_duplicates([*keys]).set_index([*keys])["value"]


def mean_over_runs(runs: Sequence[Tracks]) -> Tracks:
    """The mean over runs of each of their tracks, at each step over those that have it."""
    steps = np.unique(np.concatenate([run.steps for run in runs]))
    columns = {key: n for n, key in enumerate(dict.fromkeys(key for run in runs for key in run.columns))}
    total, count = np.zeros((2, len(steps), len(columns)))
    for run in runs:
        place = np.ix_(np.searchsorted(steps, run.steps), np.array([columns[key] for key in run.columns]))
        there = np.isfinite(run.values)
        total[place] += np.where(there, run.values, 0)
        count[place] += there
    return Tracks(steps, columns, np.where(count > 0, total / np.maximum(count, 1), np.nan))


def _long(path: Path, *more: str) -> pd.DataFrame:
    """The whole lines of a long file, its names as categories; ``more`` are columns besides those that tracks need."""
    names = dict.fromkeys(("mode", "layer", "stat"), "category")
    columns = ["step", *more, *names, "value"]
    table = pd.read_csv(path, usecols=columns, dtype=names, on_bad_lines="skip", low_memory=False)
    table = table.dropna(subset=["step", *names])[columns]
    table["value"] = pd.to_numeric(table["value"], errors="coerce")
    _require_whole(table, path.parent / METRICS)
    return table


def _require_whole(table: pd.DataFrame, witness: Path) -> None:
    """Refuse lines that lack some of the last ones that ``metrics.csv`` tells of, which is written after them."""
    if not witness.is_file():
        return
    try:
        header, *lines = csv.reader(witness.read_text(encoding="utf-8").splitlines())
        of_step = header.index("step")
    except (ValueError, csv.Error):  # who reads it says so
        return
    logged = {n: found for n, key in enumerate(header) if (found := LOGGED.fullmatch(key))}
    for line in reversed(lines):
        of_layers = [found for n, found in logged.items() if n < len(line) and line[n]]
        if not of_layers:
            continue
        step = line[of_step]
        there = table[table["step"].astype(str) == step]
        known = {*zip(there["stat"], there["mode"], there["layer"], strict=True)}
        for stat, mode, layer in (found.groups() for found in of_layers):
            if (stat, mode or "probe", layer) not in known:
                raise ValueError(f"it is cut off: {stat} of {layer} at step {step} is missing, which {METRICS} has")
        return


def _tracks(table: pd.DataFrame) -> Tracks:
    """The tracks of one mode from its lines."""
    stats, layers = (plain(list(table[name].cat.categories)) for name in ("stat", "layer"))
    stat = table["stat"].cat.codes.to_numpy(np.int64)
    read = np.isin(stat, [n for n, name in enumerate(stats) if name in STATS])
    steps, row = np.unique(pd.to_numeric(table["step"]).to_numpy()[read], return_inverse=True)
    column = (stat * len(layers) + table["layer"].cat.codes.to_numpy())[read]
    used, column = np.unique(column, return_inverse=True)
    values = np.full((len(steps), len(used)), np.nan)
    values[row, column] = table["value"].to_numpy()[read]  # a repeated row, after a resume, replaces the first
    kept = thinned(len(steps), KEPT_STEPS)
    columns = {(stats[key // len(layers)], layers[key % len(layers)]): n for n, key in enumerate(used)}
    return Tracks(steps[kept], columns, values[kept])
