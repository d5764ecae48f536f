"""Every benchmark, one after the other, and one table of what they recorded: scripts/bench/all [--rounds 3] [NAME ...]

Figures are ratios within one run of a benchmark, see each one's first lines. Writes DIR/bench.md and DIR/bench.json.
The exit code is 1 if a benchmark crashed, not if a goal was missed.
"""

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
BENCHMARKS = sorted(path.stem for path in HERE.glob("[!_]*.py"))


def main() -> int:
    parser = argparse.ArgumentParser(
        "scripts/bench/all", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of them only: {', '.join(BENCHMARKS)}")
    parser.add_argument("--rounds", type=int, help="timings of each candidate; few are quick and rough")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "runs" / "bench", metavar="DIR")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.names if name not in BENCHMARKS]:
        parser.error(f"no benchmark {', '.join(unknown)}, there are: {', '.join(BENCHMARKS)}")
    about, records, crashed = machine(), [], []
    for name in arguments.names or BENCHMARKS:
        print(f"== {name}", flush=True)
        done, found = run(name, ["--rounds", str(arguments.rounds)] if arguments.rounds else [])
        records += found
        crashed += [name] * (done != 0)
        print(flush=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    told = {**about, "rounds": arguments.rounds, "crashed": crashed, "records": records}
    (arguments.out / "bench.json").write_text(json.dumps(told, indent=1))
    (arguments.out / "bench.md").write_text(page(about, records, crashed))
    print(summary(records, crashed))
    print(f"tables are in {arguments.out}")
    return int(bool(crashed))


def run(name: str, options: list[str]) -> tuple[int, list[dict[str, Any]]]:
    """Exit code of a benchmark, and what it recorded, also before it crashed."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "records"
        file.touch()
        environment = {"OMP_NUM_THREADS": "1", **os.environ, "BENCH_RECORDS": str(file)}
        done = subprocess.run([sys.executable, HERE / f"{name}.py", *options], env=environment)
        return done.returncode, [json.loads(line) for line in file.read_text().splitlines()]


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    sha = subprocess.run(["git", "-C", REPOSITORY, "describe", "--always", "--dirty"], capture_output=True, text=True)
    return {
        "date": datetime.date.today().isoformat(),
        "commit": sha.stdout.strip() or None,
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in ("torch", "lightning")}},
    }


def cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def page(about: dict[str, Any], records: list[dict[str, Any]], crashed: list[str]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    lines = [
        "# Benchmarks",
        "",
        f"{about['date']}, commit {about['commit']}, {about['cpu']} ({about['cores']} cores), {versions}.",
        summary(records, crashed),
        "",
        "| benchmark | figure | value | goal | |",
        "|---|---|---:|---:|---|",
    ]
    for record in records:
        verdict = {None: "", True: "met", False: "**missed**"}[record["met"]]
        value = f"{record['value']:.3g} {record['unit']}"
        lines.append(f"| {record['bench']} | {record['name']} | {value} | {record['goal'] or ''} | {verdict} |")
    return "\n".join(lines) + "\n"


def summary(records: list[dict[str, Any]], crashed: list[str]) -> str:
    judged = [record for record in records if record["met"] is not None]
    missed = [f"{record['bench']}: {record['name']}" for record in judged if not record["met"]]
    said = f"{len(judged) - len(missed)} of {len(judged)} goals met"
    said += f"; missed: {'; '.join(missed)}" if missed else ""
    return said + (f"; CRASHED: {', '.join(crashed)}" if crashed else "")


if __name__ == "__main__":
    sys.exit(main())
