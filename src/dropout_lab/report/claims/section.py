"""The section of the page about an experiment's claims: its figures, and their numbers as tables."""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from dropout_lab.report.claims.data import HEAD, Claimed
from dropout_lab.verdict.judge import rule

_HOW = (
    "Each row is a claim that was stated before the runs. Its mark is the mean over the seeds, its line the 95 % "
    "interval. 0 is the value claimed, and ±1 is what the experiment's file says would matter, or the margin of an "
    "equality; beyond ±1 the scale is logarithmic. Where the strip is grey the claim is right."
)
_FILTERS = (
    "The weights from the image into each unit of the first layer, at the first seed. Each unit is scaled to its own "
    "largest weight: white is positive, black negative, and mid-grey 0."
)
_FIGURE = "Means with their 95 % intervals over the seeds, as bars and as bands between them{}."


def section(claimed: Claimed, pictures: Sequence[Path]) -> str:
    """The section as HTML, with these pictures (claims.png, figure.png, filters.png) inside."""
    of = {path.stem: b64encode(path.read_bytes()).decode() for path in pictures}
    parts = [f"<p>{escape(' '.join(filter(None, (f'{claimed.counted}.', claimed.unmeasured))))}</p>"]
    if claimed.plots:
        shown = "; ".join(f"{plot.y} over {plot.x}: {', '.join(lines)}" for plot, lines in claimed.plots)
        points = [
            (plot.y, name, f"{x:g}", f"{mean:.4g}", f"{half:.2g}")
            for plot, lines in claimed.plots
            for name, line in lines.items()
            for x, mean, half in zip(line.x, line.mean, line.half, strict=True)
        ]
        table = _table("the figure's numbers", ("", "line", "x", "mean", "± 95 %"), points)
        names = ", ".join(dict.fromkeys(name for plot, _ in claimed.plots for name in plot.reference))
        how = _FIGURE.format(f"; broad and grey is {names}" if names else "")
        parts.append(_drawn(how, of["figure"], shown, table))
    if claimed.filters:
        parts.append(_drawn(_FILTERS, of["filters"], f"first-layer weights of {', '.join(claimed.filters)}"))
    how = f"{_HOW} {rule(claimed.statement)}"
    parts.append(_drawn(how, of["claims"], claimed.counted, _table("claims", HEAD, claimed.rows)))
    heading = '<h2 id="claims">What was claimed, and what the runs say</h2>'
    return f'<section aria-labelledby="claims">{heading}{"".join(parts)}</section>'


def _drawn(how: str, picture: str, alternative: str, table: str = "") -> str:
    """A picture with how to read it above, and its numbers to be unfolded below."""
    if table:
        alternative += "; the same numbers are in the table below the picture"
        table = f"<details><summary>Numbers</summary>{table}</details>"
    return (
        f'<article class="drawn"><p class="muted">{escape(how)}</p>'
        f'<img src="data:image/png;base64,{picture}" alt="{escape(alternative)}">{table}</article>'
    )


def _table(label: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table that can be scrolled."""
    heads = "".join(f'<th scope="col">{escape(text)}</th>' for text in head)
    body = "".join(
        f'<tr><th scope="row">{escape(first)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>'
        for first, *cells in rows
    )
    scroll = f'<div class="scroll" tabindex="0" role="region" aria-label="{label}">'
    return f"{scroll}<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"
