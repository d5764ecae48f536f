"""Dropout against torch's own, forward + backward on the CPU: python scripts/bench/dropout.py [--rounds 40]

CPU time of one thread, interleaved, medians (see dropout_lab/verdict/cost.py). "keyed" is inside mask_keys, the context
entered once for each forward, as in training; the mask is that of any other machine or number of processes. A ratio
below 1 is faster than torch. Where in memory a large tensor lies changes its speed by more than that, so each row is
the median over several places. Bytes are what autograd keeps for backward, an element, beyond what was there before.

"rows" is a keyed layer whose rows are a permutation of a range, or 64 of 60,000, over the same with contiguous rows.

Where there is a GPU: wall time there, of 20 calls between two synchronisations.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from _record import record

from dropout_lab.dropout import Dropout, mask_keys
from dropout_lab.verdict.cost import ratios

PLACES = 5
ELEMENT = [
    ((64, 4096), torch.float32, 0.30),
    ((64, 4096), torch.bfloat16, 0.32),
    ((64, 4096), torch.float16, None),
    ((64, 4096), torch.float64, None),
    ((64, 128, 32, 32), torch.float32, 0.42),
    ((64, 128, 32, 32), torch.bfloat16, None),
    ((1024, 64), torch.float32, None),
    ((64, 256), torch.float32, 0.60),
    ((64, 128), torch.float32, 0.75),
    ((1024, 8), torch.float32, 0.75),
    ((8192, 1), torch.float32, 0.75),
    ((64, 64), torch.float32, 0.95),
    ((64, 16), torch.float32, 1.4),
]
CHANNEL = [
    ((64, 128, 32, 32), torch.float32, 1.05),
    ((64, 128, 32, 32), torch.bfloat16, 1.05),
    ((16, 64, 32, 32), torch.float32, 1.05),
    ((64, 32, 8, 8), torch.float32, 1.05),
]
OTHER_ROWS = [(64, 4096), (64, 256), (64, 16)]
ON_GPU = [((64, 256), 2.0), ((64, 4096), 2.0), ((256, 4096), 1.1), ((64, 128, 32, 32), 1.1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40, help="timings of each candidate")
    parser.add_argument("--p", type=float, default=0.5)
    arguments = parser.parse_args()
    print(f"torch {torch.__version__}, p = {arguments.p}, ratio to torch (goal)\n")
    print(f"{'':38}{'torch us':>10}{'keyed':>16}{'unkeyed':>9}{'bytes':>7}{'torch':>7}")
    for shape, dtype, goal in ELEMENT:
        compare("element", shape, dtype, goal, arguments)
    for shape, dtype, goal in CHANNEL:
        compare("channel", shape, dtype, goal, arguments)
    print(f"\n{'ratio to contiguous rows (goal)':38}{'us':>10}{'permuted':>16}{'scattered':>16}")
    for shape in OTHER_ROWS:
        reorder(shape, arguments)
    print(f"\n{'in eval, ratio to what is computed':38}{'us':>10}{'ours':>8}")
    for scaling in ("inverted", "unscaled", "classic"):
        evaluate(scaling, arguments)
    if torch.cuda.is_available():
        print(f"\n{torch.cuda.get_device_name():38}{'torch us':>10}{'keyed':>16}")
        for shape, goal in ON_GPU:
            on_device(torch.device("cuda"), shape, goal, arguments)


def compare(mask: str, shape: tuple[int, ...], dtype: torch.dtype, goal: float | None, arguments) -> None:
    size = math.prod(shape)
    ours = layer(mask, arguments.p)
    theirs: Callable = torch.nn.Dropout(arguments.p) if mask == "element" else lambda x: F.dropout2d(x, arguments.p)
    layers = {"torch": theirs, "keyed": keyed(ours, range(shape[0])), "unkeyed": ours}
    result = timed(layers, shape, dtype, arguments.rounds)
    x = torch.randn(shape, dtype=dtype, requires_grad=True)
    saved = [kept(each, x) / size for each in (layers["keyed"], theirs)]
    name = f"{mask} {'x'.join(map(str, shape))} {str(dtype)[6:]}"
    record(f"{name}: keyed over torch", result["keyed"][1], f"<= {goal}" if goal else None)
    record(f"{name}: unkeyed over torch", result["unkeyed"][1])
    if mask == "element":
        bound = 1.1 if size >= 2**17 else 1.35
        record(f"{name}: keyed over unkeyed", result["keyed"][1] / result["unkeyed"][1], f"<= {bound}")
    record(f"{name}: bytes an element kept for backward", saved[0], "<= 1" if mask == "element" else "<= 0.07", "")
    print(
        f"{name:38}{result['torch'][0]:10.0f}"
        f"{result['keyed'][1]:8.2f} {f'({goal})' if goal else '':7}{result['unkeyed'][1]:9.2f}"
        f"{saved[0]:7.2f}{saved[1]:7.2f}"
    )


def reorder(shape: tuple[int, ...], arguments) -> None:
    ours, rows = layer("element", arguments.p), shape[0]
    generator = torch.Generator().manual_seed(0)
    others = {
        "permuted": (torch.randperm(rows, generator=generator), 1.5),
        "scattered": (torch.randperm(60_000, generator=generator)[:rows], 2.5),
    }
    layers = {"contiguous": keyed(ours, range(rows)), **{name: keyed(ours, rows) for name, (rows, _) in others.items()}}
    result = timed(layers, shape, torch.float32, arguments.rounds)
    name = f"rows {'x'.join(map(str, shape))} float32"
    line = f"{name:38}{result['contiguous'][0]:10.0f}"
    for other, (_, goal) in others.items():
        record(f"{name}: {other} over contiguous", result[other][1], f"<= {goal}")
        line += f"{result[other][1]:8.2f} {f'({goal})':7}"
    print(line)


def evaluate(scaling: str, arguments) -> None:
    x = torch.randn(64, 4096)
    ours, q = layer("element", arguments.p, scaling).eval(), 1 - arguments.p
    plain = (lambda: x * q) if scaling == "classic" else torch.nn.Identity()
    candidates = {"plain": plain if scaling == "classic" else lambda: plain(x), "ours": lambda: ours(x)}
    result = ratios(candidates, 100, 20)
    print(f"{'eval ' + scaling:38}{result['plain'][0]:10.1f}{result['ours'][1]:8.2f}")
    goal = "<= 1.3" if scaling == "classic" else None
    record(f"eval {scaling}: ours over {'x * q' if scaling == 'classic' else 'nn.Identity'}", result["ours"][1], goal)


def on_device(device: torch.device, shape: tuple[int, ...], goal: float, arguments) -> None:
    x, grad = torch.randn(shape, device=device, requires_grad=True), torch.randn(shape, device=device)
    layers = {
        "torch": torch.nn.Dropout(arguments.p),
        "keyed": keyed(layer("element", arguments.p), range(shape[0])),
    }
    times: dict[str, list[float]] = {name: [] for name in layers}
    for number in range(arguments.rounds + 3):  # the first ones compile kernels
        for name, each in layers.items():
            torch.cuda.synchronize(device)
            start = time.perf_counter()
            for _ in range(20):
                x.grad = None
                each(x).backward(grad)
            torch.cuda.synchronize(device)
            if number >= 3:
                times[name].append((time.perf_counter() - start) / 20)
    ratio = statistics.median(k / t for k, t in zip(times["keyed"], times["torch"], strict=True))
    name = f"GPU {'x'.join(map(str, shape))} float32"
    record(f"{name}: keyed over torch", ratio, f"<= {goal}")
    print(f"{name:38}{statistics.median(times['torch']) * 1e6:10.0f}{ratio:8.2f} {f'({goal})':7}")


def layer(mask: str, p: float, scaling: str = "inverted") -> Dropout:
    made = Dropout(p, mask=mask, scaling=scaling)
    made.name = "00_dropout"
    return made


def keyed(of: Dropout, rows: Sequence[int] | torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    def call(x: torch.Tensor) -> torch.Tensor:
        with mask_keys(0, 0, rows):
            return of(x)

    return call


def timed(
    layers: dict[str, Callable], shape: tuple[int, ...], dtype: torch.dtype, rounds: int
) -> dict[str, tuple[float, float]]:
    """Microseconds of forward + backward, and ratio to the first layer: medians over places in memory."""

    def train(layer: Callable, x: torch.Tensor, grad: torch.Tensor) -> Callable[[], None]:
        def call() -> None:
            x.grad = None
            layer(x).backward(grad)

        return call

    size = math.prod(shape)
    calls, rounds = max(1, 2**14 // size), max(2, rounds // (1 + size // 2**20) // PLACES)
    found, held = [], []
    for _ in range(PLACES):
        x, grad = torch.randn(shape, dtype=dtype, requires_grad=True), torch.randn(shape, dtype=dtype)
        held.append((x, grad))  # so that the next ones lie elsewhere
        found.append(ratios({name: train(layer, x, grad) for name, layer in layers.items()}, rounds, calls))
    return {
        name: (statistics.median(one[name][0] for one in found), statistics.median(one[name][1] for one in found))
        for name in layers
    }


def kept(layer: Callable, x: torch.Tensor) -> int:
    """Bytes of the distinct tensors that autograd saves in one call."""
    saved: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() != x.untyped_storage().data_ptr():
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        layer(x)
    return sum(saved.values())


if __name__ == "__main__":
    main()
