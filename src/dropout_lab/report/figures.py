"""Figures for a paper: the report's pictures as one PDF and one PNG each, with the colours and dashes of the page."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from dropout_lab.cli import interruptible
from dropout_lab.report.series import series
from dropout_lab.report.styles import styles
from dropout_lab.report.table import Row
from dropout_lab.runs.atomic import replacing

COLORS = {  # of page.css
    "blue": "#0068a8",
    "orange": "#cc7f00",
    "green": "#00956c",
    "vermillion": "#c24f00",
    "purple": "#c4598f",
    "sky": "#2d98e0",
    "yellow": "#554a00",
    "ink": "#33363b",
}
DASHES: tuple[Any, ...] = ("-", (0, (4, 2)), (0, (1, 1.5)), (0, (4, 1.5, 1, 1.5)), (0, (6, 2)), (0, (6, 1.5, 1, 1.5)))
MARKS = "osD^vP"
STYLE: Any = {
    "font.size": 8,
    "axes.titlesize": 8,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.5,
    "pdf.fonttype": 42,  # text stays text, as journals ask
    "savefig.dpi": 300,
}
COLUMN, PAGE = 3.4, 7.0  # widths in inches: one column of a paper, both

Drawn = Mapping[str, Any]  # one strategy: what series() and styles() say of it


def write_figures(folder: Path, figures: Mapping[str, Figure]) -> list[Path]:
    """Write figures as ``score.pdf``, ``score.png``, ... into a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    with mpl.rc_context(STYLE):
        for name, figure in figures.items():
            for ending, metadata in (("pdf", {"CreationDate": None}), ("png", {})):
                paths.append(folder / f"{name}.{ending}")
                with interruptible(), replacing(paths[-1]) as file:
                    figure.savefig(file, format=ending, metadata=metadata)
                figure.set_layout_engine("none")  # it is laid out now
    return paths


def figures(table: Sequence[Row]) -> dict[str, Figure]:
    """Name of each figure -> the figure; those without data are left out."""
    data = series([row.strategy for row in table])
    style_of = styles(table)
    shown = [strategy | style_of[strategy["name"]] for strategy in data["strategies"]]
    draw: dict[str, Callable[[], Figure | None]] = {}
    for number, column in enumerate(data["columns"]):
        name = f"_{column['key'].replace('/', '_')}" if number else ""
        draw[f"score{name}"] = partial(_score, shown, column)
        draw[f"rates{name}"] = partial(_rates, shown, column)
    draw |= {
        "curves": lambda: _curves(shown, data["curveTitles"]),
        "activations": lambda: _activations(shown, data["layers"]),
        "gain": lambda: _gain(shown),
        "ratio": lambda: _ratio(shown),
    }
    with mpl.rc_context(STYLE):
        drawn = {name: make() for name, make in draw.items()}
    return {name: figure for name, figure in drawn.items() if figure is not None}


