"""What watching activations costs, against what others do.

    python scripts/bench/activations.py [--rounds 15] [--compile]

A training step (batch 64, SGD) of a small CNN at 32 px and of resnet18 at 64 px; every leaf module watched at every
step, mean, std and zero fraction; CPU time of one thread, interleaved in one run, medians (see timing.py). "ours,
direct" is time measured inside the hooks, stop() and flush(), over the rest of the step: it resolves what A/B cannot.
At an interval of N the cost is that of every step / N.

Peers are the published algorithms, hooks and all: Composer's ActivationMonitor (mean, l2, kurtosis and max over the
last dimension, .item() each; as it is, which walks the batch, and as it is meant), fastai's ActivationStats (mean, std,
share near zero, with its histogram), torch.var_mean + count_nonzero (the usual hand-written hook), and wandb.watch,
which looks at parameters and gradients, not at activations.

Goals: resnet18 <= 1.06, small CNN <= 1.15, idle hook < 2 us, flush linear in layers, compiled within 2 % of unwatched.
"""

import argparse
import copy
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from _record import record
from torch import Tensor, nn

from dropout_lab.activations import Meter, Tap, taps_of
from dropout_lab.activations.module_hooks import ModuleHooks
from dropout_lab.verdict.cost import ratios

INTERVALS = (1, 10, 50)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="timings of each candidate")
    parser.add_argument("--compile", action="store_true", help="compiled models, too (minutes)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, one thread, batch 64\n")
    for name, model, pixels, goal in (("small CNN", small_cnn(), 32, 1.15), ("resnet18", resnet18(), 64, 1.06)):
        against_peers(name, model, torch.randn(64, 3, pixels, pixels), goal, arguments.rounds)
    idle_hook()
    flushes()
    if arguments.compile:
        compiled(arguments.rounds)


