"""The section of the page on what `look` left in a folder: maps and predictions with dropout off and on."""

import json
from base64 import b64encode
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from dropout_lab.runs.folder import LOOK, LOOK_PICTURE
from dropout_lab.runs.layer_order import natural

MOST = 8  # pictures on one page: half a megabyte each

_INTRODUCTION = (
    "One image through one network, once in each column: as it computes in eval, and with dropout on the layers named. "
    "Element-wise dropout leaves holes in every map, spatial dropout takes whole maps away, and unscaled dropout keeps "
    "what is left as it was, so that everything after it sees less."
)


def look_section(folder: Path) -> str:
    """The section of the page about every network that was looked at, below a folder; empty where there is none."""
    names = [path.parent.relative_to(folder).as_posix() for path in folder.rglob(LOOK)]
    if not names:
        return ""
    names.sort(key=natural)
    rest = "".join(f"<br><code>{escape(name)}</code>" for name in names[MOST:])
    rest = f"<p>Not shown here, for the size of this page: {rest}</p>" if rest else ""
    heading = '<h2 id="look">A network looking at something</h2>'
    articles = "".join(_article(folder / name, name) for name in names[:MOST])
    return f'<section aria-labelledby="look">{heading}<p>{_INTRODUCTION}</p>{articles}{rest}</section>'


def _article(folder: Path, name: str) -> str:
    """A network that was looked at: the picture, the predictions and the means, or why they cannot be shown."""
    try:
        seen = json.loads((folder / LOOK).read_text(encoding="utf-8"))
        picture = b64encode((folder / LOOK_PICTURE).read_bytes()).decode()
        warning = f"<p><strong>{escape(seen['warning'])}</strong></p>" if seen["warning"] else ""
        return (
            f'<article class="look"><h3>{escape(seen["title"])}</h3>{warning}'
            '<div class="scroll" tabindex="0" role="region" aria-label="activation maps">'
            f'<img src="data:image/png;base64,{picture}" alt="{escape(seen["alt"])}" loading="lazy"></div>'
            f"{_predictions(seen['predictions'])}"
            f"<details><summary>Mean activations, and how it was done</summary>{_means(seen['means'])}"
            f"<p>{'<br>'.join(map(escape, seen['sentences']))}</p></details></article>"
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {getattr(error, 'strerror', None) or error}"
        return f"<p><code>{escape(name)}</code> cannot be shown: {escape(reason)}</p>"


def _predictions(conditions: Mapping[str, list[tuple[str, float]]]) -> str:
    """The likeliest classes under each condition, as a table."""
    rows = {name: [f"{guess} ({share:.1%})" for guess, share in guesses] for name, guesses in conditions.items()}
    head = ["", "likeliest", "2nd", "3rd", "4th", "5th"][: 1 + max(map(len, rows.values()))]
    return _table("the likeliest classes", head, rows)


def _means(layers: Mapping[str, Mapping[str, str]]) -> str:
    """The mean after each layer under each condition, as a table."""
    conditions = next(iter(layers.values()))
    return _table("mean activations", ["after", *conditions], {name: row.values() for name, row in layers.items()})


def _table(label: str, head: list[str], rows: Mapping[str, Iterable[Any]]) -> str:
    """A table that can be scrolled."""
    heads = "".join(f'<th scope="col">{escape(text)}</th>' for text in head)
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>{"".join(f"<td>{escape(text)}</td>" for text in cells)}</tr>'
        for name, cells in rows.items()
    )
    scroll = f'<div class="scroll" tabindex="0" role="region" aria-label="{label}">'
    return f"{scroll}<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"
