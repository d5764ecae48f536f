"""Series of numbers behind the page's pictures: means over replicates, thinned to what a picture can show."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from dropout_lab.modules.columns import Column, declared
from dropout_lab.report.theory import expected_gain, expected_ratio
from dropout_lab.runs.layer_order import in_depth_order
from dropout_lab.runs.replicates import units
from dropout_lab.runs.strategies import Strategy
from dropout_lab.runs.tracks import Tracks, mean_over_runs, thinned
from dropout_lab.verdict.statistics import interval, over_last_axis

CURVE_POINTS = 150
NUMBERS = 1_000_000  # of layer statistics on one page: about 6 MB
FEWEST_STEPS = 8

Numbers = list[float | None]


def series(strategies: Sequence[Strategy]) -> dict[str, Any]:
    """Everything that the page's pictures draw, as plain lists; an entry for each strategy that ran, in their order."""
    shown = [strategy for strategy in strategies if strategy.runs]
    columns = declared(run.config for strategy in shown for run in strategy.runs)
    tested = [column for column in columns if column.tested]
    curves = _titles(columns)
    layers = in_depth_order({layer for strategy in shown for run in strategy.runs for layer in run.layers})
    dropouts = in_depth_order({layer for strategy in shown for layer in strategy.dropout_layers})
    lines = sum(len(_drawn(tracks)) for strategy in shown for tracks in strategy.runs[0].tracks.values())
    steps = max(FEWEST_STEPS, NUMBERS // max(lines, 1))
    scores = {strategy.name: {column.key: _score(strategy, column) for column in tested} for strategy in shown}
    measured = [column for column in tested if any(each[column.key]["mean"] is not None for each in scores.values())]
    return {
        "columns": [_axis(column) for column in measured or tested[:1]],
        "curveTitles": {metric: title for metric, (title, _) in curves.items()},
        "layers": layers,
        "dropouts": dropouts,
        "strategies": [
            {
                "name": strategy.name,
                "p": strategy.p,
                "scores": scores[strategy.name],
                "curves": _curves(strategy, curves),
                "depth": _depth(strategy),
                "activations": _activations(strategy, layers, steps),
            }
            for strategy in shown
        ],
    }


def plain(values: Any, digits: int = 4) -> Numbers:
    """Numbers as a list for JSON, with so many significant digits; None for what is not a number."""
    return [float(f"{value:.{digits}g}") if np.isfinite(value) else None for value in np.asarray(values, dtype=float)]


def _titles(columns: Sequence[Column]) -> dict[str, tuple[str, int]]:
    """Metrics of which the page has curves: metric -> what its axis says, and by what its numbers are multiplied."""
    titles = {}
    for column in columns:
        for metric, title in column.curves.items():
            with_unit = column.unit and metric != "train/loss"  # whatever a loss is in
            titles[metric] = (f"{title}, {column.unit}", column.factor) if with_unit else (title, 1)
    return titles


def _axis(column: Column) -> dict[str, Any]:
    """What a picture of a number of the test part has to know of it."""
    known = {"key": column.key, "title": column.title, "unit": column.unit, "decimals": column.decimals}
    return known | {"axis": column.named("test")}


def _score(strategy: Strategy, column: Column) -> dict[str, Any]:
    """What is measured of the test part: of each run, and its mean with an interval, in its unit."""
    values = [run.final(column.of("test")) * column.factor for run in strategy.runs]
    over = strategy.units
    summary = interval(over.means(values), over.overlap)
    mean, half, *singles = plain([summary.mean, summary.half, *values], digits=8)  # a table says how many are shown
    return {"mean": mean, "half": half, "runs": [str(run.replicate) for run in strategy.runs], "values": singles}


def _curves(strategy: Strategy, metrics: Mapping[str, tuple[str, int]]) -> dict[str, Any]:
    """Metric -> its mean over replicates with an interval, at a few steps of training."""
    curves, over = {}, strategy.units
    for key, (_, factor) in metrics.items():
        runs = [run.metrics[key].dropna().rename(run.name) for run in strategy.runs if key in run.metrics]
        table = pd.concat(runs, axis=1).sort_index() if runs else pd.DataFrame()
        if table.size:
            table = table.iloc[thinned(len(table), CURVE_POINTS)].reindex(columns=[run.name for run in strategy.runs])
            mean, half = over_last_axis(over.means(table.to_numpy(dtype=float) * factor), over.overlap)
            curves[key] = {"step": plain(table.index), "mean": plain(mean), "half": plain(half)}
    return curves


def _depth(strategy: Strategy) -> dict[str, Any]:
    """Gain and ratio at each dropout layer, first to last, at the first and at the last logged step."""
    layers, qs = strategy.dropout_layers, strategy.keeps()
    expected: dict[str, Any] = {"gain": None, "ratio": None}
    if qs and strategy.scaling:
        law = strategy.scaling
        expected["gain"] = {mode: plain([expected_gain(law, q, mode) for q in qs]) for mode in ("train", "eval")}
        expected["ratio"] = plain([expected_ratio(law, qs[:depth]) for depth in range(1, len(qs) + 1)])
    return {
        "layers": layers,
        "law": strategy.scaling if qs else None,
        "q": qs[-1] if qs else None,
        "sameRate": len(set(qs or [])) == 1,
        "expected": expected,
        "gain": {mode: _first_and_last(strategy, mode, "gain", layers) for mode in ("train", "eval")},
        "ratio": _first_and_last(strategy, "probe", "ratio", layers),
    }


def _first_and_last(strategy: Strategy, mode: str, stat: str, layers: list[str]) -> dict[str, Any]:
    """A statistic at each layer, mean and interval over replicates, where it was logged first and last."""
    runs = [run for run in strategy.runs if mode in run.tracks]
    over = units([run.config for run in runs])
    ends: dict[str, Any] = {}
    for name, row in (("first", 0), ("last", -1)):
        values = np.array([[_end(run.tracks[mode].logged(stat, layer), row) for run in runs] for layer in layers])
        if np.isfinite(values).any():
            mean, half = over_last_axis(over.means(values), over.overlap)
            ends[name] = {"step": int(runs[0].tracks[mode].steps[row]), "mean": plain(mean), "half": plain(half)}
    return ends


def _end(logged: np.ndarray, row: int) -> float:
    """The first or last of the values that were logged; NaN where there are none."""
    return float(logged[row]) if len(logged) else float("nan")


def _activations(strategy: Strategy, layers: list[str], steps: int) -> dict[str, Any]:
    """Mode -> steps and, per statistic, layer number -> mean over runs at each step."""
    position = {layer: n for n, layer in enumerate(layers)}
    modes: dict[str, Any] = {}
    for mode in ("train", "eval", "probe"):
        runs = [run.tracks[mode] for run in strategy.runs if mode in run.tracks]
        if not runs:
            continue
        mean = mean_over_runs(runs)
        kept = thinned(len(mean.steps), steps)
        values: dict[str, dict[int, Numbers]] = {}
        for (stat, layer), column in _drawn(mean).items():
            values.setdefault(stat, {})[position[layer]] = plain(mean.values[kept, column])
        modes[mode] = {"step": [int(step) for step in mean.steps[kept]], "values": values}
    return modes


def _drawn(tracks: Tracks) -> dict[tuple[str, str], int]:
    """The columns of tracks that pictures draw: all but rates that stay, which are known without a picture."""
    return {
        (stat, layer): column
        for (stat, layer), column in tracks.columns.items()
        if stat != "p" or len(np.unique(tracks.logged(stat, layer))) > 1
    }
