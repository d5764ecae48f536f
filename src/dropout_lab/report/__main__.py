"""``python -m dropout_lab.report DIR``: write table and page of a folder of runs again, and print the table."""

import argparse
import sys
from pathlib import Path

from dropout_lab.report import build


def main(arguments: list[str] | None = None) -> int:
    """Build the report; 0, or 2 with one line on stderr where there is nothing to report on."""
    parser = argparse.ArgumentParser(
        prog="python -m dropout_lab.report", description="Table and page of a folder of runs."
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="a run folder, a sweep, or any folder above them")
    folder = parser.parse_args(arguments).folder
    try:
        report = build(folder)
    except (FileNotFoundError, PermissionError) as error:
        print(f"report: {error}", file=sys.stderr)
        return 2
    print(f"{report.text}\n\nReport: {report.page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