def _score(shown: Sequence[Drawn], column: Drawn) -> Figure | None:
    """One number of the test part: means with 95 % intervals, single runs below; the first strategy on top."""
    rows = [(one, score) for one in shown if (score := one["scores"][column["key"]])["mean"] is not None]
    if not rows:
        return None
    figure, (axes,) = _panels(1, COLUMN, 0.5 + 0.26 * len(rows))
    for place, (one, score) in enumerate(rows):
        runs = _numbers(score["values"])
        axes.plot(runs, np.full(len(runs), place + 0.25), "|", color=_color(one), alpha=0.6, label="runs")
        half = score["half"]
        axes.errorbar(score["mean"], place, xerr=half, fmt="o", color=_color(one), capsize=2, label=one["name"])
    axes.set_yticks(range(len(rows)), [one["name"] for one, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(column["axis"])
    return figure


def _rates(shown: Sequence[Drawn], column: Drawn) -> Figure | None:
    """One number of the test part by p, a line for each base whose p was swept."""
    bases: dict[str, list[Drawn]] = {}
    for one in shown:
        if one["p"] is not None and one["scores"][column["key"]]["mean"] is not None:
            bases.setdefault(one["base"], []).append(one)
    swept = {base: sorted(each, key=lambda one: one["p"]) for base, each in bases.items() if len(each) > 1}
    if not swept:
        return None
    figure, (axes,) = _panels(1, COLUMN, 2.4)
    for base, each in swept.items():
        mean, half = (_numbers([one["scores"][column["key"]][key] for one in each]) for key in ("mean", "half"))
        line = {"color": _color(each[0]), "linestyle": _dash(each[0]), "marker": "o", "capsize": 2, "label": base}
        axes.errorbar([one["p"] for one in each], mean, yerr=np.nan_to_num(half), **line)
    axes.set(xlabel="drop probability p", ylabel=column["axis"])
    axes.legend(frameon=False)
    return figure


def _curves(shown: Sequence[Drawn], titles: Mapping[str, str]) -> Figure | None:
    """What is measured over training, bands are 95 % intervals."""
    keys = [key for key in titles if any(key in one["curves"] for one in shown)]
    if not keys:
        return None
    figure, panels = _panels(len(keys), PAGE, 2.0, columns=2)
    for key, axes in zip(keys, panels, strict=True):
        for one in (one for one in shown if key in one["curves"]):
            step, mean, half = (_numbers(one["curves"][key][part]) for part in ("step", "mean", "half"))
            axes.plot(step, mean, color=_color(one), linestyle=_dash(one), label=one["name"])
            axes.fill_between(step, mean - half, mean + half, color=_color(one), alpha=0.15, linewidth=0)
        axes.set(xlabel="step", title=titles[key])
    return _legend(figure, shown)


def _activations(shown: Sequence[Drawn], layers: Sequence[str]) -> Figure | None:
    """The mean of every monitored tensor at the end of training, a panel for each strategy."""
    with_means = [one for one in shown if any("mean" in mode["values"] for mode in one["activations"].values())]
    if not with_means:
        return None
    figure, panels = _panels(len(with_means), PAGE, 1.7, columns=min(3, len(with_means)), share=True)
    for one, axes in zip(with_means, panels, strict=True):
        for mode in ("train", "eval"):
            values = one["activations"].get(mode, {"values": {}})["values"].get("mean", {})
            last = [_last(values.get(number, [])) for number in range(len(layers))]
            line: dict[str, Any] = {"color": _color(one), "label": mode}
            line |= {"marker": "o"} if mode == "train" else {"linestyle": (0, (2, 1)), "marker": "s", "mfc": "white"}
            axes.plot(range(len(layers)), last, **line)
        axes.set_title(one["name"])
        shown_layers = range(0, len(layers), max(1, len(layers) // 14))
        axes.set_xticks(shown_layers, [layers[number] for number in shown_layers], rotation=90, fontsize=5)
    panels[0].legend(frameon=False)
    figure.supylabel("mean activation at the end of training", fontsize=8)
    return figure


def _gain(shown: Sequence[Drawn]) -> Figure | None:
    """Mean out / mean in of each dropout layer, by depth, with its law in grey."""
    if not any(one["depth"]["gain"][mode] for one in shown for mode in ("train", "eval")):
        return None
    figure, panels = _panels(2, PAGE, 2.2, columns=2, share=True)
    for mode, axes in zip(("train", "eval"), panels, strict=True):
        for number, one in enumerate(shown):
            expected = one["depth"]["expected"]["gain"]
            _law(axes, expected and expected[mode])
            _by_depth(axes, one, one["depth"]["gain"][mode].get("last"), number, len(shown))
        axes.set(xlabel="dropout layer", title=f"gain in {mode}")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[0].set_ylabel("mean out / mean in")
    return _legend(figure, shown)


def _ratio(shown: Sequence[Drawn]) -> Figure | None:
    """Mean in train / mean in eval at each dropout layer's output, first and last measured, with theory in grey."""
    moments = [when for when in ("first", "last") if any(one["depth"]["ratio"].get(when) for one in shown)]
    if not moments:
        return None
    figure, panels = _panels(len(moments), PAGE, 2.2, columns=len(moments), share=True)
    for when, axes in zip(moments, panels, strict=True):
        for number, one in enumerate(shown):
            _law(axes, one["depth"]["expected"]["ratio"])
            _by_depth(axes, one, one["depth"]["ratio"].get(when), number, len(shown))
        step = next(one["depth"]["ratio"][when]["step"] for one in shown if one["depth"]["ratio"].get(when))
        axes.set(xlabel="dropout layer", title=f"at step {step}")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[0].set_ylabel("mean in train / in eval")
    return _legend(figure, shown)


def _law(axes: Axes, values: Sequence[float | None] | None) -> None:
    """A law by depth, broad and grey behind what was measured."""
    if values:
        axes.plot(range(1, len(values) + 1), _numbers(values), color="0.8", linewidth=4, zorder=0, label="theory")


def _by_depth(axes: Axes, one: Drawn, found: Drawn | None, number: int, count: int) -> None:
    """One strategy's values at layers 1, 2, ..., moved aside so that equal ones don't hide each other."""
    if not found:
        return
    mean, half = _numbers(found["mean"]), np.nan_to_num(_numbers(found["half"]))
    aside = 0.3 * ((number + 0.5) / count - 0.5)
    style = {"color": _color(one), "linestyle": _dash(one), "marker": MARKS[one["dash"] % len(MARKS)]}
    axes.errorbar(np.arange(1, len(mean) + 1) + aside, mean, yerr=half, capsize=1.5, label=one["name"], **style)


def _panels(
    count: int, width: float, height: float, columns: int = 1, share: bool = False
) -> tuple[Figure, list[Axes]]:
    """A figure of so many panels in rows; ``height`` is one row's."""
    rows = -(-count // columns)
    figure = Figure(figsize=(width, rows * height), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=share, sharey=share)
    for axes in grid.flat[count:]:
        axes.remove()
    return figure, list(grid.flat[:count])


def _legend(figure: Figure, shown: Sequence[Drawn]) -> Figure:
    """One legend for all panels, below them."""
    lines = [Line2D([], [], color=_color(one), linestyle=_dash(one), label=one["name"]) for one in shown]
    if any(line.get_label() == "theory" for axes in figure.axes for line in axes.lines):
        lines.append(Line2D([], [], color="0.8", linewidth=4, label="theory"))
    figure.legend(handles=lines, loc="outside lower center", ncols=min(4, len(lines)), frameon=False)
    return figure


def _color(one: Drawn) -> str:
    """The colour of a strategy."""
    return COLORS[one["color"]]


def _dash(one: Drawn) -> Any:
    """The dash of a strategy's lines."""
    return DASHES[one["dash"] % len(DASHES)]


def _numbers(values: Sequence[float | None]) -> np.ndarray:
    """The page's numbers as an array, NaN where there is none."""
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def _last(values: Sequence[float | None]) -> float:
    """The last of the page's numbers that is one."""
    return next((value for value in reversed(values) if value is not None), float("nan"))
