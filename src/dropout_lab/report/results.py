"""Write RESULTS.md from the sweeps of the experiments; scripts/reproduce runs them and calls this.

`python -m dropout_lab.report.results DIR FILE`: below DIR lies a sweep for each experiment, in a folder of its name.
What FILE says of experiments that have no runs there is kept, and so is what it says of baselines, which is written by
hand.
"""

import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from dropout_lab.cli import UserError, one_line_errors
from dropout_lab.jobs.conf import CONF
from dropout_lab.report import build
from dropout_lab.report import table as tables
from dropout_lab.report.claims.data import HEAD
from dropout_lab.runs.atomic import write_whole
from dropout_lab.runs.read import Run, read_runs, read_skipped
from dropout_lab.runs.strategies import group
from dropout_lab.verdict.__main__ import judge_folder
from dropout_lab.verdict.judge import rule

FIELDS = ("Claim", "Source", "Run", "Hardware")
BY_HAND = "\n# Baselines\n"  # from here on


def main(arguments: Sequence[str] | None = None) -> None:
    """Write RESULTS.md; exit code 2 where there is nothing to write."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    with one_line_errors():
        if len(given) != 2:
            raise UserError("usage: python -m dropout_lab.report.results DIR FILE    DIR has a sweep an experiment")
        folder, file = map(Path, given)
        text = results(folder, file.read_text(encoding="utf-8") if file.is_file() else "")
        write_whole(file, text.encode())
        print(f"written: {file}")


def results(folder: Path, before: str = "") -> str:
    """The text of RESULTS.md from the sweeps of the experiments.

    Args:
        folder: of the sweeps, each in a folder of its experiment's name.
        before: an earlier text, whose sections about experiments without runs, and about baselines, are kept.

    Raises:
        UserError: none of the experiments has a run that counts.
    """
    summary, sections, missing, ran = [], [], [], False
    for name in experiments():
        runs = read_runs(folder / name) if (folder / name).is_dir() else []
        if any(run.counted for run in runs):
            ran = True
            print(f"judging {name}", file=sys.stderr)  # what is measured at trained networks takes up to a minute
            counted, section = _section(name, folder / name, runs)
            row = f"| [{name}](#{name}) | {_cell(header(name)['Claim'])} | {counted} |"
        elif earlier := _earlier(name, before):
            row, section = earlier
        else:
            missing.append(name)
            continue
        sections.append(section)
        summary.append(row)
    if not ran:
        raise UserError(f"{folder}: no finished run of any experiment; scripts/reproduce makes them")
    absent = f"\nNot run: {', '.join(missing)}.\n" if missing else ""
    by_hand = "".join(before.partition(BY_HAND)[1:])
    return "\n".join([_TOP, *summary, absent, *sections]) + by_hand


def experiments() -> list[str]:
    """The names of all experiments."""
    return sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))


def header(name: str) -> dict[str, str]:
    """The comment that an experiment's file opens with, by field: Claim, Source, Run, Hardware.

    Raises:
        UserError: a field is missing.
    """
    fields: dict[str, str] = {}
    key = ""
    for line in (CONF / "experiment" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[1:]:
        if not line.startswith("#"):
            break
        found = re.match(rf"# ({'|'.join(FIELDS)}): (.*)", line)
        key = found[1] if found else key
        fields[key] = f"{fields.get(key, '')} {found[2] if found else line.lstrip('# ')}".strip()
    for field in FIELDS:
        if not fields.get(field):
            raise UserError(f"conf/experiment/{name}.yaml: its first comment must say '{field}: ...'")
    return fields


def _earlier(name: str, text: str) -> tuple[str, str] | None:
    """The row and the section about an experiment in an earlier text, if it is there."""
    row = re.search(rf"^\| \[{name}\]\(#{name}\) \|.*$", text, re.MULTILINE)
    section = re.search(rf"^## {name}\n(?:(?!##? ).*\n)+", text, re.MULTILINE)
    return (row[0], section[0].rstrip() + "\n") if row and section else None


def _section(name: str, folder: Path, runs: list[Run]) -> tuple[str, str]:
    """How many claims of an experiment hold and so on, and its section; its page is written again, to say the same."""
    about = header(name)
    strategies, left_out = group(runs, read_skipped(folder))
    with suppress(UserError):  # of claims that can't be judged the report says why
        judge_folder(folder)
    report = build(folder)
    lines = [f"## {name}", f"**Claim.** {about['Claim']}", f"**Source.** {about['Source']}"]
    lines += [f"`{about['Run']}`: {_provenance([run for run in runs if run.counted])}"]
    if claimed := report.claimed:
        asked = {"figure": claimed.plots, "filters": claimed.filters}
        pictures = " and ".join(f"`{name}.png`" for name in ("claims", *filter(asked.get, asked)))
        lines += [f"Figures: {pictures} beside `report.html`, where they are shown, in `runs/reproduce/{name}`."]
    lines += [tables.as_markdown(tables.rows(strategies))]
    if left_out:
        lines += [f"Not counted: {len(left_out)} runs, e.g. {left_out[0].name}: {left_out[0].reason}"]
    if claimed:
        head = f"| {' | '.join(HEAD)} |\n|---|---|---:|---:|---:|---:|---|"
        rows = [f"| {_cell(says)} | {' | '.join(cells)} | **{word}** |" for says, *cells, word in claimed.rows]
        lines += ["\n".join([head, *rows]), rule(claimed.statement).replace("\n", " ")]
    return claimed.counted if claimed else report.verdict, "\n\n".join(lines) + "\n"


def _provenance(runs: list[Run]) -> str:
    """How many runs there are, of when, with which code and versions."""
    seconds = sum(float(run.about.get("seconds") or 0) for run in runs)
    commits = sorted({str(run.about.get("git_sha"))[:10] for run in runs})
    changed = " with uncommitted changes" if any(run.about.get("git_diff") for run in runs) else ""
    torch = sorted({str((run.about.get("versions") or {}).get("torch")) for run in runs})
    return (
        f"{len(runs)} runs, {seconds / 60:.1f} minutes, {max(run.ended for run in runs):%Y-%m-%d}, "
        f"commit {', '.join(commits)}{changed}, torch {', '.join(torch)}."
    )


def _cell(text: str) -> str:
    """A text that cannot end its cell of a Markdown table."""
    return text.replace("|", "\\|")


_TOP = """# Results

Written by `dropout_lab.report.results` from run folders, as `scripts/reproduce` makes them; do not edit. Each
experiment states its claims, and how they are tested, in `conf/experiment/NAME.yaml` before it runs, and every run
keeps them in its `config.yaml`. "Does not hold here" is a result about this data and this network, not about the
paper. The rule behind each verdict is at the top of `src/dropout_lab/verdict/judge.py`; ± is a 95 % interval over
seeds.

| experiment | claim | verdicts |
|---|---|---|"""


if __name__ == "__main__":
    main()
