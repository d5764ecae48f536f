"""How long until something happens: python scripts/bench/startup.py [--rounds 7]

Commands: wall and CPU seconds of a whole process, interleaved, medians; hydra and lightning alone beside them. Goal:
< 1 s, which a command that imports torch or Lightning cannot meet.

First step: CPU milliseconds from the call of __main__.main to the first training step, of the second and later runs of
one process (so after all imports), in parts. Hydra composes the configuration of a single run three times, for us to
check it, to see whether it is a sweep, and to run it; "job" is the rest, building and checking model and data twice
taken apart. Goal: job < 100 ms.
"""

import argparse
import io
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

from _record import record

TRAIN = ["-m", "dropout_lab.train"]
COMMANDS = {
    "import hydra": ["-c", "import hydra"],
    "import torch": ["-c", "import torch"],
    "import lightning": ["-c", "import lightning"],
    "train --help": [*TRAIN, "--help"],
    "train --cfg job": [*TRAIN, "--cfg", "job"],
    "train --info": [*TRAIN, "--info"],
    "train dropout=typo": [*TRAIN, "dropout=typo"],
    "train droput=typo": [*TRAIN, "droput=typo"],
    "train model.width=8": [*TRAIN, "model.width=8"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="timings of each candidate")
    rounds = parser.parse_args().rounds
    commands(rounds)
    first_step(rounds)


def commands(rounds: int) -> None:
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
    for _ in range(rounds):
        for name, words in COMMANDS.items():
            taken[name].append(seconds([sys.executable, *words]))
    print(f"{'':22}{'wall s':>8}{'CPU s':>8}")
    for name, times in taken.items():
        wall, cpu = map(statistics.median, zip(*times, strict=True))
        print(f"{name:22}{wall:8.2f}{cpu:8.2f}")
        record(f"{name}: wall", wall, "< 1" if name.startswith("train") else None, "s")
        record(f"{name}: CPU", cpu, unit="s")


def seconds(command: Sequence[str]) -> tuple[float, float]:
    """Wall and CPU seconds of a process and those that it waits for."""
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, _, usage = os.wait4(process.pid, 0)
    process.returncode = 0  # it has been waited for
    return time.monotonic() - start, usage.ru_utime + usage.ru_stime


def first_step(rounds: int) -> None:
    import lightning
    import torch

    from dropout_lab.train import __main__ as train
    from dropout_lab.train import job

    torch.set_num_threads(1)
    reached: dict[str, float] = {}

    def note(name: str) -> None:
        reached.setdefault(name, time.process_time())

    def noting(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*arguments: Any) -> Any:
            note(name)
            return call(*arguments)

        return noted

    class Trainer(lightning.Trainer):
        """Knows when the first step begins."""

        def __init__(self, callbacks: list[lightning.Callback], **options: Any) -> None:
            first = lightning.Callback()
            first.on_train_batch_start = lambda *_: note("first step")  # type: ignore[method-assign]
            super().__init__(callbacks=[*callbacks, first], **options)

    sys.modules["__main__"].Trainer = Trainer  # type: ignore[attr-defined]
    stages = ("composed and checked", "built once to see", "composed by Hydra", "job")
    train.refusals = noting(stages[0], train.refusals)
    train.execute = noting(stages[1], train.execute)
    job.run = noting(stages[2], job.run)
    taken: dict[str, list[list[float]]] = {"csv": [], "default": []}
    for _ in range(rounds + 1):
        for logger, times in taken.items():
            reached.clear()
            note("main")
            once(train, ["trainer._target_=__main__.Trainer", f"logger={logger}", "trainer.max_epochs=1"])
            at = [reached[name] for name in ("main", *stages[:3], "first step")]
            times.append([1000 * (after - before) for before, after in itertools.pairwise(at)])
    print(f"\n{'CPU ms to the first step':26}" + "".join(f"{stage:>22}" for stage in stages) + f"{'all':>8}")
    for logger, times in taken.items():
        parts = [statistics.median(part) for part in zip(*times[1:], strict=True)]
        title = "with W&B offline" if logger == "default" else "with CSV alone"
        print(f"{title:26}" + "".join(f"{part:22.0f}" for part in parts) + f"{sum(parts):8.0f}")
        record(f"job to its first step, {title}", parts[-1], "< 100" if logger == "csv" else None, "ms")
        record(f"train.main to the first step, {title}", sum(parts), unit="ms")


def once(train: Any, words: list[str]) -> None:
    said = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(said), redirect_stderr(said):
        try:
            train.main([*words, "data.train_size=128", f"hydra.run.dir={folder}/run"])
        except SystemExit as end:
            if end.code:
                sys.__stderr__.write(said.getvalue())
                raise


if __name__ == "__main__":
    os.environ["WANDB_MODE"] = "offline"
    main()
