"""What holds for every test: it begins and ends in the same surroundings, whichever ran before it."""

import os
from collections import Counter
from collections.abc import Iterator

import pytest
import torch
from commands import PATIENCE

from dropout_lab.train import patience

pytest_plugins = ["fake_runs", "trained_run"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files with most slow tests first: else one worker has them at the end, and the others have nothing to do."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(autouse=True)
def environment_kept() -> Iterator[None]:
    """Lightning notes seeds and addresses there, from where they would reach whatever a later test starts."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Torch's generator: else the weights of a test's model depend on the tests before it."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planning does not tell that it goes on, which depends on the clock."""
    monkeypatch.setattr(patience, "PATIENCE", PATIENCE)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A process that neither torchrun nor SLURM has started; the patch, to say otherwise."""
    for name in ("RANK", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch
