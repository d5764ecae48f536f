"""Monte Carlo dropout against what others do, T = 50 passes.

    python scripts/bench/monte_carlo.py [--rounds 15]

CPU time of one thread, methods interleaved, medians, as times faster than a plain loop.
"repeat" runs the whole network once on T copies of the INPUT, as uncertainty libraries do. To expect: VGG-16 at least
35, CNN with dropout in the head at least 3, nothing below 1 by more than noise.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torchvision
from _record import record
from torch import Tensor, nn

from dropout_lab.dropout import Dropout
from dropout_lab.dropout.ensembles.monte_carlo import monte_carlo
from dropout_lab.dropout.graph.modes import dropout_only
from dropout_lab.dropout.placement.install import Placement, install

T = 50
PATIENCE = 30  # seconds for the rounds beyond the third


def loop(model: nn.Module, x: Tensor) -> Tensor:
    with dropout_only(model, on=True):
        return torch.stack([model(x).softmax(-1) for _ in range(T)]).mean(0)


def repeat(model: nn.Module, x: Tensor) -> Tensor:
    with dropout_only(model, on=True):
        return model(x.repeat(T, *(1 for _ in x.shape[1:]))).softmax(-1).view(T, len(x), -1).mean(0)


def ours(model: nn.Module, x: Tensor) -> Tensor:
    return monte_carlo(model, x, T).mean


def mlp(p: float = 0.5) -> nn.Module:
    hidden = [nn.Linear(64, 256), nn.ReLU(), Dropout(p), nn.Linear(256, 256), nn.ReLU(), Dropout(p)]
    return nn.Sequential(*hidden, nn.Linear(256, 10))


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


GOALS = {
    "VGG-16, 1 image of 224 x 224": 35,
    "CNN, dropout in the head, 32 rows": 3,
    "CNN, dropout in the head, 1 row": 3,
}
CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "VGG-16, 1 image of 224 x 224": (vgg16, (1, 3, 224, 224)),
    "CNN, dropout in the head, 32 rows": (cnn, (32, 1, 28, 28)),
    "CNN, dropout in the head, 1 row": (cnn, (1, 1, 28, 28)),
    "CNN, dropout everywhere, 32 rows": (lambda: cnn(True), (32, 1, 28, 28)),
    "MLP, 1 row": (mlp, (1, 64)),
    "MLP, 360 rows": (mlp, (360, 64)),
    "MLP, dropout on the input, 360 rows": (lambda: nn.Sequential(Dropout(0.2), mlp()), (360, 64)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="timings of each method, of slow ones 3")
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    print(f"{'T = 50':<38}{'loop, ms':>10}{'repeat':>10}{'ours':>10}")
    for name, (make, shape) in CASES.items():
        torch.manual_seed(0)
        model, x = make(), torch.randn(shape)
        ours(model, x)  # not the first time that torch runs
        seconds: dict[Callable[..., Tensor], list[float]] = {loop: [], repeat: [], ours: []}
        begin = time.monotonic()
        while len(seconds[loop]) < 3 or (len(seconds[loop]) < rounds and time.monotonic() - begin < PATIENCE):
            for method, times in seconds.items():
                start = time.process_time()
                method(model, x)
                times.append(time.process_time() - start)
        plain, *others = (statistics.median(times) for times in seconds.values())
        print(f"{name:<38}{plain * 1e3:>10.1f}" + "".join(f"{plain / other:>9.2f}x" for other in others), flush=True)
        record(f"{name}: loop over ours", plain / others[1], f">= {GOALS.get(name, 0.9)}")
        record(f"{name}: loop over repeated inputs", plain / others[0])


if __name__ == "__main__":
    main()
