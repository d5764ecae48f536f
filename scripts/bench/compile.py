"""A compiled network against the same one in eager mode, on the CPU: python scripts/bench/compile.py [--rounds 15]

Forward and backward of a batch of 64 with keyed dropout, every layer watched, p changed by a schedule before each step:
as `compile=true` trains. CPU time of one thread, interleaved, medians. Graphs are those of all timed steps together;
"first step" is wall time, compilation included, and depends on what torch has in its cache.
"""

import argparse
import itertools
import time
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from _record import record
from torch import nn

from dropout_lab.activations import Meter, taps_of
from dropout_lab.dropout import Dropout, Placement, ScheduledRates, install, mask_keys
from dropout_lab.dropout.schedules import linear
from dropout_lab.models.small import CNN, MLP
from dropout_lab.verdict.cost import ratios

BATCH = 64
NETS: dict[str, tuple[Callable[..., nn.Module], Sequence[int]]] = {
    "MLP 8x8": (MLP, (1, 8, 8)),
    "CNN 14x14": (CNN, (1, 14, 14)),
    "CNN 32x32": (CNN, (3, 32, 32)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="timings of each candidate")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}\n\n{'':12}{'eager ms':>10}{'compiled':>10}{'graphs':>8}{'first step s':>14}")
    for name, (kind, shape) in NETS.items():
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        eager, compiled = training(kind(shape, 10), shape, False), training(kind(shape, 10), shape, True)
        start = time.perf_counter()
        compiled()
        first = time.perf_counter() - start
        found = ratios({"eager": eager, "compiled": compiled}, arguments.rounds, 10)
        graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        microseconds, ratio = found["eager"][0], found["compiled"][1]
        print(f"{name:12}{microseconds / 1000:10.2f}{ratio:10.2f}{graphs:8}{first:14.1f}", flush=True)
        record(f"{name}: compiled over eager", ratio)
        record(f"{name}: graphs, with statistics and a schedule of p", graphs, "<= 1", "")


def training(net: nn.Module, shape: Sequence[int], compiled: bool) -> Callable[[], None]:
    install(net, Dropout, Placement())
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    rates = ScheduledRates(net, linear)
    meter = Meter(taps_of(net))
    meter.attach()
    if compiled:
        net.compile(fullgraph=True)
    images, classes = torch.randn(BATCH, *shape), torch.randint(0, 10, (BATCH,))
    steps = itertools.count(1)  # at step 0 p is 0, which is a graph of its own

    def step() -> None:
        number = next(steps)
        rates.set(number, 10_000)
        meter.start("train")
        with mask_keys(0, number, range(BATCH)):
            logits = net(images)
        meter.stop()
        F.cross_entropy(logits, classes).backward()

    return step


if __name__ == "__main__":
    main()
