"""Two settings of a CPU: python scripts/bench/cpu.py [--rounds 5]

Threads: wall time of a training step (MLP 64-256-256-10, batch 64) with as many threads as there are cores, over one
thread; by itself, and with a busy process beside it. Wall time, as waiting is what it is about.

Memory: CPU time of x * 2 for tensors around 32 MiB, which glibc takes from the system and gives back each time, so that
every page of it is cleared and mapped anew, with its default settings over MALLOC_MMAP_MAX_=0
MALLOC_TRIM_THRESHOLD_=17179869184, which keep it. Each timing is a process of its own; interleaved, medians.
"""

import argparse
import os
import statistics
import subprocess
import sys

from _record import record

KEEP = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "17179869184"}
STEP = """
import time, torch
from torch import nn
torch.set_num_threads({threads})
net = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Dropout(), nn.Linear(256, 256), nn.ReLU(), nn.Dropout())
net.append(nn.Linear(256, 10))
x, y = torch.randn(64, 64), torch.randint(0, 10, (64,))
optimizer = torch.optim.SGD(net.parameters(), 0.01)
def step():
    optimizer.zero_grad()
    nn.functional.cross_entropy(net(x), y).backward()
    optimizer.step()
for _ in range(50):
    step()
start = time.perf_counter()
for _ in range(300):
    step()
print((time.perf_counter() - start) / 300)
"""
DOUBLE = """
import time, torch
torch.set_num_threads(1)
x = torch.ones({mib} * 2**18)
for _ in range(5):
    x * 2
start = time.process_time()
for _ in range(30):
    x * 2
print((time.process_time() - start) / 30)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="timings of each candidate")
    rounds = parser.parse_args().rounds
    cores = os.cpu_count() or 1
    print(f"{'wall ms of a step':28}{'1 thread':>10}{f'{cores} threads':>12}{'ratio':>8}")
    for beside in (0, 1):
        one, all_cores = compare(STEP.format(threads=1), STEP.format(threads=cores), {}, rounds, beside)
        title = "busy process beside" if beside else "alone"
        line(title, one, all_cores, f"{cores} threads over one, {title}")
    print(f"\n{'CPU ms of x * 2':28}{'kept':>10}{'default':>12}{'ratio':>8}")
    for mib in (16, 31, 32, 64):
        kept, default = compare(DOUBLE.format(mib=mib), DOUBLE.format(mib=mib), KEEP, rounds)
        line(f"{mib} MiB", kept, default, f"{mib} MiB, glibc's default over memory kept")


def line(title: str, first: float, second: float, name: str) -> None:
    print(f"{title:28}{first * 1000:10.2f}{second * 1000:12.2f}{second / first:8.2f}", flush=True)
    record(name, second / first)


def compare(first: str, second: str, extra: dict[str, str], rounds: int, beside: int = 0) -> tuple[float, float]:
    """Medians of both, ``extra`` in the first one's environment, with so many processes beside that only count."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(beside)]
    try:
        taken = [(measured(first, extra), measured(second, {})) for _ in range(rounds)]
    finally:
        for process in busy:
            process.kill()
            process.wait()
    return statistics.median(one for one, _ in taken), statistics.median(two for _, two in taken)


def measured(script: str, extra: dict[str, str]) -> float:
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"} | extra
    return float(
        subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, check=True).stdout
    )


if __name__ == "__main__":
    main()
