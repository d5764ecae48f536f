"""Make table and page of any folder of runs, and figures: `python -m dropout_lab.report DIR [--figures OUT]`."""

import argparse
from pathlib import Path

from dropout_lab.cli import UserError, in_one_line, one_line_errors
from dropout_lab.report import build


def main(arguments: list[str] | None = None) -> None:
    """Build the report of a folder; exits with 2 and one line on stderr where there is nothing to report on."""
    parser = argparse.ArgumentParser(prog="scripts/lab report", description="Table and page of a folder of runs.")
    parser.add_argument("folder", type=Path, metavar="DIR", help="a run folder, a sweep, or any folder above them")
    parser.add_argument("--figures", type=Path, metavar="OUT", help="also write PDF and PNG figures to this folder")
    with one_line_errors():
        given = in_one_line(parser).parse_args(arguments)
        try:
            report = build(given.folder, given.figures)
        except (FileNotFoundError, FileExistsError, PermissionError) as error:
            raise UserError(str(error)) from error
        print(f"{report.text}\n\nReport: {report.page}")
        if report.figures:
            print(f"Figures: {given.figures}/ ({', '.join(path.name for path in report.figures)})")


if __name__ == "__main__":
    main()
