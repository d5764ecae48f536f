"""Two pictures of a run's activations so far: along its depth as last logged, and every layer over all steps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_COLOURS = {"train": "#d55e00", "eval": "#0072b2"}


def profile(path: Path) -> Figure:
    """The picture of mean, std and zero fraction of each layer along the depth, in train and in eval, as last logged.

    Args:
        path: an ``activations.csv``.
    """
    from plotly.subplots import make_subplots

    table = pd.read_csv(path).drop_duplicates(["mode", "layer", "stat"], keep="last")
    stats = ["mean", "std", "zeros"]
    figure = make_subplots(rows=3, shared_xaxes=True, vertical_spacing=0.03)
    for row, stat in enumerate(stats, start=1):
        for mode, colour in _COLOURS.items():
            chosen = table.query("stat == @stat and mode == @mode")
            look = {"name": mode, "legendgroup": mode, "showlegend": row == 1, "line_color": colour}
            figure.add_scatter(x=chosen.layer, y=chosen.value, mode="lines+markers", row=row, col=1, **look)
        figure.update_yaxes(title=stat, row=row, col=1)
    # Layers in train come in the order of the first pass; a mode that lacks some must not shift the others.
    figure.update_xaxes(categoryorder="array", categoryarray=_layers(table), tickangle=45)
    return figure.update_layout(title="Activations along the depth", height=700, template="plotly_white")


def heatmap(path: Path) -> Figure:
    """The picture of how far dropout shifts each layer's mean, in standard deviations, at every step that was logged.

    Args:
        path: an ``activations.csv``.
    """
    import plotly.graph_objects as go

    table = pd.read_csv(path).query("stat == 'shift'").drop_duplicates(["step", "layer"], keep="last")
    wide = table.pivot_table(index="layer", columns="step", values="value", dropna=False).reindex(_layers(table))
    colours = go.Heatmap(z=wide.values, x=wide.columns, y=wide.index, colorscale="RdBu", zmid=0, colorbar_title="shift")
    title = "Shift of the mean by dropout: (mean_train - mean_eval) / std_eval, same inputs"
    axes = {"xaxis_title": "step", "yaxis_autorange": "reversed", "height": 300 + 16 * len(wide)}
    return go.Figure(colours).update_layout(title=title, template="plotly_white", **axes)


def _layers(table: pd.DataFrame) -> list[str]:
    """Names of layers in order of depth: the input of a layer comes before the layer."""
    names = [str(name) for name in table.layer.unique()]
    return sorted(names, key=lambda name: (name.partition("_")[0], -len(name)))  # 03_conv_in is 03_conv and "_in"
