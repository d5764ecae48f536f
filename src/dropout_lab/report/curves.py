"""Read a run's metrics.csv and activations.csv into frames of one row per step; built for hundreds of runs."""

from pathlib import Path

import numpy as np
import pandas as pd

LAYER_KEYS = ("activation_", "dropout_gain_")  # the layers' columns of metrics.csv: activations.csv says more
STATS = ("mean", "std", "zeros", "gain", "ratio", "shift")
KEPT_STEPS = 60  # flushes kept per run and mode: more than a picture can show


def read_metrics(path: Path) -> pd.DataFrame:
    """Read the scalar metrics of a wide ``epoch,step,<key>...`` file: index step, columns epoch and the keys.

    A row logged again after a resume replaces the first; a line cut off by a kill keeps what is left of it.

    Raises:
        ValueError: not such a file.
    """
    table = pd.read_csv(path, usecols=lambda key: not key.startswith(LAYER_KEYS), on_bad_lines="skip", low_memory=False)
    if "step" not in table:
        raise ValueError("it has no column 'step'")
    table = table.apply(pd.to_numeric, errors="coerce").dropna(subset=["step"])
    return table.groupby("step").last()  # per column: the last value that is there


def read_activations(path: Path) -> dict[str, pd.DataFrame]:
    """Read a long ``step,epoch,mode,layer,stat,value`` file: mode -> index step, columns (stat, layer).

    At most ``KEPT_STEPS`` evenly spaced steps are kept per mode, the first and the last among them.

    Raises:
        ValueError: not such a file.
    """
    names = dict.fromkeys(("mode", "layer", "stat"), "category")
    table = pd.read_csv(path, usecols=["step", "value", *names], dtype=names, on_bad_lines="skip", low_memory=False)
    table = table.dropna(subset=["step", *names])
    table["value"] = pd.to_numeric(table["value"], errors="coerce")
    return {mode: _wide(table[table["mode"] == mode]) for mode in table["mode"].cat.categories}


def _wide(table: pd.DataFrame) -> pd.DataFrame:
    stats, layers = table["stat"].cat, table["layer"].cat
    table = table[stats.codes.isin([stats.categories.get_loc(stat) for stat in STATS if stat in stats.categories])]
    steps, row = np.unique(pd.to_numeric(table["step"]).to_numpy(), return_inverse=True)
    column = table["stat"].cat.codes.to_numpy(np.int64) * len(layers.categories) + table["layer"].cat.codes.to_numpy()
    used, column = np.unique(column, return_inverse=True)
    dense = np.full((len(steps), len(used)), np.nan)
    dense[row, column] = table["value"].to_numpy()  # a repeated row, after a resume, replaces the first
    kept = np.unique(np.linspace(0, len(steps) - 1, min(KEPT_STEPS, len(steps))).round().astype(int))
    keys = [
        (stats.categories[n // len(layers.categories)], layers.categories[n % len(layers.categories)]) for n in used
    ]
    return pd.DataFrame(dense[kept], index=pd.Index(steps[kept], name="step"), columns=pd.MultiIndex.from_tuples(keys))
