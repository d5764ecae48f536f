"""Parts of the page that are plain HTML: results, cards of the pictures, settings, what was left out."""

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import yaml  # type: ignore[import-untyped]

from dropout_lab.jobs.overrides import flat
from dropout_lab.modules.columns import declared
from dropout_lab.report.captions import CAPTIONS, Caption
from dropout_lab.report.columns import TableColumn
from dropout_lab.report.notes import heading
from dropout_lab.report.table import Row, columns_with_numbers, replicated, statistics
from dropout_lab.runs.read import Run
from dropout_lab.runs.settings import NOT_OF_THE_STRATEGY, differing_keys
from dropout_lab.runs.strategies import Strategy, baseline

DASHES = {0: "", 1: "7 4", 2: "2 3", 3: "7 3 2 3", 4: "11 4", 5: "11 3 2 3"}  # as in pictures.js


def results_table(table: Sequence[Row], styles: Mapping[str, Any], notes: Sequence[str]) -> str:
    """The table of results, with paired differences to the baseline under the values they belong to."""
    base, shown = baseline([row.strategy for row in table]), columns_with_numbers(table)
    heads = "".join(
        f'<th scope="col" title="{escape(column.explained)}">{escape(column.label)}</th>' for column in shown
    )
    lines = []
    for row in table:
        name = f'<th scope="row">{_swatch(styles.get(row.strategy.name))}{_breakable(row.name)}</th>'
        if row.seeds:
            cells = f"<td>{row.counted}</td>" + "".join(_cell(row, column) for column in shown)
        else:
            cells = f'<td>0</td><td class="text" colspan="{len(shown)}">{escape(str(row.strategy.reason))}</td>'
        lines.append(f"<tr>{name}{cells}</tr>")
    differences = ""
    if base and any(row.differences for row in table):
        differences = (
            f"<p>Small numbers under a value are paired differences to “{escape(base.name)}” at equal "
            f"{replicated(table)} (same initial weights, data order and masks), with their own 95 % interval; they are "
            "bold where it excludes zero. Of many comparisons in a table, expect one in twenty to do so by chance.</p>"
        )
    paragraphs = "".join(f"<p>{escape(note)}</p>" for note in notes)
    head = f'<thead><tr><th scope="col">strategy</th><th scope="col">{replicated(table)}</th>{heads}</tr></thead>'
    body = f"<tbody>{''.join(lines)}</tbody>"
    scroll = '<div class="scroll" tabindex="0" role="region" aria-label="results table">'
    results = f'{scroll}<table class="results">{head}{body}</table></div>'
    return f'{results}<div class="notes">{differences}{paragraphs}</div>'


def cards(table: Sequence[Row], styles: Mapping[str, Any], shown_at_first: int) -> str:
    """The switches of the strategies, and a card for each picture: title, how to read it, controls, place, numbers."""
    names = [row.strategy.name for row in table if row.seeds]
    if not names:
        return "<p>There is nothing to draw.</p>"
    chips = "".join(
        f'<button type="button" class="chip" data-strategy="{n}" aria-pressed="{str(n < shown_at_first).lower()}">'
        f"{_swatch(styles[name])}{escape(name)}</button>"
        for n, name in enumerate(names)
    )
    if len(names) > shown_at_first:
        chips += '<button type="button" data-all="true">all</button>'
        chips += '<button type="button" data-all="false">none</button>'
    bases = Counter(row.strategy.base for row in table if row.seeds and row.strategy.p is not None)
    logged = statistics(table)
    score = declared(run.config for row in table for run in row.strategy.runs)[0].title
    drawn = {"rates": max(bases.values(), default=0) > 1, "layers": bool(logged)}
    drawn |= {"gain": "gain" in logged, "ratio": {"gain", "ratio"} <= logged}  # dropout layers are those with a gain
    return f'<div class="chips" role="group" aria-label="strategies in the pictures">{chips}</div>' + "".join(
        _card(caption, score, replicated(table)) for caption in CAPTIONS if drawn.get(caption.needs, True)
    )


def setup(shown: Sequence[Strategy], runs: Sequence[Run]) -> str:
    """The section on what was run: commands, code, versions, dates, and how the configurations differ."""
    if not runs:
        return "<p>No run could be counted.</p>"
    seconds = sum(value for run in runs if isinstance(value := run.about.get("seconds"), int | float))
    facts = {
        "command": _codes(_about(runs, "command")),
        "commit": _codes(_commits(runs)),
        "versions": "<br>".join(escape(text) for text in _versions(runs)),
        "dates": escape(_dates(runs)),
        "computing": escape(f"{seconds / 60:.1f} minutes for {len(runs)} runs"),
        "dropout layers": escape(", ".join(shown[0].dropout_layers) or "none monitored"),
    }
    items = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts.items())
    config = {key: value for key, value in shown[0].config.items() if key not in NOT_OF_THE_STRATEGY}
    return (
        f'<dl class="facts">{items}</dl><h3>How the configurations differ</h3>{_differences(shown)}'
        f"<details><summary>Full configuration of “{escape(shown[0].name)}”</summary>"
        f'<pre tabindex="0">{escape(yaml.safe_dump(config, sort_keys=False))}</pre></details>'
    )


