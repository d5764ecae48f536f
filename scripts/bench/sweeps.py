"""Sweeps in one process against a process for each job: python scripts/bench/sweeps.py [--rounds 3]

CPU seconds of whole processes, their children included, W&B offline and all other defaults. A sweep is run --rounds
times; of the processes for single jobs, as many are run, and their median is multiplied by the number of jobs. The jobs
are short, an epoch of digits: with longer ones the ratio goes to 1, and start-up no longer matters. Goals: 8 seeds
<= 1/4, the 30 jobs of scripts/compare <= 1/6.

Then wall seconds of two longer jobs side by side, one thread each (hydra/launcher=joblib), over one after the other.
Only a machine with two idle cores can tell. Goal for jobs over 10 s: < 1.

Last, what keyed masks cost: CPU seconds of the 30 jobs of scripts/compare, whole, over the same with keyed=false. Goal:
<= 1.03. This takes two minutes a run.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from _record import record

SHORT = ["trainer.max_epochs=1"]
LONG = ["trainer.max_epochs=200", "seed=0,1"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="timings of each candidate")
    rounds = parser.parse_args().rounds
    print(f"{'':22}{'one process s':>15}{'a job alone s':>15}{'ratio (goal)':>18}")
    against_processes("8 seeds", 8, ["seed=range(8)"], 1 / 4, rounds)
    against_processes("compare, 30 jobs", 30, ["sweep=compare"], 1 / 6, rounds)
    side_by_side(rounds)
    keys(rounds)


def against_processes(name: str, jobs: int, words: Sequence[str], goal: float, rounds: int) -> None:
    sweeps, alone = [], []
    for number in range(rounds):
        alone.append(train([*SHORT, f"seed={number}"])[1])
        sweeps.append(train(["-m", *SHORT, *words])[1])
    sweep, job = statistics.median(sweeps), statistics.median(alone)
    ratio = sweep / (jobs * job)
    print(f"{name:22}{sweep:15.1f}{job:15.1f}{f'{ratio:.3f} ({goal:.3f})':>18}", flush=True)
    record(f"{name} in one process over {jobs} processes", ratio, f"<= {goal:.4f}")


def side_by_side(rounds: int) -> None:
    serial, both = [], []
    for _ in range(rounds):
        serial.append(train(["-m", *LONG])[0])
        both.append(train(["-m", *LONG, "hydra/launcher=joblib"])[0])
    first, second = statistics.median(serial), statistics.median(both)
    ratio = statistics.median(b / s for b, s in zip(both, serial, strict=True))
    print(f"\n{'':22}{'serial wall s':>15}{'joblib wall s':>15}{'ratio (goal)':>18}")
    print(f"{'2 jobs, both cores':22}{first:15.1f}{second:15.1f}{f'{ratio:.2f} (< 1)':>18}")
    record(f"2 jobs with joblib over serial, {first / 2:.0f} s a job, wall", ratio, "< 1")


def keys(rounds: int) -> None:
    keyed, unkeyed = [], []
    for number in range(rounds):
        pair = [(keyed, "keyed=true"), (unkeyed, "keyed=false")]
        for seconds, word in pair if number % 2 else reversed(pair):
            seconds.append(train(["-m", "sweep=compare", "hydra/launcher=basic", word])[1])
    first, second = statistics.median(unkeyed), statistics.median(keyed)
    ratio = statistics.median(k / u for k, u in zip(keyed, unkeyed, strict=True))
    print(f"\n{'':22}{'keyed=false s':>15}{'keyed=true s':>15}{'ratio (goal)':>18}")
    print(f"{'compare, 30 jobs':22}{first:15.1f}{second:15.1f}{f'{ratio:.3f} (1.03)':>18}")
    record("compare with keyed masks over keyed=false, CPU", ratio, "<= 1.03")


def train(words: Sequence[str]) -> tuple[float, float]:
    """Wall and CPU seconds of a process that trains."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as said:
        key = "hydra.sweep.dir" if "-m" in words else "hydra.run.dir"
        command = [sys.executable, "-m", "dropout_lab.train", *words, f"{key}={folder}/runs"]
        start = time.monotonic()
        process = subprocess.Popen(command, stdout=said, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            sys.exit(said.read().decode())
        return time.monotonic() - start, usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    os.environ["WANDB_MODE"] = "offline"
    main()
