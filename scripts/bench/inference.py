"""What dropout costs in eval mode: python scripts/bench/inference.py [--rounds 60]

The same network with no dropout layers, with inverted ones, with classic ones (which multiply by 1 - p each time they
are called) and with the classic ones folded into its weights; CPU time of one thread, interleaved, medians (see
timing.py), as ratios to the first. The first is there twice: where its second time is not 1.00, the machine is too
busy to tell. conf/experiment/inference_cost.yaml judges claims about the first of these networks.

Here, torch 2.15.0: MLP 1.03 inverted, 1.11 classic, 1.01 folded; CNN and VGG-16 between 0.97 and 1.03, all of them.
"""

import argparse
import copy
from functools import partial

import torch
from _record import record
from torch import Tensor, nn

from dropout_lab.dropout import Dropout, Placement, fold, install
from dropout_lab.models.small import CNN, MLP
from dropout_lab.models.torchvision import torchvision_model
from dropout_lab.verdict.cost import ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60, help="timings of each candidate")
    arguments = parser.parse_args()
    print(f"torch {torch.__version__}, p = 0.5\n\n{'':26}{'none us':>10}", end="")
    print("".join(f"{name:>10}" for name in ("none", "inverted", "classic", "folded")))
    small, large = (1, 8, 8), (3, 32, 32)
    table("MLP 256-256", MLP(small, 10), torch.randn(64, *small), arguments.rounds, calls=40)
    table("CNN", CNN(small, 10), torch.randn(64, *small), arguments.rounds, calls=4)
    table("CNN", CNN(large, 10), torch.randn(64, *large), arguments.rounds)
    table("VGG-16", torchvision_model(large, 10, "vgg16"), torch.randn(8, *large), max(5, arguments.rounds // 6))


@torch.inference_mode()
def table(title: str, net: nn.Module, x: Tensor, rounds: int, calls: int = 1) -> None:
    """One row."""
    inverted, classic = with_dropout(net, "inverted"), with_dropout(net, "classic")
    with torch.inference_mode(False):
        none, folded = (fold(model, x[:2].clone()) for model in (inverted, classic))
    nets = {"yardstick": none, "none": none, "inverted": inverted, "classic": classic, "folded": folded}
    (microseconds, _), *others = ratios({name: partial(net, x) for name, net in nets.items()}, rounds, calls).values()
    title = f"{title}, {'x'.join(map(str, x.shape))}"
    for name, (_, ratio) in zip(list(nets)[2:], others[1:], strict=True):
        record(f"eval of {title}: {name}", ratio)
    print(f"{title:26}{microseconds:10.0f}" + "".join(f"{ratio:10.2f}" for _, ratio in others), flush=True)


def with_dropout(net: nn.Module, scaling: str) -> nn.Module:
    """A copy with the same parameters, not copies of them."""
    twin = copy.deepcopy(net, {id(parameter): parameter for parameter in net.parameters()})
    install(twin, lambda p: Dropout(p, scaling=scaling), Placement("default", p=0.5))
    return twin.eval()


if __name__ == "__main__":
    main()
