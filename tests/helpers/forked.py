"""What a fork of the server tells of itself: it imports this file by its name."""

import os
import sys

import torch

from dropout_lab.jobs.forkserver import begin


def told(pipe, environment, command):
    begin(environment, command)
    pipe.send((dict(os.environ), sys.orig_argv, torch.get_num_threads()))
