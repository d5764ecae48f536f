"""Styles of lines: a colour and a dash for each strategy, the same on the page and in figures."""

from collections.abc import Sequence
from typing import Any

from dropout_lab.report.table import Row

# Names of page.css; the baseline "none" has a neutral one, "ink".
COLORS = ("blue", "orange", "green", "vermillion", "purple", "sky", "yellow")


def styles(table: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Name of a strategy -> colour, dash and base: the pair of the first two is unique for the first 42 strategies."""
    found: dict[str, dict[str, Any]] = {}
    colored = 0
    for row in table:
        if not row.seeds:
            continue
        plain = row.strategy.kind == "none"
        color = "ink" if plain else COLORS[colored % len(COLORS)]
        colored += not plain
        found[row.strategy.name] = {"color": color, "dash": len(found), "base": row.strategy.base}
    return found
