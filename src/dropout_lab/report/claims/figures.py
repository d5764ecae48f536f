"""Figures of what was claimed: one row for each claim, and the lines and filters that the experiment's file asks for.

Claims are about accuracies, losses and ratios, so each row has its own unit: the difference that its file says would
matter, or the margin within which it calls two things equal.
"""

from pathlib import Path
from textwrap import wrap
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator

from dropout_lab.cli import interruptible
from dropout_lab.report.claims.data import Claimed, Points
from dropout_lab.report.figures import COLORS, COLUMN, MARKS, STYLE
from dropout_lab.runs.atomic import replacing
from dropout_lab.verdict.judge import FAILS, HOLDS, NOT_WHOLE, TOO_FEW, UNMEASURED, Verdict
from dropout_lab.verdict.statement import Plot

# Colour, mark and fill.
MARK_OF = {
    **{HOLDS: ("green", "o", "full"), FAILS: ("vermillion", "X", "full")},
    **dict.fromkeys((TOO_FEW, NOT_WHOLE, UNMEASURED), ("ink", "o", "none")),
}
LINES = ("blue", "orange", "green", "vermillion", "purple")  # "none" is "ink", as elsewhere
LETTERS = 62  # that fit into a line
LINE, LANE, GAP = 0.135, 0.17, 0.14  # heights in inches: of a line of words, of an interval, between two claims


def write(folder: Path, claimed: Claimed) -> list[Path]:
    """Write the figures of claims: claims.png and, where the experiment asks for them, figure.png and filters.png."""
    paths = []
    with mpl.rc_context(STYLE):
        for name, figure in figures(claimed).items():
            paths.append(folder / f"{name}.png")
            with interruptible(), replacing(paths[-1]) as file:
                figure.savefig(file, format="png")
    return paths


def figures(claimed: Claimed) -> dict[str, Figure]:
    """Name of each figure -> the figure."""
    with mpl.rc_context(STYLE):
        drawn = {"claims": _claims(claimed.verdicts)}
        if claimed.plots:
            drawn["figure"] = _plots(claimed.plots)
        if claimed.filters:
            drawn["filters"] = _filters(claimed.filters)
    return drawn


def _claims(verdicts: list[Verdict]) -> Figure:
    """The claims, a row each: what was found in units of what would matter, from 0, the value claimed."""
    words = [wrap(verdict.claim.says, LETTERS) for verdict in verdicts]
    heights = [(len(lines) + 2) * LINE + LANE + GAP for lines in words]
    figure = Figure(figsize=(COLUMN, sum(heights) + 0.55))
    axes = figure.add_axes((0.02, 0.45 / figure.get_figheight(), 0.96, sum(heights) / figure.get_figheight()))
    reach = _reach(verdicts)
    axes.set_xscale("symlog", linthresh=1, linscale=1)
    axes.set(xlim=(-1.2 * reach, 1.2 * reach), ylim=(sum(heights), 0), yticks=[])
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)
    top = 0.0
    for verdict, lines, height in zip(verdicts, words, heights, strict=True):
        _claim(axes, verdict, lines, top, 1.2 * reach)
        top += height
    step = int(np.ceil(np.log10(reach) / 3))
    powers = range(0 if step == 1 else step, round(np.log10(reach)) + 1, step)
    right = {10.0**power: f"{10**power}" if power < 2 else f"$10^{{{power}}}$" for power in powers}
    left = {-tick: f"−{label}" for tick, label in right.items()}
    ticks = dict(sorted({**left, 0.0: "0", **{tick: f"+{label}" for tick, label in right.items()}}.items()))
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.get_xticklabels()[0].set_horizontalalignment("left")  # so that it stays inside
    axes.get_xticklabels()[-1].set_horizontalalignment("right")
    axes.minorticks_off()
    axes.set_xlabel("distance from the value claimed; ±1 would matter")
    return figure


