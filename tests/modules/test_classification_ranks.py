"""The number of processes changes nothing: two train, validate and test as one does."""

import classification_ranks
import pandas as pd
import pytest

from dropout_lab.jobs.processes import launch


def metrics(folder, world):
    """What the first process wrote."""
    launch(world, classification_ranks.run, folder)
    return pd.read_csv(folder / "metrics.csv")


@pytest.mark.slow
def test_two_processes_log_what_one_logs(tmp_path):
    """Losses and accuracies in training, validation and test; float64 and keyed masks, so only rounding is left."""
    one, two = (metrics(tmp_path / str(world), world) for world in (1, 2))
    assert {"train/loss", "val/loss", "train_eval/acc", "gap/loss", "test/acc"} <= set(one)
    pd.testing.assert_frame_equal(one, two, rtol=1e-9, atol=1e-12)
