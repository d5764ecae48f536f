"""Judge the claims of an experiment, from its run folders: `python -m dropout_lab.verdict DIR`."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from dropout_lab.cli import UserError, one_line_errors, read_folders
from dropout_lab.runs.folder import CONFIG, TABLES
from dropout_lab.runs.intact import warn_of_edits
from dropout_lab.runs.read import read_runs
from dropout_lab.verdict.judge import NO_CLAIMS, arms_not_whole, as_text, by_arm, find_statement, judge
from dropout_lab.verdict.numbers import Numbers

log = logging.getLogger(__name__)

USAGE = "scripts/lab verdict DIR    the folder of a sweep of scripts/compare experiment=NAME"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the verdicts of a sweep; exit code 2 where there is nothing to judge."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    with one_line_errors():
        (folder,) = read_folders(given, USAGE, 1)
        print(judge_folder(folder))


def judge_folder(folder: Path) -> str:
    """Verdicts on the claims of the runs below a folder, for a terminal; what is measured is left for the report.

    Raises:
        UserError: there is no such folder, no run in it, or the runs claim nothing or different things.
    """
    try:
        runs = read_runs(folder)
    except FileNotFoundError as error:
        raise UserError(str(error)) from error
    for run in runs:
        if run.status == "unreadable":
            log.warning("%s: not counted: %s", run.folder, run.reason)
        elif run.counted:
            warn_of_edits(run.folder, CONFIG, *TABLES)
    statement = find_statement(runs)
    if statement is None:
        raise UserError(f"{folder}: {NO_CLAIMS}")
    arms, numbers = by_arm(runs), Numbers(folder, measures=True)
    verdicts = judge(statement, arms, arms_not_whole(runs), numbers)
    numbers.measure_figures(statement, arms)
    numbers.write()
    return as_text(verdicts, statement)


if __name__ == "__main__":
    main()
