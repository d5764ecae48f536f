"""Cost of dropout layers in eval mode: CPU time of a forward pass / that of the network without them, timed fairly.

Two functions are compared in turns, in one thread, by the time that this thread was computing: the median over the
rounds of the ratio within a round does not see what else the machine does.
"""

import copy
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from dropout_lab.dropout import Dropout, fold

ROUNDS = 100
CALLS = 10  # of a network, in one timing


def eval_cost(net: nn.Module, images: Tensor, what: str) -> float:
    """Time of a network in eval mode / of the same network without its dropout layers, by :func:`ratios`.

    Args:
        net: in eval mode.
        images: a batch, (N, ...).
        what: "kept", the network as it is; "folded", with its layers folded into its weights, which leaves an
            nn.Identity in the place of each; "control", once more the network without them: what noise alone gives.

    Raises:
        KeyError: another word.
        ValueError: as :func:`dropout_lab.dropout.fold`.
    """
    make = {
        "kept": lambda: copy.deepcopy(net),
        "folded": lambda: fold(net, images[:2]),
        "control": lambda: without_layers(net),
    }
    candidates = {"without": without_layers(net), what: make[what]()}
    with torch.inference_mode():
        timed = ratios({name: partial(each, images) for name, each in candidates.items()}, ROUNDS, CALLS)
    return timed[what][1]


def without_layers(net: nn.Module) -> nn.Module:
    """A copy of a network without its dropout layers, weights as they are, nothing folded.

    Where a layer is not in an nn.Sequential an nn.Identity takes its place.
    """
    net = copy.deepcopy(net)
    for path, layer in list(net.named_modules()):
        if isinstance(layer, Dropout):
            parent, _, name = path.rpartition(".")
            if isinstance(net.get_submodule(parent), nn.Sequential):
                delattr(net.get_submodule(parent), name)
            else:
                net.set_submodule(path, nn.Identity())
    return net


def ratios(candidates: dict[str, Callable[[], object]], rounds: int, calls: int = 1) -> dict[str, tuple[float, float]]:
    """Times of functions, and their ratios to the time of the first: CPU time of one thread, taken in turns.

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
