"""The page of the report, one file that fetches nothing: tables as HTML, pictures drawn by the plotly inside it."""

import json
from collections.abc import Sequence
from datetime import datetime
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from plotly.offline import get_plotlyjs

from dropout_lab.report.html import cards, left_out_list, results_table, setup
from dropout_lab.report.look_section import look_section
from dropout_lab.report.series import series
from dropout_lab.report.styles import styles
from dropout_lab.report.table import Row, replicated
from dropout_lab.runs.atomic import write_whole
from dropout_lab.runs.read import Run

HERE = Path(__file__).parent
SHOWN_AT_FIRST = 8  # strategies switched on when the page opens: more lines than that hide each other


def write_page(
    path: Path, folder: Path, table: Sequence[Row], left_out: Sequence[Run], notes: Sequence[str], claims: str
) -> Path:
    """Write the page of a report and return its path.

    Args:
        folder: the folder that was read; the page names it.
        table: the rows of the results.
        left_out: the runs that are not counted, with their reasons.
        notes: sentences that belong under the table.
        claims: the section about what was claimed, as HTML; "": there is none.
    """
    shown = [row.strategy for row in table if row.seeds]
    style_of = styles(table)
    data = series(shown) | {"shownAtFirst": SHOWN_AT_FIRST}
    for strategy, drawn in zip(shown, data["strategies"], strict=True):
        drawn |= style_of[strategy.name]
    p = next((strategy.p for strategy in shown if strategy.p), 0.5)
    counted = [run for strategy in shown for run in strategy.runs]
    page = Template((HERE / "page.html").read_text(encoding="utf-8")).substitute(
        style=(HERE / "page.css").read_text(encoding="utf-8"),
        folder=escape(folder.resolve().name),
        lead=_lead(table, counted, left_out),
        p=f"{p:.2f}",
        q=f"{1 - p:.2f}",
        times=f"{1 / (1 - p):.3g}",
        p_sentence=f"A mean of 1.00 falls to {1 - p:.2f}; times 1/(1 − p) it is 1.00 again.",
        claims=claims,
        results=results_table(table, style_of, notes),
        pictures=cards(table, style_of, SHOWN_AT_FIRST),
        look_section=look_section(folder),
        setup=setup(shown, counted),
        left_out=left_out_list(left_out, counted),
        footer=escape(f"Written {datetime.now().astimezone():%Y-%m-%d %H:%M %Z} from {len(counted)} runs."),
        data=_json(data),
        plotly=get_plotlyjs(),
        script="".join((HERE / name).read_text(encoding="utf-8") for name in ("pictures.js", "page.js")),
    )
    write_whole(path, page.encode())
    return path


def _lead(table: Sequence[Row], counted: Sequence[Run], left_out: Sequence[Run]) -> str:
    """The sentence at the page's top: how many runs of which strategies, and how many are left out."""
    ran = [row for row in table if row.seeds]
    rest = f' <a href="#left-out">{len(left_out)} folders are not counted.</a>' if left_out else ""
    if not ran:
        return f"No run could be counted.{rest}"
    seeds = [row.seeds for row in ran]
    each = f"{min(seeds)}" if min(seeds) == max(seeds) else f"{min(seeds)} to {max(seeds)}"
    names = ", ".join(row.strategy.name for row in ran[:8]) + (f" and {len(ran) - 8} more" if len(ran) > 8 else "")
    what = replicated(table) if max(seeds) > 1 else replicated(table)[:-1]
    return escape(f"{len(counted)} runs: {names}; {each} {what} each.") + rest


def _json(data: dict[str, Any]) -> str:
    """The page's data as text for a script element."""
    # "<" would let a name in the data end the script element.
    return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
