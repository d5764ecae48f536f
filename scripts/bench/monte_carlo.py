"""Monte Carlo dropout against what others do, T passes: 50 where a row does not say otherwise.

    python scripts/bench/monte_carlo.py [--rounds 15]

CPU time of one thread, methods interleaved, medians, as times faster than a plain loop. "repeat" runs the whole network
once on T copies of the INPUT, as uncertainty libraries do. All methods return the same four, the peers in the fewest
operations: the mean, the variance, the entropy and the mutual information.

To expect: VGG-16 at least 40, CNN with dropout in the head at least 7, nothing behind the loop or behind "repeat" by
more than noise, 3 %. Known to miss that: one row of a small MLP, where "repeat" takes some 300 microseconds and is
ahead, by a tenth to a quarter of a plain chain, and by half of a network with a forward of its own: there two passes
show first that copies give what single passes give. "repeat" does not ask, and is wrong where they don't.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
import torchvision
from _record import record
from torch import Tensor, nn

from dropout_lab.dropout import Dropout, Placement, install
from dropout_lab.dropout.ensembles.monte_carlo import MonteCarlo, monte_carlo
from dropout_lab.dropout.graph.modes import dropout_only
from dropout_lab.models.small import CNN, MLP

T = 50
PATIENCE = 30  # seconds for the rounds beyond the third


def loop(model: nn.Module, x: Tensor, passes: int) -> MonteCarlo:
    with dropout_only(model, on=True):
        return moments(torch.stack([model(x).softmax(-1) for _ in range(passes)]))


def repeat(model: nn.Module, x: Tensor, passes: int) -> MonteCarlo:
    with dropout_only(model, on=True):
        return moments(model(x.repeat(passes, *(1 for _ in x.shape[1:]))).softmax(-1).view(passes, len(x), -1))


def moments(probability: Tensor) -> MonteCarlo:
    """What ours returns, of probabilities (passes, N, classes), in the fewest operations."""
    mean = probability.mean(0)
    entropy = torch.special.entr(mean).sum(-1)
    variance = probability.square().mean(0) - mean.square()
    return MonteCarlo(mean, variance, entropy, entropy - torch.special.entr(probability).sum(-1).mean(0))


def ours(model: nn.Module, x: Tensor, passes: int) -> MonteCarlo:
    return monte_carlo(model, x, passes)


def mlp() -> nn.Module:
    hidden = [nn.Linear(64, 256), nn.ReLU(), Dropout(0.5), nn.Linear(256, 256), nn.ReLU(), Dropout(0.5)]
    return nn.Sequential(*hidden, nn.Linear(256, 10))


def deep_mlp() -> nn.Module:
    hidden = [layer for _ in range(8) for layer in (nn.Linear(256, 256), nn.ReLU())]
    return nn.Sequential(*hidden, Dropout(0.5), nn.Linear(256, 10))


def lab(kind: type[nn.Module], shape: tuple[int, ...]) -> nn.Module:
    """A network of the lab, whose forward pass is code and more than a chain, with dropout at its sites."""
    model = kind(shape, 10)
    install(model, Dropout, Placement("existing", p=0.5))
    return model


def cnn(after_convolutions: bool = False) -> nn.Module:
    features: list[nn.Module] = []
    for before, after in ((1, 16), (16, 32)):
        features += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
        features += [Dropout(0.25, mask="channel")] if after_convolutions else []
    head = [nn.Linear(32 * 7 * 7, 128), nn.ReLU(), Dropout(0.5), nn.Linear(128, 10)]
    return nn.Sequential(*features, nn.Flatten(), Dropout(0.5), *head)


def vgg16() -> nn.Module:
    model = torchvision.models.vgg16(num_classes=10)
    install(model, Dropout, Placement("existing", p=0.5))
    return model


class Case(NamedTuple):
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    passes: int = T
    goal: float = 0.97  # times faster than the loop; in every case at least as fast as "repeat", too


CASES = {
    "VGG-16, 1 image of 224 x 224": Case(vgg16, (1, 3, 224, 224), goal=40),
    "CNN, dropout in the head, 1 row": Case(cnn, (1, 1, 28, 28), goal=7),
    "CNN, dropout in the head, 32 rows": Case(cnn, (32, 1, 28, 28), goal=7),
    "CNN, dropout in the head, 256 rows": Case(cnn, (256, 1, 28, 28), goal=7),
    "CNN, dropout everywhere, 1 row": Case(lambda: cnn(True), (1, 1, 28, 28)),
    "CNN, dropout everywhere, 32 rows": Case(lambda: cnn(True), (32, 1, 28, 28)),
    "MLP, 1 row": Case(mlp, (1, 64)),
    "MLP, 1 row, T = 10": Case(mlp, (1, 64), 10),
    "MLP, 8 rows": Case(mlp, (8, 64)),
    "MLP, 64 rows": Case(mlp, (64, 64)),
    "MLP, 360 rows": Case(mlp, (360, 64)),
    "MLP, dropout on the input, 360 rows": Case(lambda: nn.Sequential(Dropout(0.2), mlp()), (360, 64)),
    "deep MLP, dropout at its end, 1 row": Case(deep_mlp, (1, 256)),
    "deep MLP, dropout at its end, 64 rows": Case(deep_mlp, (64, 256)),
    "the lab's MLP, 1 row": Case(lambda: lab(MLP, (64,)), (1, 64)),
    "the lab's MLP, 360 rows": Case(lambda: lab(MLP, (64,)), (360, 64)),
    "the lab's CNN, 1 row": Case(lambda: lab(CNN, (1, 28, 28)), (1, 1, 28, 28)),
    "the lab's CNN, 32 rows": Case(lambda: lab(CNN, (1, 28, 28)), (32, 1, 28, 28)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="timings of each method, of slow ones 3")
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    print(f"{'':<38}{'loop, ms':>10}{'repeat':>10}{'ours':>10}")
    for name, (make, shape, passes, goal) in CASES.items():
        torch.manual_seed(0)
        model, x = make(), torch.randn(shape)
        ours(model, x, passes)  # not the first time that torch runs
        seconds: dict[Callable[..., MonteCarlo], list[float]] = {loop: [], repeat: [], ours: []}
        begin = time.monotonic()
        while len(seconds[loop]) < 3 or (len(seconds[loop]) < rounds and time.monotonic() - begin < PATIENCE):
            for method, times in seconds.items():
                start = time.process_time()
                method(model, x, passes)
                times.append(time.process_time() - start)
        plain, *others = (statistics.median(times) for times in seconds.values())
        print(f"{name:<38}{plain * 1e3:>10.1f}" + "".join(f"{plain / other:>9.2f}x" for other in others), flush=True)
        record(f"{name}: loop over ours", plain / others[1], f">= {goal}")
        record(f"{name}: repeated inputs over ours", others[0] / others[1], ">= 0.97")


if __name__ == "__main__":
    main()
