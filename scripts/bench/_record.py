"""What a benchmark leaves for the table of scripts/bench/all."""

import json
import operator
import os
import sys
from pathlib import Path


def record(name: str, value: float, goal: str | None = None, unit: str = "x") -> None:
    """One line of the table of scripts/bench/all; nothing where a benchmark is run by itself.

    Args:
        name: of the figure, unique in its benchmark.
        value: what was measured.
        goal: "<= 1.4", "< 1" or ">= 4"; None: a peer's, or for information.
        unit: of the value; "x" is a ratio.
    """
    met = None
    if goal is not None:
        sign, bound = goal.split()
        met = {"<=": operator.le, "<": operator.lt, ">=": operator.ge}[sign](value, float(bound))
    if file := os.environ.get("BENCH_RECORDS"):
        line = {"bench": Path(sys.argv[0]).stem, "name": name, "value": value, "unit": unit, "goal": goal, "met": met}
        with Path(file).open("a") as records:
            records.write(json.dumps(line) + "\n")
