"""Dropout against torch's own, forward + backward on the CPU: python scripts/bench/dropout.py [--rounds 40]

CPU time of one thread, interleaved, medians (see timing.py). "keyed" is inside mask_keys, the context entered once for
each forward, as in training; the mask is that of any other machine or number of processes. A ratio below 1 is faster
than torch. Where in memory a large tensor lies changes its speed by more than that, so each row is the median over
several places. Bytes are what autograd keeps for backward, an element, beyond what was there before.
"""

import argparse
import math
import statistics
from collections.abc import Callable

import torch
import torch.nn.functional as F
from _record import record

from dropout_lab.dropout import Dropout, mask_keys
from dropout_lab.verdict.cost import ratios

PLACES = 5
ELEMENT = [
    ((64, 4096), torch.float32, 0.40),
    ((64, 4096), torch.bfloat16, 0.45),
    ((64, 4096), torch.float16, None),
    ((64, 4096), torch.float64, None),
    ((64, 128, 32, 32), torch.float32, 0.65),
    ((64, 128, 32, 32), torch.bfloat16, None),
    ((1024, 64), torch.float32, 1.15),
    ((64, 256), torch.float32, 1.15),
    ((64, 128), torch.float32, 1.15),
    ((1024, 8), torch.float32, 1.15),
    ((8192, 1), torch.float32, 1.15),
    ((64, 64), torch.float32, 1.5),
    ((64, 16), torch.float32, 1.5),
]
CHANNEL = [
    ((64, 128, 32, 32), torch.float32, 1.05),
    ((64, 128, 32, 32), torch.bfloat16, 1.05),
    ((16, 64, 32, 32), torch.float32, 1.05),
    ((64, 32, 8, 8), torch.float32, 1.05),
]


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
    for scaling in ("inverted", "unscaled", "classic"):
        evaluate(scaling, arguments)


def compare(mask: str, shape: tuple[int, ...], dtype: torch.dtype, goal: float | None, arguments) -> None:
    theirs: Callable = torch.nn.Dropout(arguments.p) if mask == "element" else lambda x: F.dropout2d(x, arguments.p)
    ours = Dropout(arguments.p, mask=mask)
    ours.name = "00_dropout"
    rows = range(shape[0])

    def keyed(x: torch.Tensor) -> torch.Tensor:
        with mask_keys(0, 0, rows):
            return ours(x)

    def train(layer: Callable, x: torch.Tensor, grad: torch.Tensor) -> Callable[[], None]:
        def call() -> None:
            x.grad = None
            layer(x).backward(grad)

        return call

    size = math.prod(shape)
    calls, rounds = max(1, 2**14 // size), max(2, arguments.rounds // (1 + size // 2**20) // PLACES)
    found, held = [], []
    for _ in range(PLACES):
        x, grad = torch.randn(shape, dtype=dtype, requires_grad=True), torch.randn(shape, dtype=dtype)
        held.append((x, grad))  # so that the next ones lie elsewhere
        layers = {"torch": theirs, "keyed": keyed, "unkeyed": ours}
        found.append(ratios({name: train(layer, x, grad) for name, layer in layers.items()}, rounds, calls))
    result = {name: [statistics.median(one[name][i] for one in found) for i in range(2)] for name in layers}
    saved = [kept(layer, x) / size for layer in (keyed, theirs)]
    name = f"{mask} {'x'.join(map(str, shape))} {str(dtype)[6:]}"
    record(f"{name}: keyed over torch", result["keyed"][1], f"<= {goal}" if goal else None)
    record(f"{name}: unkeyed over torch", result["unkeyed"][1])
    print(
        f"{name:38}{result['torch'][0]:10.0f}"
        f"{result['keyed'][1]:8.2f} {f'({goal})' if goal else '':7}{result['unkeyed'][1]:9.2f}"
        f"{saved[0]:7.2f}{saved[1]:7.2f}"
    )


def evaluate(scaling: str, arguments) -> None:
    x = torch.randn(64, 4096)
    ours = Dropout(arguments.p, scaling=scaling).eval()
    theirs = torch.nn.Dropout(arguments.p).eval()
    result = ratios({"torch": lambda: theirs(x), "ours": lambda: ours(x)}, 100, 20)
    print(f"{'eval ' + scaling:38}{result['torch'][0]:10.1f}{result['ours'][1]:8.2f}")
    record(f"eval {scaling}: ours over torch", result["ours"][1])


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