def left_out_list(left_out: Sequence[Run], counted: Sequence[Run]) -> str:
    """The list of folders that are not counted, and of what is missing in runs that are, under its heading."""
    remarks = [(run.name, "counted", run.note) for run in counted if run.note]
    lines = [*((run.name, run.status, run.reason) for run in left_out), *remarks]
    head = f'<h2 id="left-out">{heading(left_out, remarks)}</h2>'
    if not lines:
        return f"{head}<p>Every folder was read and every run is counted.</p>"
    rows = "".join(
        f'<tr><th scope="row"><code>{escape(name)}</code></th><td class="text">{escape(status)}</td>'
        f'<td class="text">{escape(str(reason))}</td></tr>'
        for name, status, reason in lines
    )
    return (
        f'{head}<div class="scroll" tabindex="0" role="region" aria-labelledby="left-out"><table><thead><tr>'
        '<th scope="col">folder</th><th scope="col" class="text">status</th><th scope="col" class="text">reason</th>'
        f"</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _swatch(style: Mapping[str, Any] | None) -> str:
    """A short piece of a strategy's line, as a picture."""
    if style is None:
        return ""
    dash = DASHES[style["dash"] % len(DASHES)]
    line = f'stroke="var(--{style["color"]})" stroke-width="3" stroke-dasharray="{dash}"'
    return f'<svg class="swatch" viewBox="0 0 26 10" aria-hidden="true"><path d="M0 5H26" {line}/></svg>'


def _cell(row: Row, column: TableColumn) -> str:
    """A value of the table and, below it, its difference to the baseline."""
    text = _minus(column.text(row.values[column.key], row.seeds))
    difference = row.differences.get(column.key)
    if difference is None or not difference.n:
        return f"<td>{text}</td>"
    clear = ' class="clear"' if difference.excludes_zero else ""
    n = "" if difference.n == row.seeds else f" (n={difference.n})"
    half = f" ± {difference.half * column.factor:.{column.decimals}f}" if difference.n > 1 else ""
    paired = _minus(f"{difference.mean * column.factor:+.{column.decimals}f}{half}{n}")
    return f"<td>{text}<small{clear}>{paired}</small></td>"


def _breakable(name: str) -> str:
    """A name that may be broken after its underscores."""
    return escape(name).replace("_", "_<wbr>")


def _minus(number: str) -> str:
    """A number with a minus sign in place of a hyphen."""
    return escape(number.replace("-", "−"))


def _card(caption: Caption, score: str, over: str) -> str:
    """The card of one picture, into which the page's script draws; ``score`` is what is measured first."""
    selects = "".join(
        f'<label>{label} <select name="{key}" autocomplete="off"></select></label>'
        for key, label in caption.controls.items()
    )
    name, title = caption.id, escape(caption.title.format(score=score))
    return f"""<figure id="{name}" aria-labelledby="{name}-title">
  <header>
    <h3 id="{name}-title" data-title="{escape(caption.title)}">{title}</h3>
    <button type="button" class="save" id="{name}-save" aria-labelledby="{name}-save {name}-title">save as SVG</button>
  </header>
  <figcaption id="{name}-how">{escape(caption.how_to_read.format(over=over))}</figcaption>
  <div class="controls">{selects}</div>
  <div class="plot" role="img" aria-labelledby="{name}-title {name}-below" aria-describedby="{name}-how"></div>
  <p class="empty" hidden>Nothing was logged for this picture, or no strategy is switched on.</p>
  <details>
    <summary id="{name}-below">Numbers</summary>
    <div class="numbers" tabindex="0" role="region" aria-labelledby="{name}-title {name}-below"></div>
  </details>
</figure>
"""


def _about(runs: Sequence[Run], key: str) -> list[str]:
    """The different values that the runs' status files have of a key."""
    return list(dict.fromkeys(str(run.about[key]) for run in runs if run.about.get(key)))


def _codes(texts: Sequence[str]) -> str:
    """The first five texts as code, a line each, and how many more there are."""
    listed = "<br>".join(f"<code>{escape(text)}</code>" for text in texts[:5]) or "not recorded"
    return listed + (f"<br>and {len(texts) - 5} more" if len(texts) > 5 else "")


def _commits(runs: Sequence[Run]) -> list[str]:
    """The commits that the runs were made with, and whether there were changes besides."""
    changed = {True: " with uncommitted changes", False: ""}
    shas = ((run.about.get("git_sha"), bool(run.about.get("git_diff"))) for run in runs)
    return list(dict.fromkeys(f"{str(sha)[:10]}{changed[diff]}" for sha, diff in shas if sha))


def _versions(runs: Sequence[Run]) -> list[str]:
    """The different sets of package versions that the runs were made with."""
    found = [run.about["versions"] for run in runs if isinstance(run.about.get("versions"), dict)]
    return list(dict.fromkeys(", ".join(f"{name} {version}" for name, version in each.items()) for each in found))


def _dates(runs: Sequence[Run]) -> str:
    """The times at which the first and the last run ended, as this machine's clock shows them."""
    times = sorted(run.ended for run in runs)
    first, last = (f"{time.astimezone():%Y-%m-%d %H:%M}" for time in (times[0], times[-1]))
    return f"runs ended {first}" if first == last else f"runs ended {first} to {last}"


def _differences(shown: Sequence[Strategy]) -> str:
    """The settings in which strategies differ, as a table."""
    keys = differing_keys([strategy.config for strategy in shown])
    if not keys:
        return "<p>They do not, apart from the seed.</p>"
    heads = "".join(f'<th scope="col"><code>{escape(key)}</code></th>' for key in keys)
    lines = []
    for strategy in shown:
        leaves = flat(strategy.config)
        cells = "".join(f"<td><code>{escape(_value(leaves.get(key)))}</code></td>" for key in keys)
        lines.append(f'<tr><th scope="row">{escape(strategy.name)}</th>{cells}</tr>')
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="configuration differences"><table class="settings">'
        f'<thead><tr><th scope="col">strategy</th>{heads}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
    )


def _value(value: object) -> str:
    """A setting as the page shows it: what the lab itself builds without the name of the package."""
    return "null" if value is None else str(value).removeprefix("dropout_lab.")
