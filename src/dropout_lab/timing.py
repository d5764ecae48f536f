"""Fair ratios on a busy machine: one thread, its CPU time, candidates interleaved, medians.

Wall time on a shared machine measures the neighbours, and torch's intra-op threads wait for them: see the benchmarks'
own tables for what one thread gives.
"""

import statistics
import time
from collections.abc import Callable

import torch


def ratios(candidates: dict[str, Callable[[], object]], rounds: int, calls: int = 1) -> dict[str, tuple[float, float]]:
    """Time the candidates against the first one.

    Args:
        candidates: name -> what to call; the first is the yardstick.
        rounds: how often all of them are timed, one after the other, every other time in reverse.
        calls: calls in one timing, for those that take microseconds.

    Returns:
        name -> (median microseconds a call, median over the rounds of its time / the first one's in that round).
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for call in candidates.values():
        for _ in range(max(2, calls)):  # warm up: caches, allocator, autograd's first use
            call()
    forth = list(candidates.items())
    for number in range(rounds):
        for name, call in forth if number % 2 else reversed(forth):  # who comes first has a colder cache
            start = time.thread_time_ns()
            for _ in range(calls):
                call()
            times[name].append((time.thread_time_ns() - start) / calls / 1000)
    torch.set_num_threads(threads)
    first = next(iter(times.values()))
    return {
        name: (statistics.median(taken), statistics.median(t / f for t, f in zip(taken, first, strict=True)))
        for name, taken in times.items()
    }
