"""The report of a folder of runs: a table, and a page with pictures that opens without a network."""

from dataclasses import dataclass
from pathlib import Path

from dropout_lab.report import table as tables
from dropout_lab.report.page import write_page
from dropout_lab.report.runs import Run, read_runs, read_skipped
from dropout_lab.report.sentences import sentences
from dropout_lab.report.strategies import baseline, group

__all__ = ["Report", "Run", "build", "read_runs"]

LISTED = 10  # runs named in the terminal; the page names all


@dataclass(frozen=True)
class Report:
    """What was built: the text for a terminal, the path of the page, and those of the figures."""

    text: str
    page: Path
    figures: tuple[Path, ...] = ()


def build(folder: str | Path, figures: Path | None = None) -> Report:
    """Read a folder of runs and write table.md, table.csv and report.html into it.

    Args:
        folder: a run folder, a sweep, or any folder above them.
        figures: folder for PDF and PNG files of the pictures; None: none are written.

    Raises:
        FileNotFoundError: there is no such folder, or no run in it.
    """
    folder = Path(folder)
    runs = read_runs(folder)
    strategies, left_out = group(runs, read_skipped(folder))
    table = tables.rows(strategies)
    notes = sentences(table)
    listed = _listed(left_out, runs)

    frame = tables.as_frame(table, baseline(strategies))
    frame.to_csv(folder / "table.csv", index=False)
    markdown = [tables.as_markdown(table), *notes, *(["\n".join(f"- {line}" for line in listed)] if listed else [])]
    (folder / "table.md").write_text("\n\n".join(markdown) + "\n", encoding="utf-8")
    page = write_page(folder / "report.html", folder, table, left_out, notes)

    if len(listed) > LISTED:
        listed = [*listed[:LISTED], f"... and {len(listed) - LISTED} more, all listed on the page"]
    problems = (
        ["Not in the table:\n" + "\n".join(tables.wrapped(f"  {line}", "    ") for line in listed)] if listed else []
    )
    text = "\n\n".join([tables.as_text(table), *map(tables.wrapped, notes), *problems])
    return Report(text, page, tuple(_figures(figures, table)) if figures else ())


def _figures(folder: Path, table: list[tables.Row]) -> list[Path]:
    from dropout_lab.report.figures import write_figures  # matplotlib takes half a second

    return write_figures(folder, table)


def _listed(left_out: list[Run], runs: list[Run]) -> list[str]:
    lines = [f"{run.name}: {run.reason}" for run in left_out]
    return lines + [f"{run.name} (counted): {run.note}" for run in runs if run.counted and run.note]
