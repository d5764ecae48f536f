"""The number of processes changes nothing: two train, validate and test as one does."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

WORKER = Path(__file__).with_name("classifier_ranks.py")


def metrics(folder, world):
    """What the first process wrote."""
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world}"] if world > 1 else []
    command = [sys.executable, *launch, str(WORKER), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return pd.read_csv(folder / "metrics.csv")


@pytest.mark.slow
def test_two_processes_log_what_one_logs(tmp_path):
    """Losses and accuracies in training, validation and test; float64 and keyed masks, so only rounding is left."""
    one, two = (metrics(tmp_path / str(world), world) for world in (1, 2))
    assert {"train/loss", "val/loss", "train_eval/acc", "gap/loss", "test/acc"} <= set(one)
    pd.testing.assert_frame_equal(one, two, rtol=1e-9, atol=1e-12)
