"""What a process of the template's tells of itself: it imports this file by its name."""

import os
import signal
import sys

import torch

from dropout_lab.jobs.forkserver import begin


def told(pipe, environment, command):
    begin(environment, command)
    pipe.send((dict(os.environ), sys.orig_argv, torch.get_num_threads()))


def who(config, number):
    """Stands for a job: which process ran it, and what it saw."""
    if "die" in config:
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ["OMP_NUM_THREADS"]
