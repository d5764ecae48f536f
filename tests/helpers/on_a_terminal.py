"""What test_loggers.py has a process do whose input and output are a terminal: begin a run at W&B, and end it."""

import os
import sys

from dropout_lab.runs.wandb_logger import Wandb


def main(words: list[str]) -> None:
    terminal, mode, folder = words
    for number in range(3):
        os.dup2(os.open(terminal, os.O_RDWR), number)
    with open(0) as sys.stdin:
        assert sys.stdin.isatty()
        run = Wandb(mode=mode, save_dir=folder)
        run.log_metrics({"a": 1.0}, step=0)
        run.finish(0)