def _claim(axes: Axes, verdict: Verdict, lines: list[str], top: float, edge: float) -> None:
    """One claim's words and, in a strip that is grey where the claim is right, its mean with its interval."""
    color, mark, fill = MARK_OF[verdict.word]
    beside = axes.get_yaxis_transform()  # x in parts of the width
    word, *rest = verdict.word, *lines, f"{verdict.measured}, claimed {verdict.claimed}".replace("-", "−")
    at: dict[str, Any] = {"transform": beside, "va": "center", "fontsize": 7}
    axes.text(0, top + 0.5 * LINE, word, color=COLORS[color], weight="bold", **at)
    for number, line in enumerate(rest, 1):
        axes.text(0, top + (number + 0.5) * LINE, line, color="0.35" if line is rest[-1] else "black", **at)
    start, width = {"greater": (0, edge), "less": (-edge, edge), "equal": (-1, 2)}[verdict.claim.direction]
    lane = top + (len(lines) + 2) * LINE
    axes.add_patch(Rectangle((start, lane), width, LANE, color="0.91", linewidth=0))
    axes.plot([0, 0], [lane, lane + LANE], color="0.6", linewidth=0.8)
    if not verdict.seeds:
        return
    low, high, value = _in_units(verdict)
    middle = lane + LANE / 2
    axes.plot([low, high], [middle, middle], color=COLORS[color], linewidth=1.6, solid_capstyle="butt")
    axes.plot(value, middle, mark, color=COLORS[color], fillstyle=fill, markersize=5, label=verdict.claim.says)


def _reach(verdicts: list[Verdict]) -> float:
    """The power of ten that no verdict's interval goes beyond, 10 at least."""
    ends = [end for verdict in verdicts for end in _in_units(verdict)]
    farthest = max((abs(end) for end in ends if np.isfinite(end)), default=1.0)
    return float(10 ** max(1, np.ceil(np.log10(max(farthest, 1.0)))))


def _in_units(verdict: Verdict) -> list[float]:
    """Both ends of a verdict's interval and its value, in units of what would matter."""
    return [(end - verdict.theory) / verdict.bound for end in (verdict.low, verdict.high, verdict.value)]


def _plots(plots: list[tuple[Plot, dict[str, Points]]]) -> Figure:
    """The plots, one below the other: means with their 95 % intervals over seeds, as bars and as bands."""
    figure = Figure(figsize=(COLUMN, 2.5 * len(plots)), layout="constrained")
    panels = figure.subplots(len(plots), squeeze=False)[:, 0]
    for axes, (plot, lines) in zip(panels, plots, strict=True):
        for name, values in plot.reference.items():
            axes.plot(list(values), list(values.values()), color="0.8", linewidth=4, zorder=0, label=name)
        for number, (name, points) in enumerate(lines.items()):
            color = COLORS["ink" if name == "none" else LINES[number % len(LINES)]]
            mark = MARKS[number % len(MARKS)]
            half = np.nan_to_num(points.half)
            axes.errorbar(points.x, points.mean, yerr=half, color=color, marker=mark, capsize=2, label=name)
            axes.fill_between(points.x, points.mean - half, points.mean + half, color=color, alpha=0.12, linewidth=0)
        axes.set(xlabel=plot.x, ylabel=plot.y)
        if "y" in plot.log:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.minorticks_off()
        if "x" in plot.log:
            axes.set_xscale("log")
            xs = sorted({float(x) for points in lines.values() for x in points.x})
            axes.set_xticks(xs, [f"{x:g}" for x in xs])
            axes.minorticks_off()
        if len(axes.get_legend_handles_labels()[0]) > 1:
            axes.legend(frameon=False)
    return figure


def _filters(filters: dict[str, np.ndarray]) -> Figure:
    """The filters of each arm as a square of small images; mid-grey is a weight of 0."""
    figure = Figure(figsize=(COLUMN, COLUMN / len(filters) + 0.25), layout="constrained")
    panels = figure.subplots(1, len(filters), squeeze=False)[0]
    for axes, (arm, images) in zip(panels, filters.items(), strict=True):
        axes.imshow(_tiled(images), cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
        axes.set(xticks=[], yticks=[], title=arm)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
    return figure


def _tiled(images: np.ndarray) -> np.ndarray:
    """The filters of all units beside each other, (rows, columns), one grey weight wide apart; colours are averaged.

    Each is divided by its own largest |weight|, as it is its pattern that is looked at.
    """
    grey = images.mean(axis=-1)
    grey = grey / np.maximum(np.abs(grey).max(axis=(1, 2), keepdims=True), np.finfo(grey.dtype).tiny)
    side = int(np.ceil(len(grey) ** 0.5))
    padded = np.pad(grey, ((0, side**2 - len(grey)), (0, 1), (0, 1)))
    _, height, width = padded.shape
    return padded.reshape(side, side, height, width).swapaxes(1, 2).reshape(side * height, side * width)[:-1, :-1]
