"""What grows with what: python scripts/bench/growth.py [--rounds 3] [--most 1000]

CPU time at 10, 100 and 1000 of a thing, and the factor from each to the next; ten times the work is a factor of 10,
and with a fixed cost less. Medians; no candidates are interleaved, so on a busy machine take the factors with a grain
of salt. Goal: <= 11, which is linear but for noise.

    layers    finding them, a watched step more than an unwatched one, and a flush with its rows; chain of small Linear
    jobs      of a sweep: composing and checking all before the first starts, which differ in the seed, in the learning
              rate, or in another value; goal: <= 8 ms each. And 300 of the last kind from Enter to the first job's
              start, all imports included; goal: <= 8 s. Memory of 1000 of them; goal: <= 1 GB
    runs      of a report of synthetic run folders
    ranks     processes with 64 rows each, gloo: CPU time of a step on all of them, of a plain loop with torch's DDP and
              of ours; goal: no faster than the plain loop's, but for noise
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
from _record import record
from torch import nn

HERE = Path(__file__).parent
STEPS = 200  # of training on several ranks
WARM_UP = 20  # of them


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="timings of each size, of jobs and runs only one")
    parser.add_argument("--most", type=int, default=1000, choices=(100, 1000), help="of layers, jobs and runs")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sizes = [size for size in (10, 100, 1000) if size <= arguments.most]
    print(f"{'CPU ms':32}" + "".join(f"{size:>12}{'':>8}" for size in sizes))
    for name, cost in (("layers, finding them", finding), ("layers, a step", watching), ("layers, a flush", flushing)):
        table(name, sizes, lambda size, cost=cost: cost(size, arguments.rounds))
    for name, words in KINDS.items():
        table(f"jobs, {name}", sizes, lambda size, words=words: planning(words(size)))
    started()
    table("runs in a report", sizes, reporting)
    ranks = (1, 2, 4)
    plain = table("ranks, a plain loop", ranks, lambda n: on_all(n, plain_words, arguments.rounds), (None, None))
    table("ranks, ours", ranks, lambda n: on_all(n, our_words, arguments.rounds), [1.1 * one for one in plain])


def table(
    name: str, sizes: Sequence[int], cost: Callable[[int], float], goals: Sequence[float | None] = (11, 11)
) -> list[float]:
    """One line: milliseconds at each size, and in brackets how many times those of the size before, returned."""
    costs: list[float] = []
    factors: list[float] = []
    print(f"{name:32}", end="", flush=True)
    for size in sizes:
        costs.append(cost(size) * 1000)
        print(f"{costs[-1]:12.1f}", end="")
        if len(costs) > 1:
            factors.append(costs[-1] / costs[-2])
            goal = goals[len(factors) - 1]
            record(f"{name}: {size} over {sizes[len(factors) - 1]}", factors[-1], goal and f"<= {goal:.3g}")
        print(f"{f'(x{factors[-1]:.1f})' if factors else '':>8}", end="", flush=True)
    print()
    return factors


def seconds(call: Callable[[], object], rounds: int) -> float:
    taken = []
    for _ in range(rounds):
        start = time.process_time()
        call()
        taken.append(time.process_time() - start)
    return statistics.median(taken)


def chain(layers: int) -> nn.Module:
    return nn.Sequential(*(nn.Linear(8, 8) for _ in range(layers)))


def finding(layers: int, rounds: int) -> float:
    from dropout_lab.activations import taps_of

    return seconds(lambda: taps_of(chain(layers)), rounds)


def watching(layers: int, rounds: int) -> float:
    from dropout_lab.activations import Meter, taps_of

    model, x = chain(layers), torch.randn(64, 8)
    meter = Meter(taps_of(model))

    def step() -> None:
        meter.start("train")
        model(x)
        meter.stop()

    def more() -> float:
        plain = seconds(lambda: model(x), 5)
        meter.attach()
        step()
        watched = seconds(step, 5)
        meter.detach()
        return watched - plain

    return statistics.median(more() for _ in range(rounds))


def flushing(layers: int, rounds: int) -> float:
    from dropout_lab.activations import Meter, records, taps_of

    model, x = chain(layers), torch.randn(64, 8)
    meter = Meter(taps_of(model))
    meter.attach()

    def flush() -> float:
        meter.start("train")
        model(x)
        meter.stop()
        return seconds(lambda: records.rows(meter.flush(), 0, 0), 1)

    return statistics.median(flush() for _ in range(5 * rounds))


def planning(words: Sequence[str]) -> float:
    from dropout_lab.jobs.plan import plan
    from dropout_lab.train.sweep import refusals, require_feasible

    def check(words: Sequence[str]) -> None:
        job_plan = plan(["-m", *words])
        require_feasible(job_plan)
        refusals(job_plan)

    check(["seed=0,1"])  # imports
    return seconds(lambda: check(words), 1)


def started() -> None:
    """Print what it takes from Enter to the first job's start, in a process that ends there."""
    for jobs in (1, 300, 1000):
        command = [sys.executable, __file__, "--start", "-m", *KINDS["another value"](jobs)]
        cpu, memory = map(float, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
        print(f"jobs, Enter to the first of {jobs:4}: {cpu:12.1f} s {memory:8.2f} GB")
        record(f"jobs: Enter to the first of {jobs}, CPU seconds", cpu, "<= 8" if jobs == 300 else None)
        record(f"jobs: memory of {jobs}, GB", memory, "<= 1" if jobs == 1000 else None)


def start(words: list[str]) -> None:
    """Start a command line up to its first job, and print what that took."""
    from dropout_lab.train import __main__, sweep

    def first(*_: object) -> None:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        print(usage.ru_utime + usage.ru_stime, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9)
        sys.stdout.flush()
        os._exit(0)

    sweep._task = lambda job_plan: first  # type: ignore[assignment, return-value]
    __main__.main(words)


def listed(key: str) -> Callable[[int], list[str]]:
    return lambda count: [f"{key}=" + ",".join(f"{(number + 1) / 10000}" for number in range(count))]


KINDS: dict[str, Callable[[int], list[str]]] = {
    "one more seed": lambda count: [f"seed=range({count})"],
    "learning rates": listed("optimizer.lr"),
    "another value": listed("optimizer.weight_decay"),
}


def reporting(runs: int) -> float:
    sys.path.insert(0, str(HERE.parents[1] / "tests" / "report"))
    from conftest import write_run  # type: ignore[import-not-found]

    from dropout_lab.report import build

    with tempfile.TemporaryDirectory() as folder:
        for number in range(runs):
            changed = {"tags": [str(number // 10)], "optimizer": {"lr": (number // 10 + 1) / 1000}}
            write_run(Path(folder) / str(number), seed=number % 10, config=changed)
        return seconds(lambda: build(folder), 1)


class Clock(lightning.Callback):
    """Writes down the CPU seconds of a step of this process."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        self.before(batch_idx)

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.after(batch_idx, trainer.global_rank)

    def before(self, step: int) -> None:
        if step == WARM_UP:
            self.start = time.process_time()

    def after(self, step: int, rank: int) -> None:
        if step == STEPS - 1:
            each = (time.process_time() - self.start) / (STEPS - WARM_UP)
            (self.folder / str(rank)).write_text(str(each))


def on_all(ranks: int, words: Callable[[int, str], list[str]], rounds: int) -> float:
    """CPU seconds of a step, all ranks together; median."""
    return statistics.median(training(ranks, words) for _ in range(rounds))


def training(ranks: int, words: Callable[[int, str], list[str]]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPATH": str(HERE)}
        command = [sys.executable, *words(ranks, folder)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        each = [float((Path(folder) / str(rank)).read_text()) for rank in range(ranks)]
    return sum(each)


def our_words(ranks: int, folder: str) -> list[str]:
    size = int(STEPS * 64 * ranks / 0.55) + 10  # of which 0.55 are for training
    trainer = ["trainer=ddp_cpu", f"trainer.devices={ranks}"] if ranks > 1 else ["trainer=cpu"]
    clock = ["+callbacks.clock._target_=growth.Clock", f"+callbacks.clock.folder={folder}"]
    data = ["data=synthetic", f"data.size={size}", f"data.batch_size={64 * ranks}"]
    rest = ["model=mlp", "trainer.max_epochs=1", "logger=csv", f"hydra.run.dir={folder}/run"]
    return ["-m", "dropout_lab.train", *data, *trainer, *clock, *rest]


def plain_words(ranks: int, folder: str) -> list[str]:
    return ["-m", "torch.distributed.run", f"--nproc-per-node={ranks}", __file__, "--rank-of", folder]


def plain_loop(folder: str) -> None:
    """One rank of it."""
    from dropout_lab.models.small import MLP

    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    rank, ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
    net: nn.Module = MLP((1, 8, 8), 10)
    for layer in net.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.5
    net = nn.parallel.DistributedDataParallel(net) if ranks > 1 else net
    optimizer, clock = torch.optim.SGD(net.parameters(), 0.05, momentum=0.9), Clock(folder)
    x, y = torch.randn(64, 1, 8, 8), torch.randint(0, 10, (64,))
    for step in range(STEPS):
        clock.before(step)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
        clock.after(step, rank)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--rank-of"]:
        plain_loop(sys.argv[2])
    elif sys.argv[1:2] == ["--start"]:
        start(sys.argv[2:])
    else:
        main()
