"""What training a language model costs with everything on: python scripts/bench/language_model.py [--rounds 7]

One epoch of the default transformer on the default text, validation included, as users run it (W&B offline, CSV,
checkpoints, activation statistics, keyed masks at every place of dropout), over a loop written by hand with the same
network, batches, optimizer and validation, and torch's dropout at those places. CPU time of the process, one thread,
interleaved, medians. The clock runs from the first training step to the end of training.

Goal: <= 1.15.
"""

import argparse
import os
import statistics
import tempfile
import time
import warnings
from contextlib import redirect_stderr, redirect_stdout

import lightning
import torch
import torch.nn.functional as F
from _record import record
from torch import nn
from training import Clock, Terminal

from dropout_lab.data import Text
from dropout_lab.data.base import Place
from dropout_lab.models import Transformer
from dropout_lab.train.__main__ import main as train_main

P = 0.1
TEXT = {"context": 32, "batch_size": 64, "train_size": 200_000}
NETWORK = {"width": 64, "depth": 2, "heads": 4}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="timings of each")
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    os.environ["WANDB_MODE"] = "offline"
    warnings.filterwarnings("ignore")
    ours(), plain()  # warm up
    pairs = [(ours(), plain()) for _ in range(rounds)]
    ratio = statistics.median(mine / by_hand for mine, by_hand in pairs)
    steps = TEXT["train_size"] // TEXT["context"] // TEXT["batch_size"]
    each = statistics.median(by_hand for _, by_hand in pairs) / steps * 1000
    print(f"torch {torch.__version__}, lightning {lightning.__version__}, {steps} steps of {TEXT['batch_size']}")
    print(f"plain {each:.1f} ms a step, validation included; ours over it {ratio:.2f} (goal 1.15)")
    record(f"language model, {each:.1f} ms a step: ours over plain loop", ratio, "<= 1.15")


def ours() -> float:
    """Seconds of the lab's epoch."""
    words = ["data=text", "module=language_model", "model=transformer", f"dropout.p={P}", "trainer.max_epochs=1"]
    words += [f"data.{key}={value}" for key, value in TEXT.items()]
    words += [f"model.{key}={value}" for key, value in NETWORK.items()]
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(Terminal()), redirect_stderr(Terminal()):
        try:
            train_main([*words, "+callbacks.clock._target_=training.Clock", f"hydra.run.dir={folder}/run"])
        except SystemExit as end:
            if end.code:
                raise
    return Clock.taken


def plain() -> float:
    """Seconds of a loop by hand, with its validation."""
    data = Text(seed=0, **TEXT)
    data.setup()
    net = Transformer(data.shape, data.num_classes, **NETWORK)
    for layer in net.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = P
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    start = time.process_time()
    for number, (x, y) in enumerate(data.train_dataloader()):
        x, y = data.training_batch(x, y, Place(0, number, 0))
        optimizer.zero_grad()
        F.cross_entropy(net(x).flatten(0, 1), y.flatten()).backward()
        optimizer.step()
    net.eval()
    with torch.no_grad():
        for loader in data.val_dataloader():
            for x, y in loader:
                x, y = data.measured_batch(x, y)
                F.cross_entropy(net(x).flatten(0, 1), y.flatten()).item()
    return time.process_time() - start


if __name__ == "__main__":
    main()
