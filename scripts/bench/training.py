"""What training costs with everything on, against a plain PyTorch loop: python scripts/bench/training.py [--rounds 7]

One epoch of --steps steps at batch 64, validation included, of the lab as its users run it (progress bar, W&B offline,
CSV, checkpoints, activation statistics) and of a usual Lightning set-up (progress bar, CSV, checkpoints, five self.log
a step, torch's default DataLoader), each over a loop written by hand that trains the same network with torch's dropout
and default DataLoader and does the same validation. CPU time of the process, one thread, interleaved, medians.
Building model and data is not counted: the clock runs from the first training step to the end of training.

Goals: <= 1.40 at about 1.4 ms a step, <= 1.10 at about 10 ms.
"""

import argparse
import io
import os
import statistics
import sys
import tempfile
import time
import warnings
from contextlib import redirect_stderr, redirect_stdout

import lightning
import torch
import torch.nn.functional as F
from _record import record
from torch.utils.data import DataLoader, TensorDataset

from dropout_lab.models.small import CNN, MLP
from dropout_lab.train.__main__ import main as train_main

BATCH = 64
SIZES = {
    "MLP 8x8": (MLP, {"widths": [256, 256]}, [1, 8, 8], 1.40),
    "CNN 14x14": (CNN, {"widths": [32, 64], "hidden": 128}, [1, 14, 14], 1.10),
}


class Clock(lightning.Callback):
    """CPU time from the first training step to the end of training."""

    taken = 0.0

    def on_train_start(self, *_: object) -> None:
        Clock.taken = -time.process_time()

    def on_train_end(self, *_: object) -> None:
        Clock.taken += time.process_time()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="timings of each candidate")
    parser.add_argument("--steps", type=int, default=300, help="training steps of each")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["WANDB_MODE"] = "offline"
    warnings.filterwarnings("ignore")
    print(f"torch {torch.__version__}, lightning {lightning.__version__}, {arguments.steps} steps of {BATCH}\n")
    print(f"{'':12}{'plain ms/step':>14}{'ours':>14}{'usual Lightning':>17}")
    for name, (network, options, shape, goal) in SIZES.items():
        candidates = {
            "plain": plain(network, options, shape, arguments.steps),
            "ours": ours(network, options, shape, arguments.steps),
            "usual": usual(network, options, shape, arguments.steps),
        }
        times: dict[str, list[float]] = {key: [] for key in candidates}
        for call in candidates.values():
            call()  # warm up
        for _ in range(arguments.rounds):
            for key, call in candidates.items():
                times[key].append(call())
        ratio = {
            key: statistics.median(t / p for t, p in zip(taken, times["plain"], strict=True))
            for key, taken in times.items()
        }
        mine, each = ratio["ours"], statistics.median(times["plain"]) / arguments.steps * 1000
        print(f"{name:12}{each:14.2f}{f'{mine:.2f} ({goal:.2f})':>14}{ratio['usual']:17.2f}")
        record(f"{name}, {each:.1f} ms a step: ours over plain loop", mine, f"<= {goal}")
        record(f"{name}, {each:.1f} ms a step: usual Lightning over plain loop", ratio["usual"])


def ours(network: type, options: dict, shape: list[int], steps: int):
    words = [
        "data=synthetic",
        f"data.size={int(steps * BATCH / 0.7)}",
        f"data.shape={shape}".replace(" ", ""),
        "data.val_fraction=0.15",
        "data.test_fraction=0.15",
        f"model={network.__name__.lower()}",
        *(f"model.{key}={value}".replace(" ", "") for key, value in options.items()),
        "trainer.max_epochs=1",
        "+callbacks.clock._target_=__main__.Clock",
    ]

    def epoch() -> float:
        with tempfile.TemporaryDirectory() as folder, redirect_stdout(Terminal()), redirect_stderr(Terminal()) as said:
            try:
                train_main([*words, f"hydra.run.dir={folder}/run"])
            except SystemExit as end:
                if end.code:
                    sys.__stderr__.write(said.getvalue())
                    raise
        return Clock.taken

    return epoch


def sets(shape: list[int], steps: int):
    """Training, validation and train_eval sets of the sizes that the lab has."""
    size, val = steps * BATCH, int(steps * BATCH / 0.7 * 0.15)
    x, y = torch.randn(size, *shape), torch.randint(0, 10, (size,))
    train_set = TensorDataset(x, y)
    return train_set, TensorDataset(x[:val], y[:val])


def model_of(network: type, options: dict, shape: list[int]) -> torch.nn.Module:
    model = network(tuple(shape), 10, **options)
    for layer in model.modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.p = 0.5
    return model


def plain(network: type, options: dict, shape: list[int], steps: int):
    train_set, val_set = sets(shape, steps)

    def epoch() -> float:
        model = model_of(network, options, shape)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        loader = DataLoader(train_set, batch_size=BATCH, shuffle=True)
        start = time.process_time()
        for x, y in loader:
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            for _ in range(2):  # the validation part, and as large a part of the training set
                for x, y in DataLoader(val_set, batch_size=4 * BATCH):
                    F.cross_entropy(model(x), y).item()
        return time.process_time() - start

    return epoch


def usual(network: type, options: dict, shape: list[int], steps: int):
    train_set, val_set = sets(shape, steps)

    class Usual(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = model_of(network, options, shape)

        def step(self, batch, part: str):
            x, y = batch
            logits = self.net(x)
            loss = F.cross_entropy(logits, y)
            self.log(f"{part}/loss", loss, on_step=False, on_epoch=True, prog_bar=True)
            self.log(f"{part}/acc", (logits.argmax(1) == y).float().mean(), on_step=False, on_epoch=True, prog_bar=True)
            return loss

        def training_step(self, batch, batch_idx: int):
            loss = self.step(batch, "train")
            for name in ("a", "b", "c"):  # activation means, say
                self.log(f"activation/{name}", loss.detach(), on_step=False, on_epoch=True)
            return loss

        def validation_step(self, batch, batch_idx: int, dataloader_idx: int = 0) -> None:
            self.step(batch, f"val{dataloader_idx}")

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)

    def epoch() -> float:
        with tempfile.TemporaryDirectory() as folder, redirect_stdout(Terminal()), redirect_stderr(Terminal()):
            trainer = lightning.Trainer(
                accelerator="cpu",
                max_epochs=1,
                default_root_dir=folder,
                logger=lightning.pytorch.loggers.CSVLogger(folder),
                callbacks=[
                    Clock(),
                    lightning.pytorch.callbacks.ModelCheckpoint(folder, monitor="val0/loss/dataloader_idx_0"),
                ],
                enable_model_summary=False,
            )
            loaders = [DataLoader(val_set, batch_size=4 * BATCH)] * 2
            trainer.fit(Usual(), DataLoader(train_set, batch_size=BATCH, shuffle=True), loaders)
        return Clock.taken

    return epoch


if __name__ == "__main__":
    main()
