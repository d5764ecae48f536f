"""Write RESULTS.md from the sweeps of the experiments; scripts/reproduce runs them and calls this.

`python -m dropout_lab.results DIR FILE`: below DIR lies one sweep for each experiment, in a folder of its name.
"""

import re
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from dropout_lab.config import CONF
from dropout_lab.errors import UserError, one_line_errors
from dropout_lab.report import table as tables
from dropout_lab.report.runs import Run, read_runs, read_skipped
from dropout_lab.report.strategies import group
from dropout_lab.verdict import FAILS, HOLDS, TOO_FEW, Verdict, by_arm, find_statement, judge, rule, what

FIELDS = ("Claim", "Source", "Run", "Hardware", "Here")


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the file; exit code 2 where there is nothing to write."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    with one_line_errors():
        if len(given) != 2:
            raise UserError("usage: python -m dropout_lab.results DIR FILE    DIR holds one sweep for each experiment")
        Path(given[1]).write_text(results(Path(given[0])), encoding="utf-8")
        print(f"written: {given[1]}")


def results(folder: Path) -> str:
    """The text of RESULTS.md.

    Raises:
        UserError: none of the experiments has a run that counts.
    """
    summary, sections, missing = [], [], []
    for name in experiments():
        runs = read_runs(folder / name) if (folder / name).is_dir() else []
        if not any(run.counted for run in runs):
            missing.append(name)
            continue
        verdicts, section = _section(name, folder / name, runs)
        sections.append(section)
        summary.append(f"| [{name}](#{name}) | {_cell(header(name)['Claim'])} | {_counted(verdicts)} |")
    if not sections:
        raise UserError(f"{folder}: no finished run of any experiment; scripts/reproduce makes them")
    absent = f"\nNot run: {', '.join(missing)}.\n" if missing else ""
    return "\n".join([_TOP, *summary, absent, *sections])


def experiments() -> list[str]:
    """The names of all experiments."""
    return sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))


def header(name: str) -> dict[str, str]:
    """The comment that an experiment's file opens with, by field: Claim, Source, Run, Hardware, Here.

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


def _section(name: str, folder: Path, runs: list[Run]) -> tuple[list[Verdict], str]:
    about = header(name)
    strategies, left_out = group(runs, read_skipped(folder))
    statement = find_statement(runs)
    verdicts = judge(statement, by_arm(runs)) if statement else []
    lines = [f"## {name}", f"**Claim.** {about['Claim']}", f"**Source.** {about['Source']}"]
    lines += [f"`{about['Run']}`: {_provenance([run for run in runs if run.counted])}"]
    lines += [tables.as_markdown(tables.rows(strategies))]
    if left_out:
        lines += [f"Not counted: {len(left_out)} runs, e.g. {left_out[0].name}: {left_out[0].reason}"]
    if statement:
        rows = [
            f"| {_cell(verdict.claim.says)} | {verdict.metric}, {what(verdict.claim)} | {verdict.measured} "
            f"| {verdict.claimed} | {verdict.seeds} | {verdict.p:.2g} | **{verdict.word}** |"
            for verdict in verdicts
        ]
        head = "| claim | measured as | here | claimed | seeds | p | verdict |\n|---|---|---:|---:|---:|---:|---|"
        lines += ["\n".join([head, *rows]), rule(statement).replace("\n", " ")]
    return verdicts, "\n\n".join(lines) + "\n"


def _provenance(runs: list[Run]) -> str:
    """How many runs, when, with which code and versions."""
    newest = max((run.folder / "status.json").stat().st_mtime for run in runs)
    seconds = sum(float(run.about.get("seconds") or 0) for run in runs)
    commits = sorted({str(run.about.get("git_sha"))[:10] for run in runs})
    changed = " with uncommitted changes" if any(run.about.get("git_diff") for run in runs) else ""
    torch = sorted({str((run.about.get("versions") or {}).get("torch")) for run in runs})
    return (
        f"{len(runs)} runs, {seconds / 60:.1f} minutes, {datetime.fromtimestamp(newest, UTC):%Y-%m-%d}, "
        f"commit {', '.join(commits)}{changed}, torch {', '.join(torch)}."
    )


def _counted(verdicts: Sequence[Verdict]) -> str:
    counts = Counter(verdict.word for verdict in verdicts)
    return ", ".join(f"{counts[word]} {word}" for word in (HOLDS, FAILS, TOO_FEW) if counts[word])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


_TOP = """# Results

Written by `dropout_lab.results` from run folders, as `scripts/reproduce` makes them; do not edit. Each experiment
states its claims, and how they are tested, in `conf/experiment/NAME.yaml` before it runs, and every run keeps them in
its `config.yaml`. "Does not hold here" is a result about this data and this network, not about the paper. The rule
behind each verdict is at the top of `src/dropout_lab/verdict.py`; ± is a 95 % interval over seeds.

| experiment | claim | verdicts |
|---|---|---|"""


if __name__ == "__main__":
    main()