def small_cnn() -> nn.Module:
    layers: list[nn.Module] = []
    for before, after in ((3, 32), (32, 64), (64, 128)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
        layers += [nn.Dropout(0.3), nn.MaxPool2d(2)]
    head = [nn.Linear(128 * 16, 128), nn.ReLU(), nn.Dropout(0.3), nn.Linear(128, 10)]
    return nn.Sequential(*layers, nn.Flatten(), *head)


def resnet18() -> nn.Module:
    return torchvision.models.resnet18(num_classes=10)


def against_peers(name: str, model: nn.Module, x: Tensor, goal: float, rounds: int) -> None:
    monitors: dict[str, Callable[[nn.Module], Monitor]] = {
        "not watched": Monitor,
        "not watched, again (noise)": Monitor,
        "ours": Ours,
        "ours, default layers": lambda model: Ours(model, None),
        "wandb.watch (no activations)": WandbWatch,
        "fastai ActivationStats": Fastai,
        "var_mean + count_nonzero": VarMean,
        "Composer, as it is meant": lambda model: Composer(model, walk=False),
        "Composer ActivationMonitor": lambda model: Composer(model, walk=True),
    }
    steps = {key: training_step(copy.deepcopy(model), make, x) for key, make in monitors.items()}
    print(f"{name} at {x.shape[-1]} px{'':>24}ms a step   ratio")
    for key, (microseconds, ratio) in ratios(steps, rounds).items():
        print(f"  {key:<32}{microseconds / 1000:>14.1f}{ratio:>8.3f}")
        record(f"{name}, every step: {key}", ratio)
    share = direct(copy.deepcopy(model), x, rounds)
    record(f"{name}, every step: ours, direct", 1 + share, f"<= {goal}")
    every = "".join(f"{f'every {n}: +{share / n:.2%}':>20}" for n in INTERVALS)
    print(f"  ours, direct{every}\n")


def training_step(model: nn.Module, make: "Callable[[nn.Module], Monitor]", x: Tensor) -> Callable[[], None]:
    optimizer, monitor = torch.optim.SGD(model.parameters(), 0.01), make(model)
    y = torch.randint(0, 10, (len(x),))

    def step() -> None:
        monitor.before()
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        monitor.after()

    return step


class Monitor:
    """Watches nothing."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def before(self) -> None:
        """Called before the forward pass."""

    def after(self) -> None:
        """Called after the optimizer's step."""


class Ours(Monitor):
    def __init__(self, model: nn.Module, layers: list[str] | None = ["*"]) -> None:  # noqa: B006
        self.meter = Meter(taps_of(model, layers))
        self.meter.attach()

    def before(self) -> None:
        self.meter.start("train")

    def after(self) -> None:
        self.meter.stop()
        self.meter.flush().stats("train")


def direct(model: nn.Module, x: Tensor, rounds: int) -> float:
    """Time inside hooks, stop and flush, as a share of the rest of the step."""
    spent = [0.0]
    originals = ModuleHooks.before, ModuleHooks.after

    def timed(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any) -> Any:
            start = time.thread_time()
            result = call(*args)
            spent[0] += time.thread_time() - start
            return result

        return wrapper

    try:
        ModuleHooks.before, ModuleHooks.after = map(timed, originals)  # type: ignore[method-assign]
        monitor = Ours(model)
        monitor.after = timed(monitor.after)  # type: ignore[method-assign]
        step = training_step(model, lambda _: monitor, x)
        shares = []
        for _ in range(rounds + 2):
            spent[0], start = 0.0, time.thread_time()
            step()
            shares.append(spent[0] / (time.thread_time() - start - spent[0]))
    finally:
        ModuleHooks.before, ModuleHooks.after = originals  # type: ignore[method-assign]
    return statistics.median(shares[2:])


class WandbWatch(Monitor):
    def __init__(self, model: nn.Module) -> None:
        os.environ["WANDB_SILENT"] = "true"
        import wandb

        settings = wandb.Settings(x_disable_stats=True, console="off")
        self.run = wandb.init(project="bench", dir=tempfile.mkdtemp(), mode="offline", settings=settings)
        self.run.watch(model, log="all", log_freq=1)

    def after(self) -> None:
        self.run.log({"loss": 0.0})


class Fastai(Monitor):
    """fastai/callback/hook.py, 2.7: modules with parameters, outputs (and inputs) to the host, histogram of [0, 10]."""

    def __init__(self, model: nn.Module) -> None:
        self.stats: dict[str, dict[str, object]] = {}
        for name, module in leaves(model):
            if next(module.parameters(), None) is not None:
                module.register_forward_hook(lambda module, args, out, name=name: self.hook(name, args, out))

    def hook(self, name: str, args: tuple[Tensor, ...], out: Tensor) -> None:
        [x.detach().cpu() for x in args]
        out = out.detach().cpu().float()
        near_zero = (out <= 0.05).long().sum().item() / out.numel()
        self.stats[name] = {"mean": out.mean().item(), "std": out.std().item(), "near_zero": near_zero}
        self.stats[name]["hist"] = out.histc(40, 0, 10)


class VarMean(Monitor):
    def __init__(self, model: nn.Module) -> None:
        self.stats: dict[str, tuple[float, ...]] = {}
        for name, module in leaves(model):
            module.register_forward_hook(lambda module, args, out, name=name: self.hook(name, out))

    def hook(self, name: str, out: Tensor) -> None:
        variance, mean = torch.var_mean(out.detach())
        zeros = 1 - torch.count_nonzero(out.detach()) / out.numel()
        self.stats[name] = (mean.item(), variance.item() ** 0.5, zeros.item())


class Composer(Monitor):
    """composer/callbacks/activation_monitor.py, 0.31. Iterating over a bare output, as it does, walks the batch."""

    def __init__(self, model: nn.Module, walk: bool) -> None:
        super().__init__(model)
        self.walk = walk

    def before(self) -> None:
        self.metrics: dict[str, float] = {}
        self.handles = [
            module.register_forward_hook(lambda module, args, out, name=name: self.hook(name, args, out))
            for name, module in self.model.named_modules()
        ]

    def after(self) -> None:
        for handle in self.handles:
            handle.remove()

    def hook(self, name: str, args: tuple[Tensor, ...], out: Tensor) -> None:
        with torch.no_grad():
            for index, value in enumerate(args):
                self.add(f"{name}_input.{index}", value)
            for index, value in enumerate(out if self.walk else (out,)):
                self.add(f"{name}_output.{index}", value)

    def add(self, key: str, x: Tensor) -> None:
        self.metrics[f"l2_norm/{key}"] = torch.linalg.vector_norm(x, dim=-1).mean().item()
        self.metrics[f"average/{key}"] = x.mean().item()
        centred = x - x.mean(dim=-1, keepdim=True)
        variance = centred.square().mean(dim=-1)
        self.metrics[f"kurtosis/{key}"] = (centred.pow(4).mean(dim=-1) / variance.square()).mean().item()
        self.metrics[f"max/{key}"] = x.max(dim=-1).values.mean().item()


def leaves(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    return ((name, module) for name, module in model.named_modules() if not any(module.children()))


def idle_hook() -> None:
    plain, watched = nn.Identity(), nn.Identity()
    meter = Meter([Tap("x", watched)])
    meter.attach()
    x = torch.randn(1)
    found = ratios({"plain": lambda: plain(x), "watched": lambda: watched(x)}, rounds=25, calls=20000)
    cost = found["watched"][0] - found["plain"][0]
    print(f"idle hook: {cost:.2f} us a call\n")
    record("idle hook", cost, "< 2", "us")


def flushes() -> None:
    print("flush       layers    us    us a layer")
    before = None
    for layers in (10, 100, 1000):
        meter = Meter([Tap(f"{i}", nn.Identity()) for i in range(layers)])
        (microseconds, _), *_ = ratios({"flush": lambda meter=meter: meter.flush().stats("train")}, 25, 5).values()
        print(f"{layers:>18}{microseconds:>6.0f}{microseconds / layers:>14.2f}")
        if before is not None:
            record(f"flush of {layers} layers over {layers // 10}", microseconds / before, "<= 10")
        before = microseconds


def compiled(rounds: int) -> None:
    model, x = small_cnn(), torch.randn(64, 3, 32, 32)

    def step(watched: bool, active: bool) -> Callable[[], None]:
        twin = copy.deepcopy(model)
        meter = Meter(taps_of(twin, ["*"]))
        if watched:
            meter.attach()
        twin.compile(fullgraph=True)

        def run() -> None:
            if active:
                meter.start("train")
            twin(x).sum().backward()
            meter.stop()

        return run

    torch._dynamo.config.recompile_limit = 16
    candidates = {
        "compiled": step(False, False),
        "compiled, again (noise)": step(False, False),
        "compiled, ours idle": step(True, False),
        "compiled, ours every step": step(True, True),
    }
    print(f"\nsmall CNN, compiled{'':>18}ms a step   ratio")
    for key, (microseconds, ratio) in ratios(candidates, rounds).items():
        print(f"  {key:<32}{microseconds / 1000:>14.1f}{ratio:>8.3f}")
        record(f"small CNN, {key}", ratio, "<= 1.02" if key == "compiled, ours idle" else None)


if __name__ == "__main__":
    main()
