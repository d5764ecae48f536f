"""The report of a folder of runs: read the runs, group them, write the table and the page, judge what was claimed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dropout_lab.cli import UserError
from dropout_lab.report.notes import heading, notes
from dropout_lab.report.page import write_page
from dropout_lab.report.table import (
    Row,
    as_frame,
    as_markdown,
    as_markdown_text,
    as_text,
    differences_as_markdown,
    rows,
    wrapped,
)
from dropout_lab.runs.atomic import write_whole
from dropout_lab.runs.read import Run, read_runs, read_skipped
from dropout_lab.runs.strategies import baseline, group

if TYPE_CHECKING:
    from dropout_lab.report.claims.data import Claimed

LISTED = 10  # runs named in the terminal; the page names all


@dataclass(frozen=True)
class Report:
    """The result of a report: what it says in a terminal, and where its page and pictures are.

    Attributes:
        text: the table, for a terminal.
        page: its path.
        claimed: what the runs were started to find out; None where they state nothing, or not all the same.
        verdict: the words on it for a terminal; "" where they state nothing.
        figures: paths of the pictures for a paper.
    """

    text: str
    page: Path
    claimed: "Claimed | None" = None
    verdict: str = ""
    figures: tuple[Path, ...] = ()


def build(folder: str | Path, figures: Path | None = None) -> Report:
    """Write the report of a folder of runs into it: table.md, table.csv and report.html.

    Of an experiment also claims.png and, where it asks for them, figure.png and filters.png: see claims/figures.py.

    Args:
        folder: a run folder, a sweep, or any folder above them.
        figures: folder for PDF and PNG files of the pictures; None: none are written.

    Raises:
        FileNotFoundError: there is no such folder, or no run in it.
    """
    folder = Path(folder)
    runs = read_runs(folder)
    strategies, left_out = group(runs, read_skipped(folder))
    table = rows(strategies)
    under = notes(table)
    listed = _listed(left_out, runs)

    base = baseline(strategies)
    write_whole(folder / "table.csv", as_frame(table, base).to_csv(index=False).encode())
    parts = [as_markdown(table), differences_as_markdown(table, base), *map(as_markdown_text, under)]
    parts.append("\n".join(f"- {as_markdown_text(line)}" for line in listed))
    write_whole(folder / "table.md", ("\n\n".join(filter(None, parts)) + "\n").encode())
    claimed, verdict = _claimed(folder, runs)
    section = _claims(folder, claimed) if claimed else ""
    page = write_page(folder / "report.html", folder, table, left_out, under, section)

    if len(listed) > LISTED:
        listed = [*listed[:LISTED], f"... and {len(listed) - LISTED} more, all listed on the page"]
    head = heading(left_out, listed)
    problems = [f"{head}:\n" + "\n".join(wrapped(f"  {line}", "    ") for line in listed)] if listed else []
    unmeasured = [claimed.unmeasured] if claimed and claimed.unmeasured else []
    text = "\n\n".join([as_text(table), *map(wrapped, under), *problems, *unmeasured])
    return Report(text, page, claimed, verdict, tuple(_figures(figures, table, claimed)) if figures else ())


def _claimed(folder: Path, runs: Sequence[Run]) -> "tuple[Claimed | None, str]":
    """The claims of these runs, and what came out in words, which may be why nothing did; no network is built."""
    if not any(run.config.get("verdict") for run in runs):
        return None, ""
    from dropout_lab.cli import root_cause
    from dropout_lab.report.claims.data import read_claimed  # scipy.stats takes two seconds
    from dropout_lab.verdict.numbers import Numbers

    try:
        claimed = read_claimed(runs, Numbers(folder, measures=False))
    except Exception as error:  # hours of training must not end without a table for want of a verdict
        return None, f"No verdict: {error if isinstance(error, UserError) else root_cause(error)}"
    return claimed, claimed.text


def _claims(folder: Path, claimed: "Claimed") -> str:
    """The page's section about the claims, whose pictures are written into the folder."""
    from dropout_lab.report.claims.figures import write
    from dropout_lab.report.claims.section import section  # matplotlib takes half a second

    return section(claimed, write(folder, claimed))


def _figures(folder: Path, table: list[Row], claimed: "Claimed | None") -> list[Path]:
    """The paths of the pictures for a paper, which are written into a folder of their own."""
    from dropout_lab.report.claims import figures as claim_figures
    from dropout_lab.report.figures import figures, write_figures

    return write_figures(folder, figures(table) | (claim_figures.figures(claimed) if claimed else {}))


def _listed(left_out: list[Run], runs: list[Run]) -> list[str]:
    """A line for each run that is not counted, and for each that is and lacks something."""
    lines = [f"{run.name}: {run.reason}" for run in left_out]
    return lines + [f"{run.name} (counted): {run.note}" for run in runs if run.counted and run.note]
