"""What the tests of jobs share."""

import pytest


@pytest.fixture
def alone(monkeypatch):
    for name in ("RANK", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch
